from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grn_monai.report.study import load_study
from grn_monai.report.study.analysis import Analysis
from grn_monai.report.study.verdicts import Verdict, verdicts
from grn_monai.report.study.words import conventions
from tests.report.study.made import constant, write_study

NAMES = tuple(f"p{i:02d}" for i in range(12))
METHODS: dict[str, dict[str, Any]] = {
    "unet": {"title": "U-Net", "bundle": "us_layers_supervised"},
    "plus": {"title": "GRN+", "bundle": "us_layers_grn_plus", "modes": ["raw", "sge"]},
}
BEATS = "GRN+ beats U-Net at 5 % of the labels"


def steps(low: float, high: float) -> np.ndarray:
    return np.repeat(np.linspace(low, high, len(NAMES)), 4)[:, None] * np.ones(6)


def judged(tmp_path: Path, raw: np.ndarray, subjects: tuple[str, ...] = NAMES, **extra: Any) -> dict[str, Verdict]:
    scores: Mapping[tuple[str, float, int, str], np.ndarray] = {
        ("unet", 0.05, 0, "test_raw"): constant(0.5, subjects),
        ("plus", 0.05, 0, "test_raw"): raw,
        **extra.pop("scores", {}),
    }
    study = write_study(tmp_path / "s", extra.pop("methods", METHODS), scores, subjects=subjects, **extra)
    return {verdict.claim: verdict for verdict in verdicts(Analysis(load_study(study)))}


@pytest.mark.parametrize(
    ("low", "high", "verdict", "start"),
    [
        (0.51, 0.6, "shown", "Shown: +5.5 percentage points"),
        (0.4, 0.49, "opposite", "The opposite: −5.5 percentage points"),
        (0.45, 0.554, "not shown", "Not shown: +0.2 percentage points"),
    ],
)
def test_a_claim_can_be_shown_refuted_or_neither(
    tmp_path: Path, low: float, high: float, verdict: str, start: str
) -> None:
    found = judged(tmp_path, steps(low, high))[BEATS]
    assert found.verdict == verdict
    assert found.text.startswith(start)
    assert "permutation test over 12 subjects" in found.text
    assert "One seed: another training may say otherwise." in found.text


def test_no_difference_at_all_is_not_shown(tmp_path: Path) -> None:
    found = judged(tmp_path, constant(0.5, NAMES))[BEATS]
    assert found.verdict == "not shown"
    assert found.p == 1
    assert "identical scores" in found.text


def test_the_papers_test_is_quoted_where_it_says_otherwise(tmp_path: Path) -> None:
    # Few subjects, all better: slices are sure, three subjects cannot be.
    three = ("a", "b", "c")
    found = judged(tmp_path, np.repeat([0.6, 0.7, 0.8], 4)[:, None] * np.ones(6), three)[BEATS]
    assert found.verdict == "not shown"
    assert "would call it significant (p < 0.001)" in found.text
    assert "With 3 subjects and 1 claim no p can be small enough." in found.text


def test_claims_of_one_question_are_corrected_together(tmp_path: Path) -> None:
    sge = {("plus", 0.05, 0, "test_sge"): steps(0.55, 0.65)}
    found = judged(tmp_path, steps(0.51, 0.6), scores=sge)
    tested = [verdict for verdict in found.values() if verdict.p is not None]
    assert len(tested) == 3  # GRN+, GRN+ w. SGE, and SGE itself
    assert {verdict.p for verdict in tested} == {2 / 2**12}
    assert {verdict.corrected for verdict in tested} == {3 * 2 / 2**12}
    assert "after Holm over 3 claims" in tested[0].text


def test_what_is_missing_is_not_tested(tmp_path: Path) -> None:
    found = judged(tmp_path, steps(0.51, 0.6))
    sge = found["SGE helps GRN+ at 100 % of the labels"]
    assert sge.verdict == "not tested"
    assert sge.text == "Not tested: GRN+ w. SGE not run; GRN+ not run."
    assert found["GRN+ w. SGE beats U-Net at 5 % of the labels"].text == "Not tested: GRN+ w. SGE not scored."


def test_comparators_and_controls_are_asked_after_the_main_claims(tmp_path: Path) -> None:
    methods = {
        **METHODS,
        "mt": {"title": "Mean Teacher", "bundle": "us_layers_semi"},
        "wide": {"title": "Wide", "bundle": "us_layers_supervised", "group": "control"},
    }
    scores = {
        ("plus", 0.05, 0, "test_sge"): steps(0.6, 0.65),
        ("mt", 0.05, 0, "test_raw"): constant(0.55, NAMES),
        ("wide", 0.05, 0, "test_raw"): constant(0.7, NAMES),
    }
    found = judged(tmp_path, steps(0.51, 0.6), methods=methods, scores=scores, fractions=[0.05])
    assert list(found)[-2:] == [
        "GRN+ w. SGE beats Mean Teacher at 5 % of the labels",
        "GRN+ w. SGE beats the control Wide at 5 % of the labels",
    ]
    assert [verdict.verdict for verdict in found.values()][-2:] == ["shown", "opposite"]
    assert list(found.values())[-1].corrected == 2 / 2**12  # a family of its own


def test_one_subject_has_no_interval_and_no_verdict(tmp_path: Path) -> None:
    found = judged(tmp_path, constant(0.9, ("a",)), ("a",))[BEATS]
    assert found.verdict == "not shown"
    assert "one subject, so no interval" in found.text


def test_a_study_without_grn_makes_no_claims(tmp_path: Path) -> None:
    study = write_study(
        tmp_path / "s", {"unet": METHODS["unet"]}, {("unet", 1.0, 0, "test_raw"): constant(0.5)}, fractions=[1.0]
    )
    assert verdicts(Analysis(load_study(study))) == []


def test_conventions_name_the_floor_of_the_permutation_test(tmp_path: Path) -> None:
    study = write_study(
        tmp_path / "s", {"unet": METHODS["unet"]}, {("unet", 1.0, 0, "test_raw"): constant(0.5)}, fractions=[1.0]
    )
    said = dict(conventions(Analysis(load_study(study), margin=0.02)))
    assert "all 2ⁿ = 8 ways. With 3 subjects no p is below 0.25." in said["* permutation"]
    assert "margin of 2 percentage points" in said["Not inferior, equivalent"]
