from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.linalg import helmert
from scipy.stats import f as fisher
from scipy.stats import kurtosis, shapiro, ttest_rel

from grn_monai.errors import InputError
from grn_monai.report.agreement import AgreementData, load_runs
from grn_monai.report.agreement.anova import Anova, analyse, effect_share, residual_normality, residuals
from tests.report.agreement.runs import MUSCLES, random_rows, row, write

Floats = npt.NDArray[np.float64]


def crossed(tmp_path: Path, subjects: int = 6, **changes: Any) -> AgreementData:
    runs = []
    for i, (d, a) in enumerate(itertools.product(("2D", "3D"), ("no", "yes"))):
        folder = write(tmp_path / f"{d}{a}", random_rows(i, subjects, 0.02 * (i % 2), **(changes if i == 3 else {})))
        runs.append(f"dimension={d},augmentation={a}:{folder}")
    return load_runs(runs)


def table_of(data: AgreementData) -> Floats:
    """(subjects, dimension, augmentation, muscle)."""
    return np.moveaxis(data.of("dice"), 0, 1).reshape(len(data.subjects), 2, 2, len(MUSCLES))


def sums_of_squares(table: Floats, axes: tuple[int, ...]) -> float:
    """Of an effect, by inclusion and exclusion of the sums of squared marginal means."""
    total = 0.0
    for size in range(len(axes) + 1):
        for kept in itertools.combinations(axes, size):
            means = table.mean(axis=tuple(axis for axis in range(table.ndim) if axis not in kept))
            total += (-1) ** (len(axes) - size) * table.size / max(means.size, 1) * float((means**2).sum())
    return total


def by_source(effects: Any) -> dict[str, Any]:
    return {effect.source: effect for effect in effects}


def test_three_factors_against_sums_of_squares(tmp_path: Path) -> None:
    data = crossed(tmp_path)
    found, table = analyse(data, "dice"), table_of(data)
    names = ("subject", "dimension", "augmentation", "muscle")
    assert found.within == names[1:]
    assert len(found.effects) == 7
    for axes in (a for size in (1, 2, 3) for a in itertools.combinations((1, 2, 3), size)):
        effect = by_source(found.effects)[" × ".join(names[axis] for axis in axes)]
        df1 = int(np.prod([table.shape[axis] - 1 for axis in axes]))
        df2 = df1 * (len(table) - 1)
        ss, error = sums_of_squares(table, axes), sums_of_squares(table, (0, *axes))
        expected = ss / df1 / (error / df2)
        assert (effect.df1, effect.df2) == (df1, df2)
        assert effect.f == pytest.approx(expected, rel=1e-6)
        assert effect.p == pytest.approx(fisher.sf(expected, df1, df2), rel=1e-5)
        assert effect.eta == pytest.approx(ss / (ss + error), rel=1e-6)
        assert np.divide(*effect_share(table, axes)) == pytest.approx(ss / error, rel=1e-6)


def test_two_levels_are_the_paired_t_test(tmp_path: Path) -> None:
    data = crossed(tmp_path)
    table = table_of(data).mean(axis=(2, 3))
    effect = by_source(analyse(data, "dice").effects)["dimension"]
    expected = ttest_rel(table[:, 0], table[:, 1])
    assert (effect.f, effect.p) == pytest.approx((expected.statistic**2, expected.pvalue), rel=1e-6)


def test_greenhouse_geisser_and_mauchly_against_their_formulas(tmp_path: Path) -> None:
    data = crossed(tmp_path, subjects=9)
    found, table = analyse(data, "dice"), table_of(data)
    effects = by_source(found.corrected)
    assert set(effects) == {e.source for e in found.effects} - {"dimension × augmentation × muscle"}
    for name, values in {
        "muscle": table.mean(axis=(1, 2)),
        "augmentation × muscle": np.diff(table.mean(axis=1), axis=1)[:, 0],
    }.items():
        contrasts = values @ helmert(3).T
        cov = np.cov(contrasts, rowvar=False)
        n, d = len(values), 2
        effect = effects[name]
        assert effect.epsilon == pytest.approx(np.trace(cov) ** 2 / (d * np.trace(cov @ cov)))
        w = np.linalg.det(cov) / (np.trace(cov) / d) ** d
        assert effect.w == pytest.approx(w)
        assert effect.chi2 == pytest.approx(-(n - 1 - (2 * d**2 + d + 2) / (6 * d)) * np.log(w))
        freedom = np.array([2, 2 * (n - 1)]) * effect.epsilon
        assert effect.p_corrected == pytest.approx(fisher.sf(effect.f, *freedom))
        assert effect.f == pytest.approx(by_source(found.effects)[name].f, rel=1e-6)
    two = effects["dimension × augmentation"]
    assert two.p_corrected == two.p
    assert two.note == "two levels"


