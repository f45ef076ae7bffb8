"""The table that says which file is whose scan."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.convert.source import ReadOptions, Source
from grn_monai.data.cohort import SECTIONS
from grn_monai.errors import InputError, listed

__all__ = ["COLUMNS", "read_table"]

_KEYS = ("side", "site", "status", "repeat")
_OPTIONS = tuple(ReadOptions.__dataclass_fields__)
COLUMNS: tuple[str, ...] = ("image", "label", "subject", "scan", "section", "modality", "index", *_KEYS, *_OPTIONS)
"""Columns of a table; only ``image`` is needed. ``image_path`` and ``mask_path`` are taken for image and label."""

_OTHER_NAMES = {"image_path": "image", "mask_path": "label", "mask": "label"}
_LISTS: dict[str, tuple[type[int] | type[float], int, str]] = {
    "spacing": (float, 3, "0.2 0.2 0.15 (mm)"),
    "frames": (int, 2, "1 120"),
    "crop": (int, 4, "84 31 595 414"),
}
_NUMBERS = {"frame_spacing": float, "region": int, "volume": int, "dynamic_range_db": float}


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file (comma, semicolon or tab; UTF-8) whose first row names the columns.

    Returns:
        One dict for each row, without empty cells, keys as `COLUMNS`, with ``row``, the line's number.

    Raises:
        InputError: the file cannot be read, has no ``image`` column, a column that is not known, or no row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        mend = "Save the table as CSV in UTF-8."
        raise InputError(path, f"a table that cannot be read ({error})", "a CSV file", mend) from error
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(path, f"no valid CSV ({error})", "a CSV file", "Save the table again as CSV.") from error
    names = [_OTHER_NAMES.get(name.strip().lower(), name.strip().lower()) for name in head.split(delimiter)]
    names = [name.strip('"') for name in names]
    unknown = [name for name in names if name not in COLUMNS]
    if "image" not in names or unknown or not rows:
        found = f"the unknown column{'s' * (len(unknown) > 1)} {listed(unknown)}" if unknown else "no column `image`"
        found = found if rows else "no rows"
        mend = "Rename or remove columns; only `image` is needed."
        raise InputError(path, found, f"rows, with columns of {', '.join(COLUMNS)}", mend)
    table = []
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise InputError(path, f"more cells than columns in line {number}", "one cell a column", "Mend the line.")
        cells = {name: (value or "").strip() for name, value in zip(names, row.values(), strict=True)}
        table.append({"row": str(number), **{name: value for name, value in cells.items() if value}})
    return table


def row_options(row: dict[str, str], path: Path) -> ReadOptions:
    """The read options in a row.

    Raises:
        InputError: one is not of its kind; the message names the line.
    """
    values: dict[str, Any] = {name: row[name] for name in _OPTIONS if name in row}
    where = f"{path}, line {row['row']}"
    for name, kind in _NUMBERS.items():
        if name in values:
            try:
                values[name] = kind(values[name])
            except ValueError as error:
                raise InputError(where, f"{name} {values[name]!r}", "a number", "Correct the cell.") from error
    for name, (kind, count, example) in _LISTS.items():
        if name in values:
            try:
                parts = [kind(part) for part in values[name].replace(",", " ").replace(";", " ").split()]
                if len(parts) != count:
                    raise ValueError
            except ValueError as error:
                expected = f"{count} numbers, such as {example}"
                raise InputError(where, f"{name} {values[name]!r}", expected, "Correct the cell.") from error
            values[name] = tuple(parts)
    return ReadOptions(**values)


def row_source(row: dict[str, str], path: Path, source: Source) -> Source:
    """A source with what its row says of it.

    Raises:
        InputError: a cell is faulty; the message names the line.
    """
    section = row.get("section")
    if section is not None and section not in SECTIONS:
        where = f"{path}, line {row['row']}"
        raise InputError(where, f"section {section!r}", f"one of {', '.join(SECTIONS)}", "Correct the cell.")
    return replace(
        source,
        subject=row.get("subject", source.subject),
        scan=row.get("scan", source.scan),
        section=section or source.section,
        modality=row.get("modality", source.modality),
        keys={**source.keys, **{key: row[key] for key in _KEYS if key in row}},
        options=row_options(row, path).over(source.options),
    )
