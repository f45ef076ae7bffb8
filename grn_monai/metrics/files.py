"""Texts of result files: JSON without NaN, CSV with typed columns."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["csv_text", "json_text", "read_rows"]


def _plain(value: Any) -> Any:
    """`value` with NumPy types turned into Python's and NaN and infinity into None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def json_text(content: Any) -> str:
    """Valid JSON text of nested dicts, lists, arrays and numbers; NaN and infinity become null."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{float(value):.6g}"
    return value


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV text of rows; floats have six significant digits, NaN is an empty cell and infinity is `inf`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header into one dict of strings a row."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
