"""The tables of a report: plain rows of ready cells, so that the template only places them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.metrics.statistics import PairedDifference, paired_difference
from grn_monai.report.load import Method

__all__ = [
    "KINDS",
    "Cell",
    "Table",
    "best_kind",
    "differences",
    "distance_table",
    "layer_table",
    "overall_table",
    "plane_table",
    "scan_means",
    "scan_table",
]

KINDS: dict[str, str] = {
    "slice": "Slices, both planes",
    "sagittal": "Sagittal slices only",
    "transverse": "Transverse slices only",
    "volume": "Fused volume",
    "decoded": "Fused, decoded",
}
"""Kinds of prediction in the order of the tables, with their headings."""

_NAMES = [LAYER_NAMES[label] for label in LAYERS]
_DISTANCES = {
    "hd95_mm": "HD95 (mm)",
    "asd_mm": "ASD (mm)",
    "thickness_error_mm": "Thickness error (mm)",
}


@dataclass(frozen=True)
class Cell:
    """A cell: the figure, small lines below it, and whether it is the best of its column."""

    text: str
    below: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table: headings of the figures' columns, and rows of (name, cells)."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


def best_kind(methods: Sequence[Method]) -> str | None:
    """The volume kind that every method has, the decoded one first; None if they share none."""
    return next((k for k in ("decoded", "volume") if all(k in m.metrics for m in methods)), None)


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _interval(ci: Sequence[float] | None, what: str, signed: bool = False) -> tuple[str, ...]:
    if not ci:
        return ()
    mark = "+" if signed else ""
    low, high = (f"{100 * bound:{mark}.1f}".replace("-", "−") for bound in ci)
    return (f"{what} {low} to {high}",)


def _unit(kind: str) -> str:
    """What a row of that kind is, for the label of its interval."""
    return "slices" if kind == "slice" else "scans"


def _dice_cell(scores: Mapping[str, Any] | None, unit: str) -> Cell:
    if not scores:
        return Cell("–")
    below = _interval(scores.get("ci"), unit) + _interval(scores.get("subject_ci"), "subjects")
    return Cell(_percent(scores["mean"]), below)


def _paired(first: Method, other: Method, rows: str, key: tuple[str, ...], seed: int) -> PairedDifference | None:
    """Difference of `other` to `first` over the rows that both have."""

    def scores(method: Method) -> dict[tuple[str, ...], float]:
        if rows == "slices":
            return {tuple(r[k] for k in key): float(r["dice_mean"]) for r in method.slices}
        return {(*scan,): dice for scan, dice in scan_means(method, rows).items()}

    a, b = scores(other), scores(first)
    shared = [pair for pair in a if pair in b]
    if not shared:
        return None
    subjects = [pair[0] for pair in shared]
    return paired_difference([a[p] for p in shared], [b[p] for p in shared], subjects, seed=seed)


def differences(methods: Sequence[Method], seed: int = 0) -> dict[str, dict[str, PairedDifference]]:
    """Paired differences of mean Dice of each later method to the first.

    Args:
        methods: two or more evaluations.
        seed: seed of the subject-level bootstrap.

    Returns:
        Method name to {"slice": …, and the volume kind all methods share: …}, Dice fractions; only rows (slices,
        scans) that both methods have count.
    """
    out: dict[str, dict[str, PairedDifference]] = {}
    kind = best_kind(methods)
    for method in methods[1:]:
        found = {"slice": _paired(methods[0], method, "slices", ("subject", "scan", "plane", "index"), seed)}
        if kind:
            found[kind] = _paired(methods[0], method, kind, (), seed)
        out[method.name] = {name: value for name, value in found.items() if value is not None}
    return out


def _difference_cell(difference: PairedDifference | None, unit: str) -> Cell:
    if difference is None:
        return Cell("–")
    below = _interval(difference.ci, unit, True) + _interval(difference.subject_ci, "subjects", True)
    return Cell(f"{100 * difference.mean:+.1f}".replace("-", "−"), below)


def plane_table(methods: Sequence[Method]) -> Table | None:
    """Mean Dice (%) of volumes from one plane against volumes from both; None without single-plane scores."""
    kinds = [kind for kind in KINDS if kind != "slice" and any(kind in method.metrics for method in methods)]
    if not {"sagittal", "transverse"} & set(kinds):
        return None
    rows = [(method.title, [_dice_cell(method.metrics.get(kind), "scans") for kind in kinds]) for method in methods]
    return Table([KINDS[kind] for kind in kinds], rows)


def overall_table(methods: Sequence[Method], change: Mapping[str, Mapping[str, PairedDifference]]) -> Table:
    """Mean Dice (%) of each method and kind of prediction, with intervals, and paired differences to the first."""
    main = ("slice", "volume", "decoded")
    kinds = [kind for kind in main if any(kind in method.metrics for method in methods)]
    shared = [kind for kind in KINDS if any(kind in found for found in change.values())]
    short = {"slice": "slices", "decoded": "decoded", "volume": "fused"}
    columns = [KINDS[kind] for kind in kinds] + [f"Difference, {short[kind]}" for kind in shared]
    rows = []
    for method in methods:
        cells = [_dice_cell(method.metrics.get(kind), _unit(kind)) for kind in kinds]
        found = change.get(method.name, {})
        first = method is methods[0]
        cells += [Cell("reference") if first else _difference_cell(found.get(kind), _unit(kind)) for kind in shared]
        rows.append((method.title, cells))
    return Table(columns, rows)


def _mark_best(rows: Sequence[Sequence[float | None]], lowest: bool = False) -> list[list[bool]]:
    """For each cell whether it is the best of its column; a single row has no best."""
    marks = [[False] * len(row) for row in rows]
    if len(rows) < 2:
        return marks
    for column in range(len(rows[0])):
        values = [row[column] for row in rows if row[column] is not None]
        target = (min if lowest else max)(values) if values else None  # type: ignore[type-var]
        for mark, row in zip(marks, rows, strict=True):
            mark[column] = target is not None and row[column] == target
    return marks


def layer_table(methods: Sequence[Method], kind: str) -> Table | None:
    """Dice (%) of each layer for one kind of prediction, the best of a column marked; None if nobody has it."""
    having = [method for method in methods if kind in method.metrics]
    if not having:
        return None
    values = [[*(m.metrics[kind]["dice"].get(n) for n in _NAMES), m.metrics[kind]["mean"]] for m in having]
    rows = []
    for method, row, marks in zip(having, values, _mark_best(values), strict=True):
        cis = [method.metrics[kind].get("dice_ci", {}).get(name) for name in _NAMES] + [method.metrics[kind].get("ci")]
        cells = [
            Cell(_percent(value), tuple(f"±{100 * (ci[1] - ci[0]) / 2:.1f}" for ci in [ci] if ci), mark)
            for value, ci, mark in zip(row, cis, marks, strict=True)
        ]
        rows.append((method.title, cells))
    return Table([*_NAMES, "mean"], rows)


def distance_table(methods: Sequence[Method], kind: str) -> list[tuple[str, Table]]:
    """HD95, ASD and thickness error (mm) of each layer, one table each, the lowest of a column marked."""
    tables = []
    for key, heading in _DISTANCES.items():
        having = [method for method in methods if key in method.metrics.get(kind, {})]
        if not having:
            continue
        values = [[*(m.metrics[kind][key].get(n) for n in _NAMES), m.metrics[kind].get(f"{key}_mean")] for m in having]
        rows = []
        for method, row, marks in zip(having, values, _mark_best(values, lowest=True), strict=True):
            scores = method.metrics[kind]
            missing = [scores.get("n_missing", {}).get(n, 0) if key != "thickness_error_mm" else 0 for n in _NAMES]
            missing.append(sum(missing))
            cells = [
                Cell("–" if v is None else f"{v:.2f}", (f"{n} missing",) if n else (), mark)
                for v, n, mark in zip(row, missing, marks, strict=True)
            ]
            rows.append((method.title, cells))
        tables.append((heading, Table([*_NAMES, "mean"], rows)))
    return tables


def scan_means(method: Method, kind: str) -> dict[tuple[str, str], float]:
    """(subject, scan) to the mean Dice over the layers of one kind of volume."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in method.scans:
        if row["kind"] == kind:
            found[row["subject"], row["scan"]].append(float(row["dice"]))
    return {scan: sum(dice) / len(dice) for scan, dice in found.items()}


def scan_table(methods: Sequence[Method], kind: str) -> Table:
    """Mean Dice (%) of each scan and method, the scan with the lowest mean over the methods first."""
    by_method = [scan_means(method, kind) for method in methods]
    scans = {scan for means in by_method for scan in means}

    def average(scan: tuple[str, str]) -> float:
        values = [means[scan] for means in by_method if scan in means]
        return sum(values) / len(values)

    ordered = sorted(scans, key=lambda scan: (average(scan), scan))
    values = [[means.get(scan) for means in by_method] for scan in ordered]
    rows = []
    for (subject, scan), row in zip(ordered, values, strict=True):
        top = max(value for value in row if value is not None)
        cells = [Cell(subject)]
        cells += [Cell(_percent(value), (), len(methods) > 1 and value == top) for value in row]
        rows.append((scan, cells))
    return Table(["subject", *(method.title for method in methods)], rows)
