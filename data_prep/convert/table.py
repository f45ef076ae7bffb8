"""The table that says which file is whose scan."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.convert.source import ReadOptions, Source
from grn_monai.data.cohort import SECTIONS
from grn_monai.errors import InputError, listed

__all__ = ["COLUMNS", "check_options", "read_table", "row_source"]

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
_CHOICES = {
    "plane": ("transverse", "sagittal"),
    "data": ("rf", "iq", "linear", "db", "grey"),
    "mask_order": ("columns-first", "rows-first"),
    "colour": ("luminance",),
}
_TRUTH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_MODALITIES = ("US", "CT", "MR")


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
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(path, f"no valid CSV ({error})", "a CSV file", "Save the table again as CSV.") from error
    names = _columns(path, lines[0][1] if lines else [], len(lines) - 1)
    table = []
    for number, cells in lines[1:]:
        if len(cells) > len(names):
            raise InputError(path, f"more cells than columns in line {number}", "one cell a column", "Mend the line.")
        filled = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if cell.strip()}
        table.append({"row": str(number), **filled})
    return table


def _columns(path: Path, header: list[str], rows: int) -> list[str]:
    """The columns' names, checked."""
    names = [_OTHER_NAMES.get(name.strip().lower(), name.strip().lower()) for name in header]
    unknown = [name for name in names if name not in COLUMNS]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if rows < 1:
        found = "no rows"
    elif unknown:
        found = f"the unknown column{'s' * (len(unknown) > 1)} {listed(unknown)}"
    elif twice:
        found = f"the column {listed(twice)} twice"
    elif "image" not in names:
        found = "no column `image`"
    else:
        return names
    mend = "Rename or remove columns; only `image` is needed."
    raise InputError(path, found, f"rows, with columns of {', '.join(COLUMNS)}, each once", mend)


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
    for name, choices in _CHOICES.items():
        if name in values and (value := values[name].lower()) not in choices:
            raise InputError(where, f"{name} {values[name]!r}", f"one of {', '.join(choices)}", "Correct the cell.")
        elif name in values:
            values[name] = value
    if "whole_frame" in values:
        whole = values["whole_frame"]
        if whole.lower() not in _TRUTH:
            raise InputError(where, f"whole_frame {whole!r}", "yes or no", "Correct the cell.")
        values["whole_frame"] = _TRUTH[whole.lower()]
    options = ReadOptions(**values)
    check_options(options, where)
    return options


def check_options(options: ReadOptions, where: str) -> None:
    """Raise an `InputError` for numbers that make no sense for any file.

    Args:
        options: of a command line or a row.
        where: which of the two.
    """
    lengths = [("frame_spacing", options.frame_spacing), ("dynamic_range_db", options.dynamic_range_db)]
    lengths += [("spacing", step) for step in options.spacing or ()]
    for name, length in lengths:
        if length is not None and not (math.isfinite(length) and length > 0):
            raise InputError(where, f"{name} {length:g}", "more than 0", f"Correct {name.removesuffix('_db')}.")
    counts = {"region": options.region, "volume": options.volume}
    counts |= {"frames": options.frames[0]} if options.frames else {}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(where, f"{name} {count}", "a number from 1", f"Correct {name}; it counts from 1.")


def row_source(row: dict[str, str], path: Path, source: Source) -> Source:
    """A source with what its row says of it.

    Raises:
        InputError: a cell is faulty; the message names the line.
    """
    where = f"{path}, line {row['row']}"
    section, modality = row.get("section"), row.get("modality")
    if section is not None and section not in SECTIONS:
        raise InputError(where, f"section {section!r}", f"one of {', '.join(SECTIONS)}", "Correct the cell.")
    if modality is not None and modality.upper() not in _MODALITIES:
        raise InputError(where, f"modality {modality!r}", f"one of {', '.join(_MODALITIES)}", "Correct the cell.")
    return replace(
        source,
        subject=row.get("subject", source.subject),
        scan=row.get("scan", source.scan),
        section=section or source.section,
        modality=modality.upper() if modality else source.modality,
        keys={**source.keys, **{key: row[key] for key in _KEYS if key in row}},
        options=row_options(row, path).over(source.options),
    )
