"""Left against right and repeat against repeat: rows of `measurements.json` to one table for each quantity."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grn_monai.report.numbers import MISSING, interval, number, spread
from grn_monai.report.tables import Cell, Table

__all__ = ["Comparison", "repeat_comparisons", "side_comparisons"]

_TITLES = {
    "thickness": "Thickness along the A-line",
    "normal_thickness": "Thickness along the surface normal",
    "echo": "Echo level",
    "volume": "Volume",
    "contrast_to_muscle": "Echo level less that of muscle",
}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One quantity: its title with unit, the table of its layers, and every single row behind it."""

    title: str
    table: Table
    single: Table


def _title(measure: str, unit: str) -> str:
    words = _TITLES.get(measure)
    if words is None:
        kind, _, plane = measure.partition("_")
        words = f"Cross-sectional area, {plane} slices" if kind == "area" else measure.replace("_", " ").capitalize()
    return f"{words} ({unit})" if unit else words


def _grouped(rows: Any) -> dict[tuple[str, str], dict[str, list[Row]]]:
    """(measure, unit) to layer to its rows, all in the order of the file."""
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows or []:
        key = (str(row.get("measure")), str(row.get("unit") or ""))
        groups.setdefault(key, {}).setdefault(str(row.get("layer")), []).append(row)
    return groups


def _digits(unit: str) -> int:
    return 1 if unit in ("%", "percentage points") else 2


def _numbers(rows: Iterable[Row], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row.get(key) is not None]


def _mean(values: Sequence[float], digits: int, signed: bool = False) -> str:
    if not values:
        return MISSING
    text = number(statistics.fmean(values), digits, signed=signed)
    return f"{text} ± {number(statistics.stdev(values), digits)}" if len(values) > 1 else text


def _place(row: Row) -> str:
    """Subject, and site and status where they are known."""
    return ", ".join(str(row[key]) for key in ("subject", "site", "status") if row.get(key) is not None)


def _largest(rows: Sequence[Row], key: str, digits: int, unit: str) -> Cell:
    known = [row for row in rows if row.get(key) is not None]
    if not known:
        return Cell(MISSING)
    most = max(known, key=lambda row: abs(row[key]))
    return Cell(number(most[key], digits, unit, True), (_place(most),))


def _side_row(rows: Sequence[Row], digits: int, percent: bool) -> list[Cell]:
    left_out = Counter(str(row["note"]) for row in rows if row.get("difference") is None and row.get("note"))
    largest = _largest(rows, "asymmetry_percent", 1, "%") if percent else _largest(rows, "difference", digits, "")
    return [
        Cell(
            str(sum(row.get("difference") is not None for row in rows)),
            tuple(f"{count} more: {note}" for note, count in left_out.items()),
        ),
        Cell(_mean(_numbers(rows, "left"), digits)),
        Cell(_mean(_numbers(rows, "right"), digits)),
        Cell(_mean(_numbers(rows, "difference"), digits, True)),
        largest,
    ]


def _single_side(layer: str, row: Row, digits: int) -> tuple[str, list[Cell]]:
    texts = [number(row.get(side), digits) for side in ("left", "right")]
    texts.append(number(row.get("difference"), digits, signed=True))
    texts.append(number(row.get("asymmetry_percent"), 1, "%", True))
    counts = [row.get("n_left"), row.get("n_right")]
    texts.append(" and ".join(number(count, 0) for count in counts))
    cells = [Cell(text) for text in texts]
    if row.get("note"):
        cells[2] = Cell(texts[2], (str(row["note"]),))
    return f"{_place(row)}: {layer}", cells


def side_comparisons(rows: Any) -> list[Comparison]:
    """`left_right` of the measurements: for each quantity mean ± SD over subjects and sites of both sides, and of
    right − left, and the largest asymmetry (of echo levels: difference) with the subject it belongs to."""
    found = []
    for (measure, unit), layers in _grouped(rows).items():
        digits = _digits(unit)
        # Echo levels have none: their zero is arbitrary.
        percent = not measure.startswith(("echo", "contrast"))
        table = Table(
            ["Pairs", "Left", "Right", "Right − left", f"Largest {'asymmetry' if percent else 'difference'}"],
            [(layer, _side_row(group, digits, percent)) for layer, group in layers.items()],
        )
        single = Table(
            ["Left", "Right", "Right − left", "Asymmetry", "Scans"],
            [_single_side(layer, row, digits) for layer, group in layers.items() for row in group],
        )
        found.append(Comparison(_title(measure, unit), table, single))
    return found


def _repeat_row(row: Row, digits: int) -> list[Cell]:
    left_out = row.get("left_out_sites")
    ci = interval(row.get("icc_ci95"), 2)
    note = row.get("note")
    return [
        Cell(
            f"{row['sites']} × {row.get('repeats')}" if row.get("sites") else "0",
            (f"{left_out} left out",) if left_out else (),
        ),
        Cell(spread(row, digits)),
        Cell(number(row.get("icc"), 2), tuple(text for text in (ci, str(note) if note else "") if text)),
        Cell(number(row.get("sem"), digits)),
        Cell(number(row.get("within_sd"), digits)),
        Cell(number(row.get("mdc95"), digits)),
    ]


def _pair_row(layer: str, pair: Row, digits: int) -> tuple[str, list[Cell]]:
    cells = [Cell(number(pair.get("n"), 0))]
    for key in ("bias", "lower", "upper"):
        ci = interval(pair.get(f"{key}_ci95"), digits)
        cells.append(Cell(number(pair.get(key), digits, signed=key == "bias"), (ci,) if ci else ()))
    return f"{layer}: {pair.get('second')} − {pair.get('first')}", cells


def repeat_comparisons(rows: Any) -> list[Comparison]:
    """`repeatability` of the measurements: for each quantity ICC(2,1) with its interval, errors, and Bland–Altman."""
    found = []
    for (measure, unit), layers in _grouped(rows).items():
        table = Table(
            ["Sites × repeats", "Mean ± SD", "ICC(2,1)", "SEM", "Within-site SD", "MDC95"],
            [(layer, _repeat_row(row, _digits(unit))) for layer, group in layers.items() for row in group],
        )
        pairs = [
            _pair_row(layer, pair, _digits(unit))
            for layer, group in layers.items()
            for row in group
            for pair in row.get("bland_altman") or []
        ]
        single = Table(["Sites", "Bias", "Lower limit", "Upper limit"], pairs)
        found.append(Comparison(_title(measure, unit), table, single))
    return found
