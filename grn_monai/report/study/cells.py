"""Summaries and comparisons as cells of a table, in percent and percentage points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from grn_monai.metrics.comparisons import Comparison
from grn_monai.report.numbers import interval, number
from grn_monai.report.study.analysis import OVERALL, Analysis, Place, Summary
from grn_monai.report.study.formats import Entry

__all__ = ["dice_entry", "difference_entry", "mark", "mark_best", "p_text", "percent", "points"]


def percent(bounds: Sequence[float] | None, signed: bool = False) -> str:
    """Interval of fractions as `low to high` in percent."""
    if bounds is None:
        return ""
    low, high = (100 * bound for bound in bounds)
    text = interval([low, high], 1)
    return " to ".join(part if part.startswith("−") else f"+{part}" for part in text.split(" to ")) if signed else text


def points(difference: float) -> str:
    """A difference of fractions as `1 percentage point`."""
    return f"{100 * difference:g} percentage point{'' if difference == 0.01 else 's'}"


def p_text(p: float | None) -> str:
    """A p-value as read: three decimals, or `< 0.001`."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _bounds(name: str, bounds: Sequence[float] | None) -> dict[str, Any]:
    return {f"{name} {end}": 100 * b for end, b in zip(("low", "high"), bounds or (), strict=False)}


def _parts(summary: Summary) -> dict[str, Any]:
    return {
        **_bounds("slices", summary.ci),
        **_bounds("subjects", summary.subject_ci),
        **_bounds("subjects and seeds", summary.seed_ci),
        **({"SD over seeds": 100 * summary.seed_sd} if summary.seed_sd is not None else {}),
        "seeds": len(summary.seeds),
        "slices": summary.n,
        "subjects": summary.subjects,
    }


def mark(comparison: Comparison | None, corrected: float | None) -> str:
    """ "*" differs, "(*)" differs for these trainings only, and "†" by the papers' test over slices."""
    if comparison is None:
        return ""
    significant = corrected is not None and corrected < 0.05
    star = ("*" if comparison.holds_for_others else "(*)") * significant
    return star + "†" * (corrected is not None and comparison.p_t is not None and comparison.p_t < 0.05)


def dice_entry(analysis: Analysis, place: Place, column: str, reference: Place | None = None) -> Entry:
    """Dice (%) of a place; the overall column with its subject interval, seeds, and marks against a reference."""
    summary = analysis.summary(place, column)
    if summary is None:
        why = analysis.why_missing(place)
        return Entry(below=(why,) if column == OVERALL else (), parts={"note": why})
    half = None if summary.ci is None else 50 * (summary.ci[1] - summary.ci[0])
    entry = Entry(100 * summary.mean, half=half, parts=_parts(summary))
    if column != OVERALL:
        return entry
    below = [f"subjects {percent(summary.subject_ci)}"] if summary.subject_ci else []
    scored, planned = analysis.seeds_missing(place)
    if summary.seed_sd is not None:
        below.append(f"SD {100 * summary.seed_sd:.1f} over {scored} seeds")
    if scored < planned:
        below.append(f"{scored} of {planned} seeds")
    marks = ""
    if reference is not None and place != reference:
        marks = mark(analysis.compare(place, reference), analysis.corrected(place, reference))
    return replace(entry, below=tuple(below), marks=marks)


def comparison_parts(comparison: Comparison, corrected: float | None) -> dict[str, Any]:
    """Every number of a comparison, in percentage points."""
    return {
        **_bounds("subjects", comparison.interval),
        **_bounds("subjects and seeds", comparison.seed_ci),
        **({"SD over seeds": 100 * comparison.seed_sd} if comparison.seed_sd is not None else {}),
        "mean over slices": 100 * comparison.rows_mean,
        **_bounds("slices", comparison.rows_ci),
        "p t-test slices": comparison.p_t,
        "p permutation subjects": comparison.permutation.p,
        **({"p permutation Holm": corrected} if corrected is not None else {}),
        "p not inferior subjects": comparison.subjects.not_inferior,
        "p not inferior slices": comparison.rows.not_inferior,
        "p equivalent subjects": comparison.subjects.equivalent,
        "p equivalent slices": comparison.rows.equivalent,
        "margin": 100 * comparison.margin,
        "seeds": comparison.seeds,
        **({"note": comparison.note} if comparison.note else {}),
    }


def difference_entry(analysis: Analysis, place: Place, reference: Place, why: str = "", full: bool = True) -> Entry:
    """Difference in percentage points, its intervals and p.

    Args:
        analysis: of the section.
        place: what is compared.
        reference: with what.
        why: shown where there is no comparison.
        full: with p, the slices' mean and the note below; else the intervals only.
    """
    comparison = analysis.compare(place, reference)
    if comparison is None:
        return Entry(below=(why,) if why else (), parts={"note": why} if why else {})
    corrected = analysis.corrected(place, reference)
    below = [f"subjects {percent(comparison.interval, True)}"] if comparison.interval else []
    if comparison.seed_ci:
        below.append(f"and seeds {percent(comparison.seed_ci, True)}")
    if full:
        holm_p = "not corrected" if corrected is None else f"Holm {p_text(corrected)}"
        below.append(f"p {p_text(comparison.permutation.p)}, {holm_p}")
        if comparison.rows_ci:
            mean = number(100 * comparison.rows_mean, 1, signed=True)
            below.append(f"slices {mean}, {percent(comparison.rows_ci, True)}")
        below += [comparison.note] if comparison.note else []
    return Entry(
        100 * comparison.mean,
        signed=True,
        below=tuple(below),
        marks=mark(comparison, corrected) if full else "",
        parts=comparison_parts(comparison, corrected),
    )


def mark_best(
    rows: Sequence[list[Entry]], places: Sequence[Place], columns: Sequence[int], lowest: bool = False
) -> None:
    """Mark the best value of some columns in place, ties all; a column with one value has no best.

    Results from outside, trained under other conditions, are never the best. Nor are means over fewer seeds than
    others of the column have: a seed is another labelled subject, which may be an easier one.
    """
    inside = [row for row, place in zip(rows, places, strict=True) if place.entrant.method.group != "outside"]
    for column in columns:
        most = max((row[column].parts.get("seeds", 0) for row in inside), default=0)
        rows = [row for row in inside if row[column].parts.get("seeds", 0) == most]
        values = [row[column].value for row in rows]
        known = [value for value in values if value is not None]
        if len(known) < 2:
            continue
        best = min(known) if lowest else max(known)
        for row in rows:
            if row[column].value == best:
                row[column] = replace(row[column], best=True)
