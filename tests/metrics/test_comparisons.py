from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from scipy import stats

from grn_monai.metrics.comparisons import (
    compare_paired,
    holm,
    paired_t_test,
    sign_flip_test,
    subject_means,
    tost_paired,
)
from grn_monai.metrics.statistics import cluster_bootstrap_ci, crossed_bootstrap_ci


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(3)
    a = rng.uniform(0.4, 0.9, (2, 24))
    return a, a - rng.normal(0.03, 0.05, a.shape), [f"s{i // 4}" for i in range(24)]


def test_t_test_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, SD 1, t = 2·√3, two degrees of freedom: p = 1 − t/√(t² + 2).
    t = 2 * np.sqrt(3)
    assert paired_t_test([2, 4, 6], [1, 2, 3]) == pytest.approx(1 - t / np.sqrt(t**2 + 2))


def test_subject_means_count_each_subject_once() -> None:
    assert subject_means([1, 3, 10, 5], ["b", "b", "a", "b"]).tolist() == [3, 10]


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_permutation_equals_enumeration(n: int) -> None:
    values = np.random.default_rng(n).normal(0.3, 1, n)
    observed = abs(values.mean())
    every = [abs(np.mean(values * signs)) for signs in itertools.product((1, -1), repeat=n)]
    expected = np.mean([value >= observed - 1e-12 for value in every])
    found = sign_flip_test(values)
    assert found.p == pytest.approx(expected)
    assert found.exact
    assert found.smallest == 2 / 2**n


def test_permutation_by_hand_and_its_floor() -> None:
    # Of the eight sums of ±1 ±2 ±4 only ±7 reach 7.
    assert sign_flip_test([1, 2, 4]).p == 2 / 8
    # ±1 ±2 −4: |−1| is reached by the sums ±1, ±3 (|−3|, |3|), ±5, ±7, so by all eight.
    assert sign_flip_test([1, 2, -4]).p == 1
    # Ties: 0.1 + 0.2 and 0.3 differ in the last bit, and still count as equal.
    assert sign_flip_test([0.1, 0.2, 0.3, -0.3]).p == sign_flip_test([1, 2, 3, -3]).p


def test_permutation_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).normal(0.4, 1, 10)
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_test(values).p == pytest.approx(expected)


def test_permutation_of_many_subjects_is_sampled() -> None:
    values = np.random.default_rng(2).normal(0.35, 1, 20)
    found = sign_flip_test(values, resamples=40_000)
    assert not found.exact
    assert found.smallest == 1 / 40_001
    bits = (np.arange(2**20)[:, None] >> np.arange(20)) & 1
    exact = (np.abs((1 - 2 * bits) @ values) >= abs(values.sum()) - 1e-9).mean()
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000))
    assert sign_flip_test(values, seed=1).p == sign_flip_test(values, seed=1).p
    assert sign_flip_test(np.ones(20)).p > 0


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.9 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.9, and never below the one before.
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([None, 0.04, None]) == [None, 0.04, None]
    assert holm([]) == []


def test_holm_against_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).uniform(0, 0.2, 12)
    assert holm(p.tolist()) == pytest.approx(multitest.multipletests(p, method="holm")[1])


def test_tost_against_statsmodels() -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    rng = np.random.default_rng(5)
    a = rng.normal(0.7, 0.1, 15)
    b = a + rng.normal(0.004, 0.02, 15)
    p, (_, lower, _), (_, upper, _) = weightstats.ttost_paired(a, b, -0.01, 0.01)
    found = tost_paired(a, b, 0.01)
    assert (found.not_inferior, found.not_superior, found.equivalent) == pytest.approx((lower, upper, p))
    assert found.n == 15


@pytest.mark.parametrize("margin", [0, -0.01, float("nan")])
def test_tost_needs_a_margin(margin: float) -> None:
    with pytest.raises(ValueError, match="margin must be above 0"):
        tost_paired([1, 2], [1, 2], margin)


