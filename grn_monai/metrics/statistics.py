"""Confidence intervals of the field: the one the papers print, and one that respects subjects."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "MeanCI",
    "PairedDifference",
    "cluster_bootstrap_ci",
    "crossed_ci",
    "group_index",
    "mean_ci",
    "paired_difference",
]

Floats = npt.NDArray[np.float64]
Groups = Sequence[Hashable] | npt.NDArray[np.intp]
"""The subject of each row, by name or by number from 0."""


class MeanCI(NamedTuple):
    """A mean and its 95 % interval; `ci` is None where the sample is too small for one."""

    mean: float
    ci: tuple[float, float] | None
    n: int


class PairedDifference(NamedTuple):
    """Mean of a − b over pairs with the interval over rows and the one over subjects."""

    mean: float
    ci: tuple[float, float] | None
    subject_ci: tuple[float, float] | None
    n: int


def group_index(groups: Groups) -> tuple[npt.NDArray[np.intp], int]:
    """Number of each row's group and how many groups there are; groups are numbered as they first appear.

    An array of integers is taken as numbered already (0 to the number of groups − 1), which saves the time.
    """
    if isinstance(groups, np.ndarray) and np.issubdtype(groups.dtype, np.integer):
        return groups, int(groups.max(initial=-1)) + 1
    index_of = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return np.fromiter((index_of[group] for group in groups), dtype=np.intp, count=len(groups)), len(index_of)


@lru_cache(maxsize=8)
def _draws(count: int, n: int, seed: int) -> npt.NDArray[np.int64]:
    """(n, count) resamples of the numbers below `count`; the same for all means of a report."""
    draws = np.random.default_rng(seed).integers(count, size=(n, count))
    draws.flags.writeable = False
    return draws


def mean_ci(values: npt.ArrayLike) -> MeanCI:
    """Mean ± 1.96·SD/√N, SD with N − 1 (ddof = 1): the interval that the GRN papers print over slices.

    It treats the values as independent. Slices of one scan are not, so over slices it is too narrow: print
    `cluster_bootstrap_ci` beside it.

    Args:
        values: numbers, any shape; NaN is left out and does not count in `n`.

    Returns:
        Mean, (low, high) or None for fewer than two values, and N. The mean of no values is NaN.
    """
    kept = np.asarray(values, dtype=np.float64).ravel()
    kept = kept[~np.isnan(kept)]
    if kept.size == 0:
        return MeanCI(float("nan"), None, 0)
    mean = float(kept.mean())
    if kept.size == 1:
        return MeanCI(mean, None, 1)
    half = float(1.96 * kept.std(ddof=1) / np.sqrt(kept.size))
    return MeanCI(mean, (mean - half, mean + half), int(kept.size))


def cluster_bootstrap_ci(
    values: npt.ArrayLike, groups: Groups, n: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean, resampling subjects with all their rows.

    Args:
        values: (N,) numbers; NaN rows are left out.
        groups: (N,) subject of each row.
        n: number of resamples.
        seed: seed of the resampling; the same seed gives the same interval.
        level: coverage, between 0 and 1.

    Returns:
        (low, high), or None when fewer than two subjects have rows: one subject says nothing about others.

    Raises:
        ValueError: for arguments of different length, n < 1 or a level outside (0, 1).
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or len(groups) != rows.size:
        msg = f"values must be 1D with one group each, got shape {rows.shape} and {len(groups)} groups"
        raise ValueError(msg)
    if n < 1 or not 0 < level < 1:
        msg = f"n must be at least 1 and level between 0 and 1, got n={n}, level={level}"
        raise ValueError(msg)
    index, count = group_index(groups)
    kept = ~np.isnan(rows)
    # The mean of a resample is the ratio of its sum to its count, so per-subject totals are all it needs.
    sums = np.bincount(index[kept], weights=rows[kept], minlength=count)
    counts = np.bincount(index[kept], minlength=count)
    sums, counts = sums[counts > 0], counts[counts > 0]
    if counts.size < 2:
        return None
    draws = _draws(counts.size, n, seed)
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def crossed_ci(values: npt.ArrayLike, groups: Groups, level: float = 0.95) -> tuple[float, float] | None:
    """t-interval of the mean over trainings and rows, for other subjects and other trainings.

    Two crossed random effects: its half-width is √(t²·v of the subjects' means + t²·v of the trainings' means), v the
    variance divided by the number, each t with its own degrees of freedom. With two or three trainings that differ it
    is wide, as it has to be: a percentile bootstrap over so few, or Satterthwaite's freedom, is too narrow.

    Args:
        values: (S, N) numbers without NaN: trainings, rows; every training scores the same rows.
        groups: (N,) subject of each row.
        level: coverage, between 0 and 1.

    Returns:
        (low, high), or None for fewer than two trainings or subjects.

    Raises:
        ValueError: for arguments of different length.
    """
    from scipy.stats import t

    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or len(groups) != rows.shape[1]:
        msg = f"values must be (S, N) with a group for each row, got shape {rows.shape} and {len(groups)} groups"
        raise ValueError(msg)
    index, count = group_index(groups)
    if len(rows) < 2 or count < 2:
        return None
    sizes = np.bincount(index, minlength=count)
    means = np.stack([np.bincount(index, weights=row, minlength=count) for row in rows]) / sizes
    # A subject counts by its rows: its share of the mean over rows, linearised, has the mean itself as its mean.
    mean = float(rows.mean())
    shares = mean + sizes / sizes.mean() * (means - mean)
    of_subjects = float(shares.mean(axis=0).var(ddof=1)) / count
    of_trainings = float(shares.mean(axis=1).var(ddof=1)) / len(rows)
    quantiles = [float(t.ppf((1 + level) / 2, size - 1)) for size in (count, len(rows))]
    half = float(np.sqrt(quantiles[0] ** 2 * of_subjects + quantiles[1] ** 2 * of_trainings))
    return mean - half, mean + half


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, groups: Sequence[Hashable], n: int = 2000, seed: int = 0
) -> PairedDifference:
    """Mean paired difference a − b with the interval over rows and the subject-level bootstrap interval.

    Args:
        a: (N,) scores of one method.
        b: (N,) scores of the other on the same rows, in the same order.
        groups: (N,) subject of each row.
        n: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Returns:
        The mean difference, mean ± 1.96·SD/√N over rows, the subject interval, and the number of pairs.

    Raises:
        ValueError: if a, b and groups differ in length.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        msg = f"paired scores must have one shape, got {first.shape} and {second.shape}"
        raise ValueError(msg)
    difference = first - second
    mean, ci, count = mean_ci(difference)
    return PairedDifference(mean, ci, cluster_bootstrap_ci(difference, groups, n=n, seed=seed), count)
