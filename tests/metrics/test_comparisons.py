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
    sign_flip_interval,
    sign_flip_test,
    subject_means,
    tost_paired,
)
from grn_monai.metrics.statistics import cluster_bootstrap_ci, crossed_ci, mean_ci


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
    values = np.random.default_rng(2).normal(0.35, 1, 18)
    found = sign_flip_test(values, resamples=10_000)
    assert not found.exact
    assert found.smallest == 1 / 10_001
    bits = (np.arange(2**18)[:, None] >> np.arange(18)) & 1
    exact = (np.abs((1 - 2 * bits) @ values) >= abs(values.sum()) - 1e-9).mean()
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact / 10_000))
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
    assert found.mean == found.rows_mean == pytest.approx((a - b).mean())
    assert found.rows_ci == mean_ci(mean_a - mean_b).ci
    assert found.interval == pytest.approx(sign_flip_interval((mean_a - mean_b).reshape(6, 4).mean(axis=1)))
    assert found.seed_ci == pytest.approx(crossed_ci(a - b, groups))
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
    assert back.mean == pytest.approx(-found.mean)
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
    assert (alone.permutation.p, alone.subjects.equivalent, alone.interval) == (1, None, None)
    assert single.p_t is None
    assert single.seed_sd is None
    assert single.seed_ci is None


@pytest.mark.parametrize("shape", [(2, 3), (1, 4), (0, 4)])
def test_comparison_refuses_what_does_not_pair(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="alike"):
        compare_paired(np.ones((2, 4)), np.ones(shape), ["a"] * 4)


def test_crossed_interval_by_hand() -> None:
    # Two trainings, two subjects: means of subjects 1.5 and 3.5, of trainings 2 and 3.
    found = crossed_ci([[1, 1, 3], [2, 2, 4]], ["a", "a", "b"])
    assert found is not None
    # Subject a has two of three rows, 4/3 of a mean share: its share of the mean is 13/6 + 4/3 · (1.5 − 13/6).
    mean = 13 / 6
    shares = np.array([[mean + 4 / 3 * (1 - mean), mean + 2 / 3 * (3 - mean)], [0, 0]])
    shares[1] = mean + 4 / 3 * (2 - mean), mean + 2 / 3 * (4 - mean)
    u, v = shares.mean(axis=0).var(ddof=1) / 2, shares.mean(axis=1).var(ddof=1) / 2
    half = stats.t.ppf(0.975, 1) * np.sqrt(u + v)
    assert found == pytest.approx((mean - half, mean + half))
    assert crossed_ci(np.ones((1, 4)), ["a", "a", "b", "b"]) is None
    assert crossed_ci(np.ones((3, 4)), ["a"] * 4) is None
    assert crossed_ci(np.full((3, 4), 0.5), ["a", "a", "b", "b"]) == pytest.approx((0.5, 0.5))
    with pytest.raises(ValueError, match="group for each row"):
        crossed_ci(np.ones(4), ["a"] * 4)


@pytest.mark.parametrize(("seeds", "spread"), [(2, 3.0), (3, 3.0), (3, 0.3), (5, 1.0)])
def test_two_equal_methods_whose_trainings_differ_are_seldom_told_apart(seeds: int, spread: float) -> None:
    """What the sign flips alone would call significant mostly (spread 3): the interval over seeds holds zero."""
    rng = np.random.default_rng(seeds)
    groups = np.repeat(np.arange(11), 2)
    wrong = flips = 0
    for _ in range(300):
        chance = rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 1, 11)[groups] + rng.normal(0, 0.5, (seeds, 22))
        significant = sign_flip_test(subject_means(chance.mean(axis=0), groups)).p < 0.05
        low, high = crossed_ci(chance, groups) or (0, 0)
        flips += significant
        wrong += significant and not low <= 0 <= high
    assert wrong / 300 <= 0.07
    assert flips > 100 or spread < 3


@pytest.mark.parametrize("n", [5, 6, 8, 11, 14])
def test_the_interval_is_the_test_inverted(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(20):
        values = rng.normal(rng.normal(0, 0.8), 1, n)
        found = sign_flip_interval(values)
        if n < 6:
            assert found is None  # 2 / 2⁵ is not below 0.05
            continue
        assert found is not None
        low, high = found
        assert (low <= 0 <= high) == (sign_flip_test(values).p >= 0.05)
        for end, outside in ((low, low - 1e-6), (high, high + 1e-6)):
            assert sign_flip_test(values - end).p >= 0.05
            assert sign_flip_test(values - outside).p < 0.05


def test_the_interval_of_many_subjects_agrees_with_its_test_too() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.4, 1, 24)
    found = sign_flip_interval(values)
    assert found is not None
    assert sign_flip_test(values - found[0] + 1e-6).p < 0.05 <= sign_flip_test(values - found[0] - 1e-6).p
    half = stats.t.ppf(0.975, 23) * values.std(ddof=1) / np.sqrt(24)
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06)


def test_the_interval_covers_where_the_bootstrap_does_not() -> None:
    rng = np.random.default_rng(5)
    hits = bootstrap = 0
    for _ in range(600):
        values = rng.normal(0, 1, 7)
        low, high = sign_flip_interval(values) or (0, 0)
        hits += low <= 0 <= high
        low, high = cluster_bootstrap_ci(values, np.arange(7), n=500) or (0, 0)
        bootstrap += low <= 0 <= high
    assert hits / 600 >= 0.93
    assert bootstrap / 600 < 0.91


def test_subjects_of_many_slices_do_not_decide_the_sign() -> None:
    """Seven subjects gain; one with most of the slices loses: mean, test, interval and TOST all go by subjects."""
    groups = ["big"] * 100 + [f"s{i}" for i in range(7)]
    a = np.concatenate([np.full(100, 0.4), 0.55 + 0.01 * np.arange(7)])
    found = compare_paired(a, np.full(107, 0.5), groups)
    assert found.mean == pytest.approx((-0.1 + sum(0.05 + 0.01 * i for i in range(7))) / 8)
    assert found.mean > 0 > found.rows_mean
    assert found.note == "the mean over slices has the other sign"
    assert found.interval is not None
    assert found.interval[0] <= 0 <= found.interval[1]


def test_a_family_has_its_planned_size_from_the_first_test_on() -> None:
    assert holm([0.01], 4) == [0.04]
    assert holm([0.01, None, 0.02], 4) == pytest.approx([0.04, None, 0.06])
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 0.1, 8).tolist()
    for n in range(1, 8):  # what has arrived is never corrected harder when more arrives
        before, after = holm(p[:n], 8), holm(p[: n + 1], 8)
        assert all(b >= a - 1e-12 for b, a in zip(before, after, strict=False) if b is not None and a is not None)
