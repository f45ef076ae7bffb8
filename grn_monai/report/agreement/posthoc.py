"""The best model against each of the others, muscle by muscle: paired t-tests over subjects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grn_monai.metrics.comparisons import holm, paired_t_test
from grn_monai.report.agreement.load import AgreementData
from grn_monai.report.agreement.volumes import LEAST, constant

__all__ = ["LOWER_IS_BETTER", "Contrast", "PostHoc", "compare_with_best"]

Floats = npt.NDArray[np.float64]

LOWER_IS_BETTER = ("hd95_mm", "asd_mm")
"""The measures whose best model is that with the lowest mean."""


@dataclass(frozen=True)
class Contrast:
    """The best model against another in one muscle; figures are None where `note` says why.

    Attributes:
        other: index of the other condition.
        muscle: name.
        n: subjects with a finite value of both.
        difference, interval: mean of best − other, and its 95 % interval (Student's t).
        t: t of the paired test; None where all differences are the same.
        p: its two-sided p.
        p_holm: p with Holm's correction over all tests of the table.
        note: what is special.
    """

    other: int
    muscle: str
    n: int
    difference: float | None = None
    interval: tuple[float, float] | None = None
    t: float | None = None
    p: float | None = None
    p_holm: float | None = None
    note: str = ""


@dataclass(frozen=True)
class PostHoc:
    """`best`: index of the best condition; `mean`: its mean over `subjects` and muscles; `contrasts`: the tests."""

    best: int
    mean: float
    subjects: int
    contrasts: tuple[Contrast, ...]


def _contrast(best: Floats, other: Floats, index: int, muscle: str) -> Contrast:
    from scipy.stats import t as student

    both = np.isfinite(best) & np.isfinite(other)
    a, b = best[both], other[both]
    n = a.size
    if n < LEAST:
        return Contrast(index, muscle, n, note=f"{n} of {LEAST} subjects needed")
    difference, p = a - b, paired_t_test(a, b)
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(n)
    if constant(difference):
        note = "identical scores" if constant(np.append(difference, 0.0)) else "the same difference in every subject"
        return Contrast(index, muscle, n, mean, p=p, note=note)
    half = float(student.ppf(0.975, n - 1)) * error
    return Contrast(index, muscle, n, mean, (mean - half, mean + half), mean / error, p)


def compare_with_best(data: AgreementData, measure: str) -> PostHoc | None:
    """Find the model with the best mean and test it against each other one, by muscle.

    The best is chosen by the mean over the subjects that have finite values in all cells, so that all models are
    judged on the same; where nobody has (`subjects` 0), by the mean of what is there. It is chosen on the data that
    the tests use, so their p-values favour it.

    Args:
        data: what was read.
        measure: of `MUSCLE_MEASURES`, one of which more, or less, is better.

    Returns:
        None for one model, or where no model has any finite value.
    """
    values = data.of(measure)
    finite = np.where(np.isfinite(values), values, np.nan)
    if len(values) < 2 or not np.isfinite(finite).any(axis=(1, 2)).all():
        return None
    complete = np.isfinite(finite).all(axis=(0, 2))
    means = np.nanmean(finite[:, complete] if complete.any() else finite, axis=(1, 2))
    best = int(np.argmin(means) if measure in LOWER_IS_BETTER else np.argmax(means))
    found = [
        _contrast(values[best, :, m], values[c, :, m], c, muscle)
        for c in range(len(values))
        if c != best
        for m, muscle in enumerate(data.muscles)
    ]
    corrected = holm([contrast.p for contrast in found])
    contrasts = [Contrast(**{**vars(contrast), "p_holm": p}) for contrast, p in zip(found, corrected, strict=True)]
    return PostHoc(best, float(means[best]), int(complete.sum()), tuple(contrasts))
