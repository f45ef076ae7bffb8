"""Paired tests of two methods on the same slices: the papers' t-test, and tests whose unit is the subject.

Slices of one subject are alike, so a test over slices takes a few subjects for thousands of independent cases. The
tests over subjects (`sign_flip_test`, `tost_paired` on `subject_means`) do not; with few subjects they can say little,
and say so: with n subjects no p-value of `sign_flip_test` is below 2/2ⁿ.

What is estimated, tested and judged is one quantity, the mean over subjects of each subject's mean difference; the mean
over rows stands beside it only with the papers' t-test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.metrics.statistics import Groups, crossed_ci, group_index, mean_ci

__all__ = [
    "Comparison",
    "SignFlipTest",
    "Tost",
    "compare_paired",
    "holm",
    "paired_t_test",
    "sign_flip_interval",
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
        mean: mean over subjects of each subject's mean a − b.
        interval: its 95 % interval, the sign-flip test inverted: it holds zero where p is 0.05 or more. None where so
            few subjects bound nothing.
        seed_ci: its 95 % interval for other subjects and other trainings; None for one seed.
        permutation: sign-flip test over subjects.
        subjects: TOST over subjects.
        rows_mean, rows_ci: mean over rows, and ± 1.96·SD/√N over them.
        p_t: two-sided paired t-test over rows (the papers' test).
        rows: TOST over rows.
        margin: the margin of both TOSTs.
        seeds: how many seeds were averaged.
        seed_sd: standard deviation over seeds of the mean; None for one seed.
        note: what makes the figures special ("identical scores"); empty otherwise.
    """

    mean: float
    interval: tuple[float, float] | None
    seed_ci: tuple[float, float] | None
    permutation: SignFlipTest
    subjects: Tost
    rows_mean: float
    rows_ci: tuple[float, float] | None
    p_t: float | None
    rows: Tost
    margin: float
    seeds: int
    seed_sd: float | None
    note: str = ""

    @property
    def holds_for_others(self) -> bool:
        """Whether the difference is more than chance of trainings too: two seeds or more, `seed_ci` without zero."""
        return self.seed_ci is not None and not self.seed_ci[0] <= 0 <= self.seed_ci[1]


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


def subject_means(values: npt.ArrayLike, groups: Groups) -> Floats:
    """(n,) mean of the rows of each subject, in the order in which subjects first appear."""
    index, count = group_index(groups)
    rows = np.asarray(values, dtype=np.float64)
    return np.bincount(index, weights=rows, minlength=count) / np.bincount(index, minlength=count)


@lru_cache(maxsize=4)
def _flips(n: int, resamples: int, seed: int) -> npt.NDArray[np.int8]:
    """(M, n) which signs to flip: all 2ⁿ ways, or random ones where those would be too many."""
    if n <= _EXACT:
        bits = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.int8)
    else:
        bits = np.random.default_rng(seed).integers(2, size=(resamples, n)).astype(np.int8)
    bits.flags.writeable = False
    return bits


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
    sums = np.abs(values.sum() - 2 * (_flips(n, resamples, seed) @ values))
    # Sums of the same numbers in another order differ by rounding, and would not count as equal.
    reached = int((sums >= abs(values.sum()) - 1e-9 * max(float(np.abs(values).sum()), 1e-300)).sum())
    if exact:
        return SignFlipTest(reached / 2**n, 2 / 2**n, True, n)
    return SignFlipTest((reached + 1) / (resamples + 1), 1 / (resamples + 1), False, n)


