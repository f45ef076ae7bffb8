"""Repeated-measures analysis of variance over subjects, with its checks: sphericity and normal residuals."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.report.agreement.load import AgreementData
from grn_monai.report.agreement.volumes import LEAST, constant

__all__ = [
    "Anova",
    "Effect",
    "Normality",
    "analyse",
    "effect_share",
    "needs_pingouin",
    "residual_normality",
    "residuals",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """One effect; figures are None where `note` says why.

    Attributes:
        source: factors, joined by " × ".
        f, df1, df2, p: F test.
        eta: partial η², F·df1/(F·df1 + df2).
        epsilon: Greenhouse and Geisser's ε, of `Anova.corrected` only.
        p_corrected: p with the degrees of freedom times ε.
        w, chi2, p_sphericity: Mauchly's test; None for two levels, where sphericity is no question.
        note: what is special.
    """

    source: str
    f: float | None = None
    df1: float | None = None
    df2: float | None = None
    p: float | None = None
    eta: float | None = None
    epsilon: float | None = None
    p_corrected: float | None = None
    w: float | None = None
    chi2: float | None = None
    p_sphericity: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Normality:
    """Residuals and how far from normal they are; `excess` kurtosis is 0 for a normal distribution."""

    residuals: Floats
    skew: float
    excess: float
    shapiro_w: float
    shapiro_p: float


@dataclass(frozen=True)
class Anova:
    """Analysis of one measure.

    Attributes:
        measure: of `MUSCLE_MEASURES`.
        within: the within-subject factors with more than one level.
        subjects: who counts.
        left_out: subject to why it does not.
        effects: full factorial by `statsmodels.stats.anova.AnovaRM`, no correction.
        corrected: one and two factors at a time (means over the others) by `pingouin.rm_anova`, with ε and Mauchly.
        normality: of the residuals of the full factorial; None where there are none to judge.
        note: why there is no analysis; empty otherwise.
    """

    measure: str
    within: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()
    corrected: tuple[Effect, ...] = ()
    normality: Normality | None = None
    note: str = ""


def needs_pingouin() -> None:
    """Raise if pingouin, or statsmodels and pandas that come with it, is not installed.

    Raises:
        InputError: one of them is not.
    """
    try:
        import pandas  # noqa: F401
        import pingouin  # noqa: F401
        import statsmodels  # noqa: F401
    except ImportError as error:
        found = f"no package {error.name}"
        expected = "pingouin (GPL-3, hence optional), with statsmodels and pandas"
        raise InputError("agreement", found, expected, 'pip install "grn-monai[scans]"') from error


def residuals(table: npt.ArrayLike) -> Floats:
    """What subject means and cell means leave: y − ȳ(subject) − ȳ(cell) + ȳ, of (subjects, cells…) values."""
    y = np.asarray(table, dtype=np.float64)
    y = y.reshape(len(y), -1)
    left: Floats = y - y.mean(axis=1, keepdims=True) - y.mean(axis=0) + y.mean()
    return left


def effect_share(table: npt.ArrayLike, axes: Sequence[int]) -> tuple[float, float]:
    """Sums of squares of an effect and of its error (effect × subjects) in a balanced within-subject design.

    Args:
        table: (subjects, levels of factor 1, levels of factor 2, …).
        axes: axes of the effect's factors, from 1 on.

    Returns:
        Both, as multiples of the same unit: F is their ratio times df2/df1 = subjects − 1.
    """
    y = np.asarray(table, dtype=np.float64)
    for axis in range(1, y.ndim):
        mean = y.mean(axis=axis, keepdims=True)
        y = y - mean if axis in axes else mean
    effect = y.mean(axis=0)
    return len(y) * float((effect**2).sum()), float(((y - effect) ** 2).sum())


def residual_normality(table: npt.ArrayLike) -> Normality | None:
    """Skew, excess kurtosis and Shapiro–Wilk of the residuals; None where there is no spread.

    The residuals of a subject and of a cell sum to zero, so they are not independent: the test is a guide.
    """
    from scipy.stats import kurtosis, shapiro, skew

    left = residuals(table).ravel()
    if left.size < LEAST or np.abs(left).max() <= 1e-12 * max(1.0, float(np.abs(np.asarray(table)).max())):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # above 5,000 values the p is approximate
        w, p = shapiro(left)
    return Normality(left, float(skew(left)), float(kurtosis(left)), float(w), float(p))


def _no_error(table: Floats, axes: Sequence[int]) -> str:
    """Why an effect cannot be tested, or nothing: without error variance F is 0/0 or infinite."""
    scale = float((table**2).sum()) or 1.0
    effect, error = effect_share(table, axes)
    if error > 1e-20 * scale:
        return ""
    same = effect <= 1e-20 * scale
    return "no difference in any subject" if same else "the same difference in every subject: F has no denominator"


def _frame(table: Floats, names: Sequence[str]) -> Any:
    """Long form of (subjects, levels…) values, a column for each of the names, which are safe in a formula."""
    import pandas

    places = np.indices(table.shape).reshape(table.ndim, -1)
    columns = {name: [f"l{i}" for i in place] for name, place in zip(names, places[1:], strict=True)}
    return pandas.DataFrame({"subject": [f"s{i}" for i in places[0]], **columns, "value": table.ravel()})


def _full(table: Floats, within: Sequence[str]) -> tuple[Effect, ...]:
    """All effects of the full factorial."""
    from statsmodels.stats.anova import AnovaRM

    names = [f"f{i}" for i in range(len(within))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = AnovaRM(_frame(table, names), "value", "subject", within=names).fit().anova_table
    effects = []
    for key, row in rows.iterrows():
        axes = [names.index(name) + 1 for name in str(key).split(":")]
        source, note = " × ".join(within[axis - 1] for axis in axes), _no_error(table, axes)
        f, df1, df2, p = (float(row[name]) for name in ("F Value", "Num DF", "Den DF", "Pr > F"))
        if note:
            effects.append(Effect(source, df1=df1, df2=df2, note=note))
        else:
            effects.append(Effect(source, f, df1, df2, p, f * df1 / (f * df1 + df2)))
    return tuple(effects)


def _plain_columns(frame: Any) -> Any:
    """Columns of pingouin before 0.7 (`p-GG-corr`) under the names of 0.7."""
    return frame.rename(columns=lambda name: str(name).replace("-", "_"))


def _corrected(table: Floats, within: Sequence[str], axes: Sequence[int]) -> list[Effect]:
    """Effects of one or two factors, means over the others, with ε and Mauchly's test."""
    import pingouin

    others = tuple(axis for axis in range(1, table.ndim) if axis not in axes)
    part = table.mean(axis=others) if others else table
    names = [f"f{i}" for i in range(len(axes))]
    frame = _frame(part, names)
    design: dict[str, Any] = {"data": frame, "dv": "value", "subject": "subject"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = _plain_columns(
            pingouin.rm_anova(**design, within=names[0] if len(names) == 1 else names, correction=True, effsize="np2")
        )
    effects = []
    for row in rows.to_dict("records"):
        chosen = [names.index(name) + 1 for name in str(row["Source"]).split(" * ")]
        source, note = " × ".join(within[axes[i - 1] - 1] for i in chosen), _no_error(part, chosen)
        df1, df2 = float(row["ddof1"]), float(row["ddof2"])
        if note:
            effects.append(Effect(source, df1=df1, df2=df2, note=note))
            continue
        values = {"f": row["F"], "p": row["p_unc"], "eta": row["np2"], "epsilon": row["eps"]}
        values["p_corrected"] = row.get("p_GG_corr")
        found = {key: float(value) for key, value in values.items() if value is not None and math.isfinite(value)}
        found.setdefault("p_corrected", found["p"])  # two levels: nothing to correct
        test, note = _mauchly(design, [names[i - 1] for i in chosen], int(df1), len(part))
        effects.append(Effect(source, df1=df1, df2=df2, note=note, **found, **test))
    return effects


def _mauchly(design: dict[str, Any], names: list[str], dimensions: int, subjects: int) -> tuple[dict[str, float], str]:
    """Mauchly's W, χ² and p of an effect with so many degrees of freedom, or why there is none."""
    import pingouin

    if dimensions < 2:
        return {}, "two levels"
    if subjects <= dimensions:
        return {}, f"Mauchly's test needs more than {dimensions} subjects"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = pingouin.sphericity(**design, within=names[0] if len(names) == 1 else names)
        except ValueError:  # before 0.7: an interaction where no factor has two levels
            return {}, "this pingouin tests no such interaction"
    w, chi2, p = (float(value) for value in (found[1], found[2], found[4]))
    if not all(math.isfinite(value) for value in (w, chi2, p)):
        return {}, "Mauchly's test is undefined: differences that do not vary"
    return {"w": w, "chi2": chi2, "p_sphericity": p}, ""


def _left_out(data: AgreementData, values: Floats) -> dict[str, str]:
    """Subjects without a finite value in some cell, and where."""
    out = {}
    for s, subject in enumerate(data.subjects):
        faults = [
            f"{muscle} of {data.name(c)}"
            + (" missing" if not data.present[c, s, m] else " infinite" if np.isinf(values[c, s, m]) else " undefined")
            for c, m in itertools.product(range(len(data.conditions)), range(len(data.muscles)))
            if not np.isfinite(values[c, s, m])
            for muscle in [data.muscles[m]]
        ]
        if faults:
            out[subject] = faults[0] + (f" and {len(faults) - 1} more" if len(faults) > 1 else "")
    return out


def analyse(data: AgreementData, measure: str) -> Anova:
    """Analyse a measure: every factor with two levels or more, and the muscle, within subjects.

    Subjects with a missing, undefined or infinite cell are left out, as the design has to be balanced.

    Args:
        data: what was read.
        measure: of `MUSCLE_MEASURES`.

    Raises:
        InputError: pingouin is not installed.
    """
    needs_pingouin()
    values = data.of(measure)
    left_out = _left_out(data, values)
    kept = [s for s, subject in enumerate(data.subjects) if subject not in left_out]
    subjects = tuple(data.subjects[s] for s in kept)
    sizes = {name: len(levels) for name, levels in data.factors.items() if len(levels) > 1}
    within = (*sizes, *(["muscle"] if len(data.muscles) > 1 else []))

    def nothing(why: str) -> Anova:
        return Anova(measure, within, subjects, left_out, note=why)

    if not within:
        return nothing("One model and one muscle: nothing to compare.")
    if math.prod(sizes.values()) != len(data.conditions):
        return nothing(
            f"{len(data.conditions)} of the {math.prod(sizes.values())} combinations of levels are there: the design "
            "is not balanced, so there is no analysis of variance."
        )
    if len(kept) < LEAST:
        return nothing(f"{len(kept)} subjects with all cells, and {LEAST} are needed.")
    table = np.empty((len(kept), *sizes.values(), len(data.muscles)))
    for c, levels in enumerate(data.conditions):
        place = [data.factors[f].index(level) for f, level in zip(data.factors, levels, strict=True) if f in sizes]
        np.moveaxis(table, 0, -2)[tuple(place)] = values[c, kept]
    if len(data.muscles) == 1:
        table = table[..., 0]
    if constant(table):
        return nothing("Every value is the same: there is no variance to analyse.")
    if residual_normality(table) is None:
        return nothing("Subjects differ by a constant only: there is no error variance.")
    corrected: dict[str, Effect] = {}
    axes = range(1, len(within) + 1)
    for pair in itertools.combinations(axes, min(2, len(within))):
        for effect in _corrected(table, within, pair):
            corrected.setdefault(effect.source, effect)
    return Anova(
        measure, within, subjects, left_out, _full(table, within), tuple(corrected.values()), residual_normality(table)
    )
