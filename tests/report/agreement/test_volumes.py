from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from scipy.stats import pearsonr

from grn_monai.errors import InputError
from grn_monai.measure.repeatability import icc_2_1
from grn_monai.report.agreement.volumes import fisher_interval, volume_agreement

SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
"""Table 2 of Shrout and Fleiss 1979: six targets, four judges."""


def test_the_published_example() -> None:
    found = icc_2_1(SHROUT_FLEISS)
    assert found is not None
    icc = found[0]
    assert round(icc, 2) == 0.29  # their table 4
    assert icc == pytest.approx((11.24167 - 1.01944) / (11.24167 + 3 * 1.01944 + 4 * (32.48611 - 1.01944) / 6), 1e-5)
    rest = SHROUT_FLEISS - SHROUT_FLEISS.mean(1, keepdims=True) - SHROUT_FLEISS.mean(0) + SHROUT_FLEISS.mean()
    msr, msc = 4 * SHROUT_FLEISS.mean(1).var(ddof=1), 6 * SHROUT_FLEISS.mean(0).var(ddof=1)
    mse = (rest**2).sum() / 15
    assert icc == pytest.approx((msr - mse) / (msr + 3 * mse + 4 * (msc - mse) / 6), abs=1e-9)  # not rounded


def test_two_raters_by_hand() -> None:
    # MSR 210.5, MSC 1.5, MSE 0.5 of (10, 11), (20, 20), (30, 32).
    found = volume_agreement([10, 20, 30], [11, 20, 32])
    assert found.icc == pytest.approx(210 / (210.5 + 0.5 + 2 * 1.0 / 3))
    assert found.note == ""
    plot = found.bland_altman
    assert plot is not None
    assert (plot["bias"], plot["lower"], plot["upper"]) == pytest.approx((1, 1 - 1.96, 1 + 1.96))
    assert plot["bias_ci95"] == pytest.approx([1 - 4.302653 / math.sqrt(3), 1 + 4.302653 / math.sqrt(3)])
    assert (found.slope, found.intercept) == pytest.approx((1.05, 0.0), abs=1e-9)
    assert found.icc_fisher is None  # z has no interval for three subjects


def test_intervals_against_pingouin_and_scipy() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 80, 20)
    predicted = truth + rng.normal(1, 6, 20)
    found, known = volume_agreement(truth, predicted), icc_2_1(np.stack([truth, predicted], axis=1))
    assert known is not None
    assert found.icc == pytest.approx(known[0], abs=1e-9)
    assert found.icc_interval == known[1]
    pearson = pearsonr(truth, predicted)
    assert (found.r, found.r_p) == pytest.approx((pearson.statistic, pearson.pvalue))
    assert found.r_interval == pytest.approx(tuple(pearson.confidence_interval()), abs=1e-6)


def test_the_printed_interval_of_the_mri_study() -> None:
    # Printed: ICC 0.967, 0.949 to 0.979, 76 participants; three decimals leave 0.9665 to 0.9675.
    interval = fisher_interval(0.9672, 76)
    assert interval is not None
    assert [round(end, 3) for end in interval] == [0.949, 0.979]
    assert fisher_interval(1.0, 76) is None
    assert fisher_interval(0.5, 3) is None


def test_what_is_undefined_is_said() -> None:
    few = volume_agreement([1, 2], [1, 2])
    assert few.note == "2 of 3 subjects needed"
    assert few.icc is few.bland_altman is few.r is None
    same = volume_agreement([5, 5, 5], [5, 5, 5])
    assert "no ICC" in same.note
    assert "no correlation" in same.note
    assert same.bland_altman is not None
    assert same.bland_altman["upper"] == 0
    perfect = volume_agreement([10, 20, 30, 40], [10, 20, 30, 40])
    assert (perfect.icc, perfect.r) == pytest.approx((1, 1))
    assert perfect.icc_fisher is perfect.r_interval is None
    assert "ICC without an interval" in perfect.note
    nowhere = volume_agreement([10, 20, 30, 40], [0, 0, 0, 0])
    assert nowhere.r is None
    assert nowhere.icc is not None


def test_without_pingouin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pingouin", None)
    with pytest.raises(InputError, match=r"no package pingouin.*grn-monai\[scans\]"):
        volume_agreement([1, 2, 3], [1, 2, 4])
