"""Positions of vertebral levels: from a cohort's items, or from a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError

__all__ = ["COLUMNS", "item_levels", "read_levels"]

COLUMNS = ("scan", "level", "position_mm")

Levels = dict[str, float]


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def read_levels(path: str | PathLike[str]) -> dict[str, Levels]:
    """Scan to level to position in mm along S, from a CSV with the columns ``scan``, ``level`` and ``position_mm``.

    Raises:
        InputError: no such file, no such columns, no rows, a position that is no number, or a level given twice.
    """
    file = Path(path)
    if not file.is_file():
        mend = f"Check the path; the columns are {', '.join(COLUMNS)}."
        raise InputError(file, "no such file", "a CSV of levels", mend)
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            table = csv.DictReader(text)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                found = f"the columns {', '.join(table.fieldnames or ()) or '(none)'}"
                raise InputError(file, found, ", ".join(COLUMNS), "Name the columns in the first line.")
            rows = [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(file, f"a file that is no CSV ({error})", "a CSV in UTF-8", "Save it as CSV.") from error
    levels: dict[str, Levels] = {}
    for line, row in rows:
        scan, level, position = ((row[name] or "").strip() for name in COLUMNS)
        number = _number(position)
        if not scan or not level or number is None:
            found = f"scan {scan!r}, level {level!r}, position {position!r} in line {line}"
            raise InputError(file, found, "two names and a position in mm", "Correct that line.")
        if level in levels.setdefault(scan, {}):
            mend = "Keep one of the two."
            raise InputError(file, f"level {level} of scan {scan} again in line {line}", "each level once", mend)
        levels[scan][level] = number
    if not levels:
        raise InputError(file, "no rows", "one for each scan and level", "Fill in the table, or leave --levels out.")
    return levels


def item_levels(item: Mapping[str, Any]) -> Levels:
    """The ``levels`` of a cohort's item: level to position in mm along S.

    Raises:
        InputError: they are no names with numbers.
    """
    given = item.get("levels")
    if given is None:
        return {}
    numbers = {str(name): _number(value) for name, value in given.items()} if isinstance(given, Mapping) else {"": None}
    if any(number is None for number in numbers.values()):
        mend = "Correct the cohort file."
        raise InputError(item["image"], f"levels {given!r}"[:120], 'such as {"L3": 132.5}, in mm along S', mend)
    return {name: number for name, number in numbers.items() if number is not None}
