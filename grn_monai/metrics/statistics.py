"""Confidence intervals of the field: the one the papers print, and one that respects subjects."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "MeanCI",
    "PairedDifference",
    "cluster_bootstrap_ci",
    "crossed_bootstrap_ci",
    "mean_ci",
    "paired_difference",
]

Floats = npt.NDArray[np.float64]


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
    values: npt.ArrayLike, groups: Sequence[Hashable], n: int = 2000, seed: int = 0, level: float = 0.95
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
    index_of = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    index = np.fromiter((index_of[group] for group in groups), dtype=np.intp, count=rows.size)
    kept = ~np.isnan(rows)
    # The mean of a resample is the ratio of its sum to its count, so per-subject totals are all it needs.
    sums = np.bincount(index[kept], weights=rows[kept], minlength=len(index_of))
    counts = np.bincount(index[kept], minlength=len(index_of))
    sums, counts = sums[counts > 0], counts[counts > 0]
    if counts.size < 2:
        return None
    draws = np.random.default_rng(seed).integers(counts.size, size=(n, counts.size))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def crossed_bootstrap_ci(
    values: npt.ArrayLike, groups: Sequence[Hashable], n: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean over seeds and rows, resampling seeds and subjects independently.

    It says how far the mean would move with other subjects and other trainings. Two or three seeds tell little of
    the spread of trainings, so it is rough.

    Args:
        values: (S, N) numbers without NaN: trainings, rows; every training scores the same rows.
        groups: (N,) subject of each row.
        n: number of resamples.
        seed: seed of the resampling.
        level: coverage, between 0 and 1.

    Returns:
        (low, high), or None for fewer than two trainings or subjects.

    Raises:
        ValueError: for arguments of different length.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or len(groups) != rows.shape[1]:
        msg = f"values must be (S, N) with a group for each row, got shape {rows.shape} and {len(groups)} groups"
        raise ValueError(msg)
    index_of = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    if len(rows) < 2 or len(index_of) < 2:
        return None
    index = np.fromiter((index_of[group] for group in groups), dtype=np.intp, count=rows.shape[1])
    sums = np.stack([np.bincount(index, weights=row, minlength=len(index_of)) for row in rows])
    counts = np.bincount(index, minlength=len(index_of))
    rng = np.random.default_rng(seed)
    subjects = rng.integers(counts.size, size=(n, counts.size))
    trainings = rng.integers(len(rows), size=(n, len(rows)))
    # How often each training is drawn weights its sums, so no resample is ever written out.
    weights = np.stack([np.bincount(draw, minlength=len(rows)) for draw in trainings]) / len(rows)
    mixed = np.take_along_axis(weights @ sums, subjects, axis=1)
    means = mixed.sum(axis=1) / counts[subjects].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