def sign_flip_interval(
    differences: npt.ArrayLike, level: float = 0.95, resamples: int = 20_000, seed: int = 0
) -> tuple[float, float] | None:
    """Interval of the mean that `sign_flip_test` does not reject: it holds zero where p is 1 − level or more.

    A shift m of all differences is rejected by how many means of flipped subsets lie beyond it, so the ends are
    such means (J. A. Hartigan, "Using subsample values as typical values", JASA 64, 1969).

    Args:
        differences: (n,) mean difference of each subject.
        level: coverage, between 0 and 1.
        resamples, seed: as in `sign_flip_test`.

    Returns:
        (low, high), or None where the test can reject nothing: below six subjects at 95 %.
    """
    values = np.asarray(differences, dtype=np.float64).ravel()
    bits = _flips(values.size, resamples, seed)
    sizes, sums = bits.sum(axis=1), bits @ values
    # A flipped subset and the one that it leaves: either makes the sum at least as far from zero as the observed one.
    pairs = ((sizes, sums), (values.size - sizes, values.sum() - sums))
    means = np.concatenate([part[size > 0] / size[size > 0] for size, part in pairs])
    empty = 2 * len(bits) - means.size
    needed = (1 - level) * len(bits) if values.size <= _EXACT else (1 - level) * (len(bits) + 1) - 1
    rank = int(np.ceil(needed)) - empty
    if rank < 1:
        return None
    means = np.sort(means)
    return float(means[rank - 1]), float(means[-rank])


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


def holm(p_values: Sequence[float | None], size: int = 0) -> list[float | None]:
    """Holm's step-down correction of a family of tests.

    Args:
        p_values: p of each test; None for a test that could not be made, which stays None and does not count.
        size: how many tests the family is planned to have. Those that are not made yet count as if their p were 1, so
            a corrected p never rises as they arrive.

    Returns:
        Corrected p in the same order, at most 1. Rejecting those of at most α keeps the chance of any false
        rejection in the family at α.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    total, highest = max(len(known), size), 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, p * (total - rank)))
        corrected[i] = highest
    return corrected


def compare_paired(
    a: npt.ArrayLike, b: npt.ArrayLike, groups: Groups, margin: float = 0.01, seed: int = 0
) -> Comparison:
    """All that is said of two methods on the same rows.

    Args:
        a: (S, N) scores of one method: seeds, rows.
        b: (S, N) scores of the other, the same seeds and rows in the same order.
        groups: (N,) subject of each row.
        margin: margin of "not inferior", in the scores' unit.
        seed: seed of the resampling.

    Raises:
        ValueError: if the shapes differ, or there are no rows.
    """
    first, second = np.atleast_2d(np.asarray(a, np.float64)), np.atleast_2d(np.asarray(b, np.float64))
    if first.shape != second.shape or first.shape[1] != len(groups) or not first.size:
        msg = f"paired scores must be (seeds, rows) alike, got {first.shape}, {second.shape} and {len(groups)} groups"
        raise ValueError(msg)
    seeds = len(first)
    mean_a, mean_b = first.mean(axis=0), second.mean(axis=0)
    index, _ = group_index(groups)
    by_subject = subject_means(mean_a, index), subject_means(mean_b, index)
    differences = by_subject[0] - by_subject[1]
    by_seed = np.stack([subject_means(row, index) for row in first - second])
    rows_mean, rows_ci, _ = mean_ci(mean_a - mean_b)
    notes = []
    if np.array_equal(first, second):
        notes.append("identical scores")
    elif _constant(mean_a - mean_b):
        notes.append("the same difference in every row")
    if by_subject[0].size < 2:
        notes.append("one subject: no test over subjects")
    if differences.mean() * rows_mean < 0:
        notes.append("the mean over slices has the other sign")
    return Comparison(
        mean=float(differences.mean()),
        interval=sign_flip_interval(differences, seed=seed),
        seed_ci=crossed_ci(by_seed, np.arange(differences.size)),
        permutation=sign_flip_test(differences, seed=seed),
        subjects=tost_paired(*by_subject, margin),
        rows_mean=rows_mean,
        rows_ci=rows_ci,
        p_t=paired_t_test(mean_a, mean_b),
        rows=tost_paired(mean_a, mean_b, margin),
        margin=margin,
        seeds=seeds,
        seed_sd=float(by_seed.mean(axis=1).std(ddof=1)) if seeds > 1 else None,
        note="; ".join(notes),
    )