def test_one_model_compares_its_muscles(tmp_path: Path) -> None:
    data = load_runs([str(write(tmp_path, random_rows(0)))])
    found = analyse(data, "dice")
    assert found.within == ("muscle",)
    (effect,), (corrected,) = found.effects, found.corrected
    table = data.of("dice")[0]
    expected = sums_of_squares(table, (1,)) / 2 / (sums_of_squares(table, (0, 1)) / 10)
    assert effect.f == pytest.approx(expected)
    assert corrected.f == pytest.approx(expected)
    assert corrected.w is not None


def test_residuals(tmp_path: Path) -> None:
    data = crossed(tmp_path)
    found, table = analyse(data, "dice").normality, table_of(data).reshape(6, -1)
    assert found is not None
    expected = [
        [table[s, c] - table[s].mean() - table[:, c].mean() + table.mean() for c in range(12)] for s in range(6)
    ]
    np.testing.assert_allclose(residuals(table_of(data)), expected, atol=1e-12)
    flat = np.ravel(expected)
    assert found.shapiro_w == pytest.approx(shapiro(flat).statistic)
    assert (found.skew, found.excess) == pytest.approx(
        ((flat**3).mean() / (flat**2).mean() ** 1.5, kurtosis(flat)), rel=1e-6
    )
    assert residual_normality(np.arange(6.0)[:, None] + np.arange(3.0)) is None


def test_subjects_with_missing_cells_are_left_out(tmp_path: Path) -> None:
    whole = analyse(crossed(tmp_path / "a", subjects=5), "dice")
    data = crossed(tmp_path / "b", subjects=7, s5={"dice": float("nan")}, s6={"dice": float("inf")})
    found = analyse(data, "dice")
    assert found.subjects == ("s0", "s1", "s2", "s3", "s4")
    where = "psoas left of dimension 3D, augmentation yes"
    assert found.left_out == {"s5": f"{where} undefined and 2 more", "s6": f"{where} infinite and 2 more"}
    assert [e.f for e in found.effects] == pytest.approx([e.f for e in whole.effects])


def test_undefined_conformity_leaves_a_subject_out(tmp_path: Path) -> None:
    data = crossed(tmp_path, s1={"dice": 0.0})
    assert analyse(data, "dice").left_out == {}
    assert list(analyse(data, "conformity").left_out) == ["s1"]


def test_too_little_is_said(tmp_path: Path) -> None:
    def note(*runs: str) -> str:
        found = analyse(load_runs(list(runs)), "dice")
        assert found == Anova("dice", found.within, found.subjects, found.left_out, note=found.note)
        return found.note

    few = write(tmp_path / "few", random_rows(0, subjects=2))
    assert note(str(few)) == "2 subjects with all cells, and 3 are needed."
    one = write(tmp_path / "one", [row(f"s{i}", "m", 0.8 + 0.01 * i) for i in range(4)])
    assert note(str(one)) == "One model and one muscle: nothing to compare."
    flat = write(tmp_path / "flat", [row(f"s{i}", m, 0.8) for i in range(4) for m in "ab"])
    assert "no variance to analyse" in note(str(flat))
    shifted = write(tmp_path / "shifted", [row(f"s{i}", m, 0.5 + 0.01 * i) for i in range(4) for m in "ab"])
    assert "no error variance" in note(str(shifted))
    folders = [write(tmp_path / str(i), random_rows(i)) for i in range(3)]
    runs = [f"d={d},a={a}:{folder}" for (d, a), folder in zip(("2n", "2y", "3n"), folders, strict=True)]
    assert "3 of the 4 combinations of levels" in note(*runs)


def test_an_effect_without_error_has_no_f(tmp_path: Path) -> None:
    """The same run under two names: no difference at all, which is no F of 0/0."""
    folder = write(tmp_path, random_rows(0))
    found = analyse(load_runs([f"d=2D:{folder}", f"d=3D:{folder}"]), "dice")
    for effects in (found.effects, found.corrected):
        named = by_source(effects)
        assert (named["d"].f, named["d"].note) == (None, "no difference in any subject")
        assert named["d × muscle"].note == "no difference in any subject"
        assert named["muscle"].f is not None


def test_mauchly_needs_subjects(tmp_path: Path) -> None:
    rows = [
        row(f"s{s}", f"m{m}", 0.5 + np.random.default_rng((s, m)).uniform(0, 0.4)) for s in range(3) for m in range(5)
    ]
    found = analyse(load_runs([str(write(tmp_path, rows))]), "dice")
    assert found.corrected[0].note == "Mauchly's test needs more than 4 subjects"
    assert found.corrected[0].epsilon is not None


def test_without_pingouin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_runs([str(write(tmp_path, random_rows(0)))])
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(InputError, match=r"no package statsmodels.*GPL-3.*grn-monai\[scans\]"):
        analyse(data, "dice")
