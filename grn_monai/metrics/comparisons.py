"""Paired tests of two methods on the same slices: the papers' t-test, and tests whose unit is the subject.

Slices of one subject are alike, so a test over slices takes a few subjects for thousands of independent cases. The
tests over subjects (`sign_flip_test`, `tost_paired` on `subject_means`) do not; with few subjects they can say little,
and say so: with n subjects no p-value of `sign_flip_test` is below 2/2ⁿ.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.metrics.statistics import PairedDifference, crossed_bootstrap_ci, paired_difference

__all__ = [
    "Comparison",
    "SignFlipTest",
    "Tost",
    "compare_paired",
    "holm",
    "paired_t_test",
    "sign_flip_test",
    "subject_means",
    "tost_paired",
]

Floats = npt.NDArray[np.float64]

_EXACT = 16
"""Up to so many subjects all 2ⁿ signs are gone through."""


class SignFlipTest(NamedTuple):
    """p-value, the smallest one that this many subjects can give, whether all signs were gone through, subjects."""

    p: float
    smallest: float
    exact: bool
    n: int


class Tost(NamedTuple):
    """Two one-sided tests at a margin.

    `not_inferior`: p of "the mean of a − b is −margin or less"; `not_superior`: p of "it is +margin or more";
    `equivalent`: the larger of both. None for fewer than two pairs.
    """

    not_inferior: float | None
    not_superior: float | None
    equivalent: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """Method a against method b on the same rows, seeds averaged first; Dice fractions.

    Attributes:
        difference: mean a − b, its interval over rows and that over subjects.
        seed_ci: interval that resamples subjects and seeds; None for one seed.
        p_t: two-sided paired t-test over rows (the papers' test).
        permutation: sign-flip test over subjects.
        subjects: TOST over subjects.
        rows: TOST over rows.
        margin: the margin of both.
        seeds: how many seeds were averaged.
        seed_sd: standard deviation over seeds of the mean difference; None for one seed.
        note: what makes the figures special ("identical scores"); empty otherwise.
    """

    difference: PairedDifference
    seed_ci: tuple[float, float] | None
    p_t: float | None
    permutation: SignFlipTest
    subjects: Tost
    rows: Tost
    margin: float
    seeds: int
    seed_sd: float | None
    note: str = ""


def _constant(values: Floats) -> bool:
    """Whether all values are the same up to rounding; a t-test divides by zero then."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def paired_t_test(a: npt.ArrayLike, b: npt.ArrayLike) -> float | None:
    """Two-sided p of the paired t-test.

    Args:
        a: (N,) scores of one method.
        b: (N,) scores of the other on the same rows.

    Returns:
        p; None for fewer than two pairs. Where all differences are equal, 1 if they are zero and 0 otherwise.
    """
    from scipy.stats import ttest_rel

    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.size < 2:
        return None
    if _constant(first - second):
        return 1.0 if _constant(np.append(first - second, 0.0)) else 0.0
    return float(ttest_rel(first, second).pvalue)


def subject_means(values: npt.ArrayLike, groups: Sequence[Hashable]) -> Floats:
    """(n,) mean of the rows of each subject, in the order in which subjects first appear."""
    rows = np.asarray(values, dtype=np.float64)
    index_of = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    index = np.array([index_of[group] for group in groups], dtype=np.intp)
    return np.bincount(index, weights=rows, minlength=len(index_of)) / np.bincount(index, minlength=len(index_of))


def sign_flip_test(differences: npt.ArrayLike, resamples: int = 20_000, seed: int = 0) -> SignFlipTest:
    """Two-sided paired permutation test: were the methods alike, each subject's difference could as well be negated.

    The statistic is the mean over subjects, each subject counting once. Up to 16 subjects all 2ⁿ signs are gone
    through and p is exact; above, `resamples` random ones, where the observed signs count as one more.

    Args:
        differences: (n,) mean difference of each subject.
        resamples: random sign vectors where there are too many to go through.
        seed: their seed.

    Raises:
        ValueError: without any subject.
    """
    values = np.asarray(differences, dtype=np.float64).ravel()
    n = values.size
    if n < 1:
        msg = "a test over subjects needs at least one"
        raise ValueError(msg)
    exact = n <= _EXACT
    if exact:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        bits = np.random.default_rng(seed).integers(2, size=(resamples, n))
    sums = np.abs((1 - 2 * bits) @ values)
    # Sums of the same numbers in another order differ by rounding, and would not count as equal.
    reached = int((sums >= abs(values.sum()) - 1e-9 * max(float(np.abs(values).sum()), 1e-300)).sum())
    if exact:
        return SignFlipTest(reached / 2**n, 2 / 2**n, True, n)
    return SignFlipTest((reached + 1) / (resamples + 1), 1 / (resamples + 1), False, n)


def tost_paired(a: npt.ArrayLike, b: npt.ArrayLike, margin: float) -> Tost:
    """Two one-sided paired t-tests: is the mean of a − b above −margin, and is it below +margin?

    Args:
        a: (N,) scores of one method.
        b: (N,) scores of the other on the same rows.
        margin: the largest difference that does not matter, above 0, in the scores' unit.

    Raises:
        ValueError: for a margin of 0 or less.
    """
    from scipy.stats import ttest_1samp

    if not margin > 0:
        msg = f"the margin must be above 0, got {margin}"
        raise ValueError(msg)
    values = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if values.size < 2:
        return Tost(None, None, None, values.size)
    if _constant(values):
        mean = float(values.mean())
        lower, upper = float(mean <= -margin), float(mean >= margin)
    else:
        lower = float(ttest_1samp(values, -margin, alternative="greater").pvalue)
        upper = float(ttest_1samp(values, margin, alternative="less").pvalue)
    return Tost(lower, upper, max(lower, upper), values.size)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of a family of tests.

    Args:
        p_values: p of each test; None for a test that could not be made, which stays None and does not count.

    Returns:
        Corrected p in the same order, at most 1. Rejecting those of at most α keeps the chance of any false
        rejection in the family at α.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[i] = highest
    return corrected


def compare_paired(
    a: npt.ArrayLike, b: npt.ArrayLike, groups: Sequence[Hashable], margin: float = 0.01, seed: int = 0
) -> Comparison:
    """All that is said of two methods on the same rows.

    Args:
        a: (S, N) scores of one method: seeds, rows.
        b: (S, N) scores of the other, the same seeds and rows in the same order.
        groups: (N,) subject of each row.
        margin: margin of "not inferior", in the scores' unit.
        seed: seed of bootstrap and resampling.

    Raises:
        ValueError: if the shapes differ, or there are no rows.
    """
    first, second = np.atleast_2d(np.asarray(a, np.float64)), np.atleast_2d(np.asarray(b, np.float64))
    if first.shape != second.shape or first.shape[1] != len(groups) or not first.size:
        msg = f"paired scores must be (seeds, rows) alike, got {first.shape}, {second.shape} and {len(groups)} groups"
        raise ValueError(msg)
    seeds = len(first)
    mean_a, mean_b = first.mean(axis=0), second.mean(axis=0)
    by_subject = subject_means(mean_a, groups), subject_means(mean_b, groups)
    notes = []
    if np.array_equal(first, second):
        notes.append("identical scores")
    elif _constant(mean_a - mean_b):
        notes.append("the same difference in every row")
    if by_subject[0].size < 2:
        notes.append("one subject: no test over subjects")
    return Comparison(
        difference=paired_difference(mean_a, mean_b, groups, seed=seed),
        seed_ci=crossed_bootstrap_ci(first - second, groups, seed=seed),
        p_t=paired_t_test(mean_a, mean_b),
        permutation=sign_flip_test(by_subject[0] - by_subject[1], seed=seed),
        subjects=tost_paired(*by_subject, margin),
        rows=tost_paired(mean_a, mean_b, margin),
        margin=margin,
        seeds=seeds,
        seed_sd=float((first - second).mean(axis=1).std(ddof=1)) if seeds > 1 else None,
        note="; ".join(notes),
    )
