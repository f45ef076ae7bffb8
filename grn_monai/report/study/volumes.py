"""Dice of whole volumes, and the error of thickness, of all layers together and of each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.report.numbers import interval, number
from grn_monai.report.study.analysis import Analysis
from grn_monai.report.study.cells import mark_best, percent
from grn_monai.report.study.entrants import Place, all_entrants
from grn_monai.report.study.formats import Entry, StudyTable
from grn_monai.report.study.plan import fraction_name, fraction_text

__all__ = ["thickness_tables", "volume_tables"]

Floats = npt.NDArray[np.float64]


def _scores(analysis: Analysis, place: Place, kind: str, column: str) -> tuple[Floats, tuple[str, ...]] | str:
    """(seeds, M, 6) of a scan score and the scans' subjects; why not where a run lacks the scores."""
    evaluations = analysis.results.evaluations(
        place.entrant.method.key, place.fraction, analysis.section, place.entrant.mode
    )
    found = [e.volumes.get(kind) for e in evaluations.values()]
    volumes = [scores for scores in found if scores is not None]
    if not volumes or len(volumes) < len(found) or any(v.scans != volumes[0].scans for v in volumes):
        return "not scored" if evaluations else analysis.why_missing(place)
    return np.stack([getattr(scores, column).astype(np.float64) for scores in volumes]), volumes[0].subjects


def _mean(values: Floats, axis: tuple[int, ...]) -> Floats:
    """Mean without NaN, NaN where there is nothing else."""
    counts = (~np.isnan(values)).sum(axis=axis)
    return np.where(counts > 0, np.nansum(values, axis=axis) / np.maximum(counts, 1), np.nan)


def _entry(analysis: Analysis, place: Place, kind: str, column: str) -> Entry:
    """Mean over layers, seeds and scans; of a signed column the mean of each layer's and seed's |mean over scans|."""
    found = _scores(analysis, place, kind, column)
    if isinstance(found, str):
        return Entry(below=(found,))
    stack, subjects = found
    if column == "mean_thickness_error_mm":
        sizes = np.abs(_mean(stack, (1,)))
        value = float(np.nanmean(sizes)) if not np.isnan(sizes).all() else None
        return Entry(value, digits=2, parts={"scans": stack.shape[1]})
    values = _mean(stack, (0, 2))
    kept = ~np.isnan(values)
    scale, digits = (100, 1) if column == "dice" else (1, 2)
    if not kept.any():
        return Entry(digits=digits)
    ci = analysis.bootstrap_of(values, subjects)
    text = "" if ci is None else percent(ci) if scale == 100 else interval(ci, digits)
    parts = {"scans": int(kept.sum())}
    ends = {"subjects low": scale * ci[0], "subjects high": scale * ci[1]} if ci is not None else {}
    below = (f"subjects {text}",) if text else ()
    return Entry(scale * float(values[kept].mean()), digits=digits, below=below, parts=parts | ends)


def _places(analysis: Analysis, fraction: float) -> list[Place]:
    every = all_entrants(analysis.results)
    return [Place(e, fraction) for e in every if analysis.results.select(e.method.key, fraction)]


def volume_tables(analysis: Analysis) -> list[StudyTable]:
    """Dice of fused and decoded volumes and thickness errors, one table for each fraction."""
    tables = []
    columns = (
        ("Fused volume, Dice (%)", "volume", "dice"),
        ("Decoded volume, Dice (%)", "decoded", "dice"),
        ("Decoded, thickness error (mm)", "decoded", "thickness_error_mm"),
        ("Decoded, mean |thickness bias| (mm)", "decoded", "mean_thickness_error_mm"),
    )
    for fraction in analysis.results.fractions:
        places = _places(analysis, fraction)
        rows = [[_entry(analysis, p, kind, column) for _, kind, column in columns] for p in places]
        if all(cell.value is None for row in rows for cell in row):
            continue
        mark_best(rows, places, [0, 1])
        mark_best(rows, places, [2, 3], lowest=True)
        tables.append(
            StudyTable(
                f"volumes_{fraction_name(fraction)}",
                f"Volumes and thickness at {fraction_text(fraction)} of the labels",
                [head for head, _, _ in columns],
                list(zip([p.entrant.title for p in places], rows, strict=True)),
                [
                    "Fused: argmax of both planes’ probabilities; decoded: after the ordered-layer decode. Mean over "
                    "layers, seeds and scans; 95 % bootstrap over subjects below. Thickness error: mean over A-lines "
                    "of |predicted − true|; bias: predicted − true mean thickness of the scans, here its size, so that "
                    "layers do not cancel."
                ],
                place="volumes",
            )
        )
    return tables


def thickness_tables(analysis: Analysis) -> list[StudyTable]:
    """Thickness error of each layer with its bias below, one table for each fraction."""
    tables = []
    for fraction in analysis.results.fractions:
        places = _places(analysis, fraction)
        rows = []
        for place in places:
            error = _scores(analysis, place, "decoded", "thickness_error_mm")
            bias = _scores(analysis, place, "decoded", "mean_thickness_error_mm")
            if isinstance(error, str) or isinstance(bias, str):
                rows.append([Entry(below=(str(error),))] + [Entry()] * (len(LAYERS) - 1))
                continue
            row = []
            for size, signed in zip(_mean(error[0], (0, 1)), _mean(bias[0], (0, 1)), strict=True):
                known = {} if np.isnan(signed) else {"bias": float(signed)}
                below = tuple(f"bias {number(value, 2, signed=True)}" for value in known.values())
                row.append(Entry(None if np.isnan(size) else float(size), digits=2, below=below, parts=known))
            rows.append(row)
        if all(cell.value is None for row in rows for cell in row):
            continue
        mark_best(rows, places, range(len(LAYERS)), lowest=True)
        tables.append(
            StudyTable(
                f"thickness_{fraction_name(fraction)}",
                f"Thickness error of each layer at {fraction_text(fraction)} of the labels (mm)",
                [LAYER_NAMES[label] for label in LAYERS],
                list(zip([p.entrant.title for p in places], rows, strict=True)),
                [
                    "After the ordered-layer decode. Mean over A-lines, seeds and scans of |predicted − true|; below, "
                    "the bias: predicted − true mean thickness, positive where the layer is predicted too thick."
                ],
                place="volumes",
            )
        )
    return tables
