from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grn_monai.report.study import load_study
from grn_monai.report.study.analysis import Analysis
from grn_monai.report.study.verdicts import Verdict, headline, verdicts
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


def seeds_of(low: float, high: float, spread: float) -> dict[tuple[str, float, int, str], np.ndarray]:
    """GRN+ with three seeds that differ by ± spread; U-Net with 50 in each."""
    found = {("unet", 0.05, seed, "test_raw"): constant(0.5, NAMES) for seed in (1, 2)}
    return found | {("plus", 0.05, seed, "test_raw"): steps(low, high) + (2 * seed - 3) * spread for seed in (1, 2)}


@pytest.mark.parametrize(
    ("low", "high", "verdict", "start"),
    [
        (0.51, 0.6, "shown", "Shown: +5.5 points of Dice"),
        (0.4, 0.49, "opposite", "The opposite: −5.5 points of Dice"),
        (0.45, 0.554, "not shown", "Not shown: +0.2 points of Dice"),
    ],
)
def test_a_claim_can_be_shown_refuted_or_neither(
    tmp_path: Path, low: float, high: float, verdict: str, start: str
) -> None:
    found = judged(tmp_path, steps(low, high), scores=seeds_of(low, high, 0.002), seeds=[0, 1, 2])[BEATS]
    assert found.verdict == verdict
    assert found.text.startswith(start)
    assert "over 12 subjects" in found.text
    assert "over subjects and 3 seeds" in found.text


@pytest.mark.parametrize(("low", "start"), [(0.51, "Shown"), (0.4, "The opposite,")])
def test_one_seed_shows_nothing_in_general(tmp_path: Path, low: float, start: str) -> None:
    found = judged(tmp_path, steps(low, low + 0.09))[BEATS]
    assert found.verdict.endswith(" for these trainings only")
    assert found.text.startswith(f"{start} for these trainings only (1 seed): ")


def test_seeds_that_differ_more_than_the_methods_show_nothing_in_general(tmp_path: Path) -> None:
    scores = seeds_of(0.51, 0.6, 0.15)
    found = judged(tmp_path, steps(0.51, 0.6), scores=scores, seeds=[0, 1, 2])[BEATS]
    assert found.corrected is not None
    assert found.corrected < 0.05
    assert found.verdict == "shown for these trainings only"
    assert "(3 seeds)" in found.text


def test_the_headline_comes_first_and_claims_nothing_of_one_seed(tmp_path: Path) -> None:
    scores = {("unet", 0.05, 0, "test_raw"): constant(0.5, NAMES), ("plus", 0.05, 0, "test_raw"): steps(0.51, 0.6)}
    analysis = Analysis(load_study(write_study(tmp_path / "one", METHODS, scores, subjects=NAMES)))
    lines = headline(verdicts(analysis), analysis)
    assert lines[0] == "Of 4 claims put to this study: 1 shown for these trainings only, 3 not tested yet."
    assert lines[1].startswith("There is one seed only, so nothing is claimed in general")
    scores |= seeds_of(0.51, 0.6, 0.002)
    study = write_study(tmp_path / "three", METHODS, scores, subjects=NAMES, seeds=[0, 1, 2])
    analysis = Analysis(load_study(study))
    lines = headline(verdicts(analysis), analysis)
    assert lines[:2] == ["Of 4 claims put to this study: 1 shown, 3 not tested yet.", f"Shown: {BEATS}."]
    assert lines[2].endswith("would call 1 of the 1 tested differences significant.")


def test_no_difference_at_all_is_not_shown(tmp_path: Path) -> None:
    found = judged(tmp_path, constant(0.5, NAMES))[BEATS]
    assert found.verdict == "not shown"
    assert found.p == 1
    assert "identical scores" in found.text


def test_few_subjects_show_nothing_whatever_the_slices_say(tmp_path: Path) -> None:
    # Few subjects, all better: slices are sure, three subjects cannot be.
    three = ("a", "b", "c")
    found = judged(tmp_path, np.repeat([0.6, 0.7, 0.8], 4)[:, None] * np.ones(6), three)[BEATS]
    assert found.verdict == "not shown"
    assert found.p_slices is not None
    assert found.p_slices < 0.001
    assert "With 3 subjects no corrected p can be small enough." in found.text


def test_claims_of_one_question_are_corrected_together(tmp_path: Path) -> None:
    sge = {("plus", 0.05, 0, "test_sge"): steps(0.55, 0.65)}
    found = judged(tmp_path, steps(0.51, 0.6), scores=sge)
    tested = [verdict for verdict in found.values() if verdict.p is not None]
    assert len(tested) == 3  # GRN+, GRN+ w. SGE, and SGE itself
    assert {verdict.p for verdict in tested} == {2 / 2**12}
    # Methods against U-Net at 5 % are one family of two, the effect of SGE there another of one.
    assert [verdict.corrected for verdict in tested] == [2 * 2 / 2**12, 2 * 2 / 2**12, 2 / 2**12]


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
    assert [verdict.verdict for verdict in found.values()][-2:] == [
        "shown for these trainings only",
        "opposite for these trainings only",
    ]
    assert list(found.values())[-1].corrected == 2 / 2**12  # a family of its own


def test_variants_and_help_of_unlabelled_images_where_all_are_labelled_are_no_claims(tmp_path: Path) -> None:
    methods = {
        "joint": {"title": "Joint", "bundle": "us_layers_grn_sel", "group": "grn", "options": {"update": "joint"}},
        **METHODS,
        "sel": {"title": "GRN-SEL", "bundle": "us_layers_grn_sel", "modes": ["raw", "sge"]},
        "ssl": {"title": "GRN-SSL", "bundle": "us_layers_grn_ssl", "modes": ["raw", "sge"]},
    }
    found = judged(tmp_path, steps(0.51, 0.6), methods=methods)
    assert not any("Joint" in claim for claim in found)
    assert "Reinforced augmentation (RAug) helps (GRN-SEL against U-Net) at 100 % of the labels" in found
    asked = [claim for claim in found if claim.startswith("Unlabelled images help")]
    assert len(asked) == 2
    assert all(claim.endswith("at 5 % of the labels") for claim in asked)


def test_one_subject_has_no_interval_and_no_verdict(tmp_path: Path) -> None:
    found = judged(tmp_path, constant(0.9, ("a",)), ("a",))[BEATS]
    assert found.verdict == "not shown"
    assert "1 subject, too few for an interval" in found.text


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
