from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from grn_monai.report.agreement import load_runs
from grn_monai.report.agreement.posthoc import compare_with_best
from tests.report.agreement.runs import MUSCLES, random_rows, row, write


def test_the_best_against_each_other(tmp_path: Path) -> None:
    shifts = (0.0, 0.05, 0.03)
    runs = [f"net={i}:{write(tmp_path / str(i), random_rows(i, 8, shift))}" for i, shift in enumerate(shifts)]
    data = load_runs(runs)
    found, dice = compare_with_best(data, "dice"), data.of("dice")
    assert found is not None
    assert (found.best, found.subjects) == (1, 8)
    assert found.mean == pytest.approx(dice[1].mean())
    assert [(c.other, c.muscle) for c in found.contrasts] == [(c, m) for c in (0, 2) for m in MUSCLES]
    for contrast in found.contrasts:
        m = MUSCLES.index(contrast.muscle)
        expected = ttest_rel(dice[1, :, m], dice[contrast.other, :, m])
        assert (contrast.t, contrast.p) == pytest.approx((expected.statistic, expected.pvalue))
        assert contrast.interval == pytest.approx(tuple(expected.confidence_interval()))
        assert contrast.difference == pytest.approx((dice[1, :, m] - dice[contrast.other, :, m]).mean())
    holm = multipletests([c.p for c in found.contrasts], method="holm")[1]
    assert [c.p_holm for c in found.contrasts] == pytest.approx(list(holm))
    distance = compare_with_best(data, "hd95_mm")  # 5 − Dice: the lowest is of the same model
    assert distance is not None
    assert distance.best == 1


def test_the_best_is_chosen_on_the_same_subjects(tmp_path: Path) -> None:
    """A model that was scored on an easy subject only is not the best for it."""
    a = write(tmp_path / "a", [row(f"s{i}", "m", d) for i, d in enumerate([0.5, 0.6, 0.7, 0.99])])
    b = write(tmp_path / "b", [row(f"s{i}", "m", d) for i, d in enumerate([0.52, 0.61, 0.74])])
    found = compare_with_best(load_runs([f"x=a:{a}", f"x=b:{b}"]), "dice")
    assert found is not None
    assert (found.best, found.subjects) == (1, 3)
    assert found.contrasts[0].n == 3


def test_too_little_is_said(tmp_path: Path) -> None:
    few = write(tmp_path / "few", random_rows(0, 2))
    same = write(tmp_path / "same", random_rows(1, 4))
    assert compare_with_best(load_runs([str(few)]), "dice") is None
    found = compare_with_best(load_runs([f"x=a:{same}", f"x=b:{few}"]), "dice")
    assert found is not None
    assert {c.note for c in found.contrasts} == {"2 of 3 subjects needed"}
    assert all(c.p is None and c.p_holm is None for c in found.contrasts)
    found = compare_with_best(load_runs([f"x=a:{same}", f"x=b:{same}"]), "dice")
    assert found is not None
    assert {(c.note, c.p, c.t) for c in found.contrasts} == {("identical scores", 1.0, None)}
    nothing = write(tmp_path / "nothing", [row(f"s{i}", m, 0.0) for i in range(4) for m in MUSCLES])
    data = load_runs([f"x=a:{same}", f"x=b:{nothing}"])
    assert np.isnan(data.of("conformity")[1]).all()
    assert compare_with_best(data, "conformity") is None
