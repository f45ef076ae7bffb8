"""The tables of an agreement report, in the form that the study's reports write as Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.metrics.muscle_summary import mean_over_muscles
from grn_monai.metrics.muscles import MUSCLE_MEASURES
from grn_monai.metrics.statistics import mean_ci
from grn_monai.report.agreement.anova import Anova, Effect
from grn_monai.report.agreement.load import AgreementData
from grn_monai.report.agreement.posthoc import LOWER_IS_BETTER, PostHoc
from grn_monai.report.agreement.volumes import VolumeAgreement
from grn_monai.report.numbers import interval, number
from grn_monai.report.study.cells import p_text
from grn_monai.report.study.formats import Entry, StudyTable, text_entry

__all__ = ["TITLES", "anova_tables", "comparison_table", "post_hoc_table", "score_tables", "volume_tables"]

Floats = npt.NDArray[np.float64]

TITLES: dict[str, str] = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "conformity": "Conformity",
    "tpr": "TPR",
    "tnr": "TNR",
    "ppv": "PPV",
    "volume_ratio": "Volume ratio",
    "volume_ml": "Volume (ml)",
    "truth_volume_ml": "True volume (ml)",
    "hd95_mm": "HD95 (mm)",
    "asd_mm": "ASD (mm)",
}
"""Measure to its heading."""

_ALL = "all muscles"


def _digits(measure: str) -> int:
    return {"_ml": 1, "_mm": 2}.get(measure[-3:], 3)


def _mean_sd(values: Floats, digits: int) -> Entry:
    """Mean (SD) over the finite of (subjects,) values, the others counted below."""
    finite = values[np.isfinite(values)]
    counts = {"undefined": int(np.isnan(values).sum()), "infinite": int(np.isinf(values).sum())}
    below = tuple(f"{count} {name}" for name, count in counts.items() if count)
    if not finite.size:
        return Entry(text="no value", below=below, parts={"n": 0, **counts})
    mean, sd = mean_ci(finite).mean, float(finite.std(ddof=1)) if finite.size > 1 else None
    text = f"{number(mean, digits)} ({number(sd, digits)})"
    return Entry(mean, digits, text=text, below=below, parts={"mean": mean, "sd": sd, "n": finite.size, **counts})


def _by_muscle(data: AgreementData, measure: str, c: int) -> list[Entry]:
    """Mean (SD) of each muscle over the subjects of a condition, and of the mean over the muscles."""
    there, values = data.present[c], data.of(measure)[c]
    entries = [_mean_sd(values[there[:, m], m], _digits(measure)) for m in range(len(data.muscles))]
    if len(data.muscles) > 1:
        entries.append(_mean_sd(mean_over_muscles(values[there.any(axis=1)]), _digits(measure)))
    return entries


def score_tables(data: AgreementData) -> list[StudyTable]:
    """Mean (SD) of every measure, a table for each condition, a row for each muscle."""
    measures = [
        measure
        for measure in MUSCLE_MEASURES
        if measure not in LOWER_IS_BETTER or not np.isnan(data.of(measure)).all()  # distances were not asked for
    ]
    tables = []
    for c in range(len(data.conditions)):
        columns = [_by_muscle(data, measure, c) for measure in measures]
        names = [*data.muscles, *([_ALL] if len(data.muscles) > 1 else [])]
        rows = [(name, [column[i] for column in columns]) for i, name in enumerate(names)]
        count = int(data.present[c].any(axis=1).sum())
        notes = [f"Mean (SD) over {count} subject{'s' * (count != 1)}, SD with N − 1."]
        if len(data.muscles) > 1:
            notes.append("“All muscles”: of each subject's mean over its muscles.")
        if any(cell.below for column in columns for cell in column):
            notes.append("Undefined and infinite values are counted and left out.")
        title = f"Scores: {data.name(c)}"
        key = f"scores-{data.key(c)}"
        tables.append(StudyTable(key, title, [TITLES[m] for m in measures], rows, notes, "muscle", "scores"))
    return tables


def comparison_table(data: AgreementData, measure: str) -> StudyTable | None:
    """Mean (SD) of one measure, models against muscles, the best of each column marked; None for one model."""
    if len(data.conditions) < 2:
        return None
    cells = [_by_muscle(data, measure, c) for c in range(len(data.conditions))]
    pick = min if measure in LOWER_IS_BETTER else max
    marked: list[list[Entry]] = [[] for _ in cells]
    for i in range(len(cells[0])):
        values = [row[i].value for row in cells]
        known = [value for value in values if value is not None]
        for row, new in zip(cells, marked, strict=True):
            new.append(replace(row[i], best=bool(known) and row[i].value == pick(known)))
    columns = [*data.muscles, *([_ALL] if len(data.muscles) > 1 else [])]
    rows = [(data.name(c), row) for c, row in enumerate(marked)]
    notes = ["Mean (SD) over subjects; the best mean of each column is bold."]
    return StudyTable(f"compare-{measure}", f"{TITLES[measure]} by model", columns, rows, notes, "model", "scores")


def _ends(name: str, bounds: Sequence[float] | None) -> dict[str, Any]:
    return {f"{name} {end}".strip(): bound for end, bound in zip(("low", "high"), bounds or (), strict=False)}


def _value(value: float | None, digits: int, bounds: Sequence[float] | None = None, signed: bool = False) -> Entry:
    below = (interval(list(bounds), digits),) if bounds else ()
    return Entry(value, digits, signed, below=below, parts=_ends("95 %", bounds))


def _bounds(bounds: Sequence[float] | None) -> Entry:
    """An interval as a cell of its own."""
    return Entry(text=interval(bounds, 3) or "–", parts=_ends("", bounds))


def _line(found: VolumeAgreement) -> Entry:
    """The least-squares line in words."""
    if found.slope is None:
        return Entry()
    end = number(found.intercept, 2, "ml")
    sign = f"− {end[1:]}" if end.startswith("−") else f"+ {end}"
    parts = {"slope": found.slope, "intercept": found.intercept}
    return Entry(text=f"{number(found.slope, 3)} · truth {sign}", parts=parts)


def _noted(table: StudyTable) -> StudyTable:
    """Without the last column, the notes, where nothing is to be noted."""
    if any(cells[-1].shown for _, cells in table.rows):
        return table
    return replace(table, columns=table.columns[:-1], rows=[(name, cells[:-1]) for name, cells in table.rows])


def _volume_row(found: VolumeAgreement) -> tuple[list[Entry], list[Entry]]:
    """Cells of the ICC table and of the Bland–Altman table."""
    size = Entry(float(found.truth.size), 0)
    first = [
        size,
        _value(found.icc, 3),
        _bounds(found.icc_interval),
        _bounds(found.icc_fisher),
        _value(found.r, 3, found.r_interval),
        _line(found),
        text_entry(found.note),
    ]
    means = [_mean_sd(volumes, 1) for volumes in (found.truth, found.predicted)]
    plot = found.bland_altman
    if plot is None:
        return first, [size, *means, *[Entry() for _ in range(3)], text_entry(found.note)]
    limits = [_value(plot[k], 2, plot[f"{k}_ci95"], True) for k in ("bias", "lower", "upper")]
    return first, [size, *means, *limits, text_entry("")]


def volume_tables(data: AgreementData, volumes: Sequence[Mapping[str, VolumeAgreement]]) -> list[StudyTable]:
    """ICC and correlation, and Bland–Altman, of each condition: a row for each muscle."""
    tables = []
    for c, found in enumerate(volumes):
        rows = {muscle: _volume_row(agreement) for muscle, agreement in found.items()}
        name = data.name(c)
        tables.append(
            StudyTable(
                f"icc-{data.key(c)}",
                f"Volume, ICC and correlation: {name}",
                ["subjects", "ICC(2,1)", "95 % (F)", "95 % (Fisher z)", "Pearson r", "least squares", "note"],
                [(muscle, cells[0]) for muscle, cells in rows.items()],
                ["Below r: its 95 % interval by Fisher's z."],
                "muscle",
                "volumes",
            )
        )
        tables.append(
            StudyTable(
                f"bland-altman-{data.key(c)}",
                f"Volume, Bland–Altman: {name}",
                [
                    "subjects",
                    "truth (ml)",
                    "prediction (ml)",
                    "bias (ml)",
                    "lower limit (ml)",
                    "upper limit (ml)",
                    "note",
                ],
                [(muscle, cells[1]) for muscle, cells in rows.items()],
                ["Prediction − truth; limits: bias ± 1.96·SD; below: 95 % intervals. Truth and prediction: mean (SD)."],
                "muscle",
                "volumes",
            )
        )
    return [_noted(table) for table in tables]


def _p(p: float | None) -> Entry:
    return Entry(text=p_text(p), parts={} if p is None else {"value": p})


def _freedom(effect: Effect) -> Entry:
    return text_entry("–" if effect.df1 is None else f"{effect.df1:.0f}, {effect.df2:.0f}")


def anova_tables(anova: Anova) -> list[StudyTable]:
    """Effects, corrected effects and residuals; empty where there is no analysis."""
    if anova.note:
        return []
    design = " × ".join(anova.within)
    heading, key = f"{TITLES[anova.measure]}: ", anova.measure
    who = f"{len(anova.subjects)} subjects with all cells."
    full = [
        (e.source, [Entry(e.f, 2), _freedom(e), _p(e.p), Entry(e.eta, 3), text_entry(e.note)]) for e in anova.effects
    ]
    corrected = [
        (
            e.source,
            [
                Entry(e.f, 2), _freedom(e), _p(e.p), Entry(e.epsilon, 3), _p(e.p_corrected),
                Entry(e.w, 3), Entry(e.chi2, 2), _p(e.p_sphericity), text_entry(e.note),
            ],
        )
        for e in anova.corrected
    ]  # fmt: skip
    tables = [
        StudyTable(
            f"anova-{key}",
            f"{heading}repeated-measures ANOVA, {design}",
            ["F", "df", "p", "partial eta²", "note"],
            full,
            [f"{who} No correction for sphericity (statsmodels, AnovaRM)."],
            "effect",
            "anova",
        ),
        StudyTable(
            f"sphericity-{key}",
            f"{heading}Greenhouse–Geisser and Mauchly, at most two factors at a time",
            ["F", "df", "p", "epsilon (GG)", "p (GG)", "Mauchly W", "chi²", "p (Mauchly)", "note"],
            corrected,
            [f"{who} Means over the factors that an effect does not name (pingouin, rm_anova and sphericity)."],
            "effect",
            "anova",
        ),
    ]
    tables = [_noted(table) for table in tables]
    n = anova.normality
    if n is not None:
        cells = [Entry(float(n.residuals.size), 0), Entry(n.skew, 2), Entry(n.excess, 2), Entry(n.shapiro_w, 3)]
        tables.append(
            StudyTable(
                f"normality-{key}",
                f"{heading}residuals",
                ["residuals", "skew", "excess kurtosis", "Shapiro–Wilk W", "p"],
                [("residuals", [*cells, _p(n.shapiro_p)])],
                ["What subject and cell means leave. They sum to zero, so the test is a guide; see the Q–Q plot."],
                "",
                "anova",
            )
        )
    return tables


def post_hoc_table(data: AgreementData, measure: str, found: PostHoc) -> StudyTable:
    """Paired t-tests of the best model against each other one."""
    digits = _digits(measure)
    rows = [
        (
            f"{data.name(c.other)}: {c.muscle}",
            [
                Entry(float(c.n), 0),
                _value(c.difference, digits, c.interval, True),
                Entry(c.t, 2, True),
                Entry(
                    text=p_text(c.p) + (" *" if c.p is not None and c.p < 0.05 else ""),
                    parts={} if c.p is None else {"value": c.p},
                ),
                _p(c.p_holm),
                text_entry(c.note),
            ],
        )
        for c in found.contrasts
    ]
    table = StudyTable(
        f"post-hoc-{measure}",
        f"{TITLES[measure]}: {data.name(found.best)} against each other model",
        ["subjects", "difference", "t", "p", "p (Holm)", "note"],
        rows,
        [
            f"Best mean over the muscles and {found.subjects or 'all'} subjects"
            f"{' with all cells' * bool(found.subjects)}: {data.name(found.best)}, {number(found.mean, digits)}. "
            "Difference: best − other, below its 95 % interval. *: p < 0.05 without correction, as published; beside "
            "it Holm's correction over all tests of the table. The best is chosen on the same subjects, which favours "
            "it."
        ],
        "other model: muscle",
        "post-hoc",
    )
    return _noted(table)