def test_comparison_joins_the_parts(scores: tuple[np.ndarray, np.ndarray, list[str]]) -> None:
    a, b, groups = scores
    found = compare_paired(a, b, groups, margin=0.02)
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    assert found.difference.mean == pytest.approx((a - b).mean())
    assert found.p_t == pytest.approx(stats.ttest_rel(mean_a, mean_b).pvalue)
    by_subject = (mean_a - mean_b).reshape(6, 4).mean(axis=1)
    assert found.permutation == sign_flip_test(by_subject)
    assert found.subjects.n == 6
    assert found.rows.n == 24
    per_seed = (a - b).mean(axis=1)
    assert found.seed_sd == pytest.approx(abs(per_seed[0] - per_seed[1]) / np.sqrt(2))
    assert (found.seeds, found.note) == (2, "")
    # The other way round all signs turn and no p changes.
    back = compare_paired(b, a, groups, margin=0.02)
    assert back.difference.mean == pytest.approx(-found.difference.mean)
    assert back.permutation.p == pytest.approx(found.permutation.p)
    assert back.subjects.not_inferior == pytest.approx(found.subjects.not_superior)


def test_degenerate_scores_have_a_note_and_no_nan() -> None:
    groups = ["a", "a", "b", "b"]
    scores = np.array([[0.5, 0.6, 0.7, 0.8]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = compare_paired(scores, scores, groups)
        shifted = compare_paired(scores + 0.1, scores, groups)
        alone = compare_paired(scores + np.array([0.1, 0.2, 0.1, 0.3]), scores, ["a"] * 4)
        single = compare_paired([[0.5]], [[0.4]], ["a"])
    assert (same.p_t, same.permutation.p, same.subjects.equivalent) == (1, 1, 0)
    assert same.note == "identical scores"
    assert (shifted.p_t, shifted.subjects.not_inferior, shifted.subjects.equivalent) == (0, 0, 1)
    assert shifted.note == "the same difference in every row"
    assert alone.note == "one subject: no test over subjects"
    assert (alone.permutation.p, alone.subjects.equivalent, alone.difference.subject_ci) == (1, None, None)
    assert single.p_t is None
    assert single.seed_sd is None
    assert single.seed_ci is None


@pytest.mark.parametrize("shape", [(2, 3), (1, 4), (0, 4)])
def test_comparison_refuses_what_does_not_pair(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="alike"):
        compare_paired(np.ones((2, 4)), np.ones(shape), ["a"] * 4)


def test_crossed_bootstrap_equals_plain_resampling() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([4, 2, 9], [2, 5, 3])
    values = rng.normal(size=(3, groups.size)) + groups
    draws = np.random.default_rng(7)
    subjects, seeds = draws.integers(3, size=(200, 3)), draws.integers(3, size=(200, 3))
    order = [4, 2, 9]
    means = [
        np.concatenate([values[seed_draw][:, groups == order[i]].ravel() for i in subject_draw]).mean()
        for subject_draw, seed_draw in zip(subjects, seeds, strict=True)
    ]
    assert crossed_bootstrap_ci(values, groups.tolist(), n=200, seed=7) == pytest.approx(
        np.quantile(means, [0.025, 0.975])
    )


def test_crossed_bootstrap_is_wider_where_trainings_differ() -> None:
    rng = np.random.default_rng(0)
    groups = [f"s{i // 5}" for i in range(50)]
    row = rng.normal(0.6, 0.1, 50)
    values = np.stack([row, row + 0.2, row - 0.2])
    both = crossed_bootstrap_ci(values, groups)
    subjects = cluster_bootstrap_ci(values.mean(axis=0), groups)
    assert both is not None
    assert subjects is not None
    assert both[1] - both[0] > 1.5 * (subjects[1] - subjects[0])
    assert crossed_bootstrap_ci(values[:1], groups) is None
    assert crossed_bootstrap_ci(values, ["a"] * 50) is None
    with pytest.raises(ValueError, match="group for each row"):
        crossed_bootstrap_ci(row, groups)
