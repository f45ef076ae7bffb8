"""Thresholds of fat, against brute force, and likelihood maximised by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize
from scipy.stats import norm

from grn_monai.errors import InputError
from grn_monai.measure.muscle.threshold import Mixture, fat_threshold, fit_mixture, otsu


def two_peaks(n: int = 4000, share: float = 0.3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fat = int(n * share)
    return np.concatenate([rng.normal(100, 20, n - fat), rng.normal(300, 20, fat)])


def brute_otsu(values: np.ndarray) -> float:
    """Largest variance between the classes over all cuts between sorted values."""
    x = np.sort(values)
    count = np.arange(1, x.size)
    below = np.cumsum(x)[:-1] / count
    above = (x.sum() - np.cumsum(x)[:-1]) / (x.size - count)
    between = count * (x.size - count) * (above - below) ** 2
    k = int(between.argmax())
    return float((x[k] + x[k + 1]) / 2)


def test_otsu_cuts_where_brute_force_does() -> None:
    for seed in range(3):
        values = two_peaks(seed=seed)
        found = otsu(values)
        # In the gap between the peaks several cuts are as good: the classes have to be the same, but for few voxels.
        assert np.count_nonzero(values > found) == pytest.approx(np.count_nonzero(values > brute_otsu(values)), abs=4)


def test_mixture_has_the_greatest_likelihood() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(100, 25, 6000), rng.normal(180, 25, 2000)])

    def cost(p: np.ndarray) -> float:
        first = norm.logpdf(values, p[0], p[2]) + np.log(p[3])
        return -float(np.logaddexp(first, norm.logpdf(values, p[1], p[2]) + np.log1p(-p[3])).sum())

    best = optimize.minimize(cost, [90, 200, 30, 0.5], bounds=[(0, 150), (120, 300), (5, 80), (0.01, 0.99)]).x
    found = fit_mixture(values)
    np.testing.assert_allclose([*found.means, found.sd], best[:3], atol=0.5)
    assert found.weights[0] == pytest.approx(best[3], abs=0.005)


def test_crossing_by_hand() -> None:
    assert Mixture((0.5, 0.5), (0.0, 10.0), 2.0).crossing == 5.0
    uneven = Mixture((0.8, 0.2), (0.0, 10.0), 2.0)
    assert uneven.crossing == pytest.approx(5 + 4 * np.log(4) / 10)
    low, high = uneven.densities(uneven.crossing)
    assert low == pytest.approx(high)
    assert uneven.separation == 5.0


@pytest.mark.parametrize("method", ["otsu", "gaussian"])
def test_share_of_fat_is_found(method: str) -> None:
    values = two_peaks(share=0.2)
    found = fat_threshold(values, method)
    assert 100 < found.value < 300
    assert found.trusted
    assert (values > found.value).mean() == pytest.approx(0.2, abs=0.002)


def test_one_peak_is_not_trusted() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.normal(100, 20, 5000), rng.gamma(9, 12, 5000), rng.uniform(0, 100, 50000)):
        assert not fat_threshold(values, "otsu").trusted


def test_a_given_threshold_is_kept() -> None:
    found = fat_threshold(two_peaks(), 123.0)
    assert (found.value, found.method) == (123.0, "given")


def test_a_spike_does_not_stretch_the_histogram() -> None:
    values = two_peaks()
    assert fat_threshold(np.append(values, 1e7), "otsu").value == pytest.approx(
        fat_threshold(values, "otsu").value, abs=10
    )


@pytest.mark.parametrize("values", [np.arange(20.0), np.full(500, 7.0), np.r_[np.full(50000, 7.0), 8.0]])
def test_too_little_to_find_a_threshold_in(values: np.ndarray) -> None:
    with pytest.raises(InputError, match="--threshold"):
        fat_threshold(values, "otsu")
