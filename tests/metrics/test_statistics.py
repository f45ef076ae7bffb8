from __future__ import annotations

import numpy as np
import pytest

from grn_monai.metrics import cluster_bootstrap_ci, mean_ci, paired_difference
from grn_monai.metrics.statistics import group_index


def test_mean_ci_by_hand() -> None:
    mean, ci, n = mean_ci([2, 4, 4, 6])  # SD = √(8/3), half-width 1.96·SD/2
    half = 1.96 * np.sqrt(8 / 3) / 2
    assert (mean, n) == (4, 4)
    assert ci == pytest.approx((4 - half, 4 + half))


def test_mean_ci_small_samples_and_nan() -> None:
    assert mean_ci([3.0, np.nan]) == (3.0, None, 1)
    empty = mean_ci([np.nan])
    assert np.isnan(empty.mean)
    assert empty.ci is None
    assert empty.n == 0


def test_bootstrap_equals_plain_resampling() -> None:
    """The totals per subject give what concatenating the resampled subjects' rows gives."""
    rng = np.random.default_rng(0)
    groups = np.repeat([7, 3, 9, 1], [2, 5, 3, 4])
    values = rng.normal(size=groups.size) + groups
    values[4] = np.nan
    draws = np.random.default_rng(5).integers(4, size=(300, 4))
    order = [7, 3, 9, 1]
    means = [np.nanmean(np.concatenate([values[groups == order[i]] for i in draw])) for draw in draws]
    expected = np.quantile(means, [0.025, 0.975])
    assert cluster_bootstrap_ci(values, groups.tolist(), n=300, seed=5) == pytest.approx(expected)


def test_bootstrap_sees_subjects_where_the_slice_interval_does_not() -> None:
    """With all spread between subjects, more slices of each must not narrow the interval."""
    per_subject = np.array([0.2, 0.4, 0.6, 0.8])
    few, many = np.repeat(per_subject, 2), np.repeat(per_subject, 200)
    few_ci = cluster_bootstrap_ci(few, np.repeat(range(4), 2).tolist())
    many_ci = cluster_bootstrap_ci(many, np.repeat(range(4), 200).tolist())
    assert few_ci == pytest.approx(many_ci)
    slice_ci = mean_ci(many).ci
    assert many_ci is not None
    assert slice_ci is not None
    assert many_ci[1] - many_ci[0] > 5 * (slice_ci[1] - slice_ci[0])


def test_bootstrap_is_seeded_and_single_subject_has_none() -> None:
    values, groups = [0.1, 0.5, 0.9, 0.2], ["a", "a", "b", "c"]
    assert cluster_bootstrap_ci(values, groups, seed=1) == cluster_bootstrap_ci(values, groups, seed=1)
    assert cluster_bootstrap_ci(values, groups, n=50, seed=1) != cluster_bootstrap_ci(values, groups, n=50, seed=2)
    assert cluster_bootstrap_ci(values, ["a"] * 4) is None
    assert cluster_bootstrap_ci([0.1, np.nan], ["a", "b"]) is None


def test_bootstrap_coverage() -> None:
    """Over many samples of 20 subjects the 95 % interval holds the true mean about 9 times in 10 or more."""
    rng = np.random.default_rng(11)
    hits = 0
    for trial in range(200):
        values = np.repeat(rng.normal(size=20), 3) + 0.3 * rng.normal(size=60)
        ci = cluster_bootstrap_ci(values, np.repeat(range(20), 3).tolist(), n=400, seed=trial)
        assert ci is not None
        hits += ci[0] <= 0 <= ci[1]
    assert 0.87 <= hits / 200 <= 0.99


def test_paired_difference() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 10, 60)
    groups = np.repeat(range(6), 10).tolist()
    better = paired_difference(hardness + 1 + 0.1 * rng.normal(size=60), hardness, groups)
    assert better.mean == pytest.approx(1, abs=0.05)
    assert better.ci is not None
    assert better.subject_ci is not None
    assert better.ci[0] > 0.9  # the shared hardness cancels
    assert better.subject_ci[0] > 0.9
    assert better.n == 60


@pytest.mark.parametrize(
    "arguments",
    [([1.0, 2.0], ["a"]), ([[1.0]], ["a"]), ([1.0], ["a"], 0), ([1.0], ["a"], 10, 0, 1.0)],
)
def test_bad_arguments(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="must be"):
        cluster_bootstrap_ci(*arguments)


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="one shape"):
        paired_difference([1.0], [1.0, 2.0], ["a"])


def test_numbered_subjects_give_the_interval_of_named_ones() -> None:
    names = ["b", "b", "a", "c", "a", "d"]
    values = [0.1, 0.5, 0.9, 0.2, 0.4, 0.3]
    index, count = group_index(names)
    assert (index.tolist(), count) == ([0, 0, 1, 2, 1, 3], 4)
    assert group_index(index)[1] == 4
    assert cluster_bootstrap_ci(values, index, seed=3) == cluster_bootstrap_ci(values, names, seed=3)
    values[3] = np.nan  # a subject without scores
    assert cluster_bootstrap_ci(values, index, seed=3) == cluster_bootstrap_ci(values, names, seed=3)
