from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grn_monai.labels import LAYER_NAMES
from grn_monai.report.study import StudyResults, load_study
from grn_monai.report.study.analysis import Analysis, Place
from grn_monai.report.study.effects import effects_table, not_inferior_table, test_tables
from grn_monai.report.study.entrants import Entrant, roles
from grn_monai.report.study.formats import Entry, StudyTable
from grn_monai.report.study.tables import ablation_table, control_tables, dice_tables
from tests.report.study.made import constant, write_evaluation, write_study

every_test_table = test_tables
del test_tables  # pytest would take it for a test

GRN = {"bundle": "us_layers_grn_plus", "modes": ["raw", "sge"]}
METHODS: dict[str, dict[str, Any]] = {
    "unet": {"title": "U-Net", "bundle": "us_layers_supervised"},
    "mt": {"title": "Mean Teacher", "bundle": "us_layers_semi", "overlays": ["method_mean_teacher"]},
    "plus": {"title": "GRN+", **GRN},
}
STEPS = (0.1, 0.2, 0.3)  # what each subject gains


def by_subject(values: Sequence[float]) -> np.ndarray:
    """Every slice and layer of a subject has its value."""
    return np.repeat(np.asarray(values), 4)[:, None] * np.ones(6)


def gained(base: float, factor: float = 1.0) -> np.ndarray:
    return by_subject([base + factor * step for step in STEPS])


def study(tmp_path: Path, scores: Mapping[tuple[str, float, int, str], np.ndarray], **options: Any) -> StudyResults:
    methods = options.pop("methods", METHODS)
    return load_study(write_study(tmp_path / "s", methods, scores, **options))


SCORES = {
    ("unet", 0.05, 0, "test_raw"): constant(0.4),
    ("mt", 0.05, 0, "test_raw"): gained(0.4, -1),
    ("plus", 0.05, 0, "test_raw"): gained(0.4),
    ("plus", 0.05, 0, "test_sge"): gained(0.5),
}


def row(table: StudyTable | None, name: str) -> dict[str, Entry]:
    assert table is not None
    return dict(zip(table.columns, dict(table.rows)[name], strict=True))


def named(tables: Sequence[StudyTable], key: str) -> StudyTable:
    return next(table for table in tables if table.key == key)


def test_layer_table_by_hand(tmp_path: Path) -> None:
    scores = {**SCORES, ("unet", 0.05, 0, "test_raw"): constant(0.4)}
    scores["unet", 0.05, 0, "test_raw"][:, 3] = 0.1
    table = named(dice_tables(Analysis(study(tmp_path, scores, fractions=[0.05]))), "layers_5pct")
    assert [name for name, _ in table.rows] == ["U-Net", "Mean Teacher", "GRN+", "GRN+ w. SGE"]
    unet, plus = row(table, "U-Net"), row(table, "GRN+")
    assert unet["deep fat"].value == pytest.approx(10)
    assert unet["muscle"].value == pytest.approx(40)
    assert unet["overall"].value == pytest.approx(35)  # (5 · 40 + 10) / 6
    assert plus["overall"].value == pytest.approx(60)
    # Four slices each of 50, 60, 70: SD = √(800 / 11), half-width 1.96 · SD / √12.
    half = 1.96 * np.sqrt(800 / 11) / np.sqrt(12)
    assert plus["overall"].half == pytest.approx(half, rel=1e-5)
    assert plus["overall"].parts["slices low"] == pytest.approx(60 - half, rel=1e-5)
    assert plus["overall"].parts["slices"] == 12
    assert plus["overall"].parts["subjects"] == 3
    assert "subjects low" not in plus["overall"].parts  # three subjects are too few for a bootstrap
    difference = plus["difference to U-Net"]
    assert difference.value == pytest.approx(25)
    assert difference.parts["p permutation subjects"] == 2 / 8
    assert difference.parts["p permutation Holm"] == pytest.approx(3 * 2 / 8)
    best = {name: cells["overall"].best for name in dict(table.rows) if (cells := row(table, name))}
    assert best == {"U-Net": False, "Mean Teacher": False, "GRN+": False, "GRN+ w. SGE": True}
    assert row(table, "U-Net")["difference to U-Net"].text == "reference"


def test_marks_are_of_each_test(tmp_path: Path) -> None:
    """Three subjects earn no *, however clear; slices earn a †. With twelve subjects both are earned."""
    few = named(dice_tables(Analysis(study(tmp_path, SCORES, fractions=[0.05]))), "layers_5pct")
    assert row(few, "GRN+")["overall"].marks == "†"
    assert "no corrected p can be below 0.750, so no * can be earned" in " ".join(few.notes)
    names = tuple(f"p{i:02d}" for i in range(12))
    better = np.repeat(np.linspace(0.5, 0.6, 12), 4)[:, None] * np.ones(6)
    many = {
        ("unet", 0.05, 0, "test_raw"): constant(0.4, names),
        ("plus", 0.05, 0, "test_raw"): better,
        ("plus", 0.05, 0, "test_sge"): constant(0.4, names),
    }
    one = named(dice_tables(Analysis(study(tmp_path / "one", many, fractions=[0.05], subjects=names))), "layers_5pct")
    assert row(one, "GRN+")["overall"].marks == "(*)†"  # another training may say otherwise
    assert "One seed: no difference here is claimed beyond these trainings." in one.notes
    seeds = {(name, 0.05, 1, mode): dice + 0.001 * (name == "plus") for (name, _, _, mode), dice in many.items()}
    seeds["plus", 0.05, 1, "test_sge"] = constant(0.4, names)
    results = study(tmp_path / "many", many | seeds, fractions=[0.05], seeds=[0, 1], subjects=names)
    table = named(dice_tables(Analysis(results)), "layers_5pct")
    assert row(table, "GRN+")["overall"].marks == "*†"
    assert row(table, "GRN+")["difference to U-Net"].below[1].startswith("and seeds +")
    assert row(table, "GRN+ w. SGE")["overall"].marks == ""
    assert row(table, "GRN+ w. SGE")["difference to U-Net"].below[-1] == "identical scores"
    assert "earned" not in " ".join(table.notes)
    assert "3 (methods against U-Net)" in " ".join(table.notes)


def test_seeds_are_averaged_and_their_spread_shown(tmp_path: Path) -> None:
    scores = {
        ("unet", 0.05, 0, "test_raw"): constant(0.4),
        ("unet", 0.05, 1, "test_raw"): constant(0.5),
        ("plus", 0.05, 0, "test_raw"): constant(0.6),
        ("plus", 0.05, 0, "test_sge"): constant(0.6),
    }
    table = named(dice_tables(Analysis(study(tmp_path, scores, fractions=[0.05], seeds=[0, 1]))), "layers_5pct")
    unet, plus = row(table, "U-Net"), row(table, "GRN+")
    assert unet["overall"].value == pytest.approx(45)
    assert unet["overall"].parts["SD over seeds"] == pytest.approx(10 / np.sqrt(2))
    assert "SD 7.1 over 2 seeds" in unet["overall"].below
    assert "1 of 2 seeds" in plus["overall"].below
    # Only seed 0 is shared, so the difference is 60 − 40, not 60 − 45.
    assert plus["difference to U-Net"].value == pytest.approx(20)
    assert "over the 1 seed that both have" in plus["difference to U-Net"].below[-1]


def test_rows_without_scores_stay_and_say_why(tmp_path: Path) -> None:
    some = {key: dice for key, dice in SCORES.items() if key[0] != "mt"}
    table = named(dice_tables(Analysis(study(tmp_path, some, fractions=[0.05]))), "layers_5pct")
    cells = row(table, "Mean Teacher")
    assert cells["overall"].value is None
    assert cells["overall"].below == ("not run",)
    assert cells["muscle"].shown == "–"
    assert cells["difference to U-Net"].value is None


def test_without_the_reference_there_are_scores_and_no_tests(tmp_path: Path) -> None:
    some = {key: dice for key, dice in SCORES.items() if key[0] != "unet"}
    tables = dice_tables(Analysis(study(tmp_path, some, fractions=[0.05])))
    table = named(tables, "layers_5pct")
    assert "difference to U-Net" not in table.columns
    assert "No tests: the reference, U-Net, has no scores here." in table.notes
    assert every_test_table(Analysis(study(tmp_path / "again", some, fractions=[0.05]))) == []


def test_one_method_alone(tmp_path: Path) -> None:
    methods = {"unet": METHODS["unet"]}
    results = study(tmp_path, {("unet", 1.0, 0, "test_raw"): constant(0.4)}, methods=methods, fractions=[1.0])
    analysis = Analysis(results)
    (table,) = dice_tables(analysis)
    assert row(table, "U-Net")["overall"].value == pytest.approx(40)
    assert not row(table, "U-Net")["overall"].best
    assert every_test_table(analysis) == []
    assert effects_table(analysis) is None
    assert not_inferior_table(analysis) is None
    assert control_tables(analysis) == []
    assert ablation_table(analysis, Analysis(results, "validation")) is None


def test_a_method_of_the_user_appears_in_its_group(tmp_path: Path) -> None:
    methods = {**METHODS, "mine": {"title": "My method", "bundle": "my_bundle", "group": "my group"}}
    scores = {**SCORES, ("mine", 0.05, 0, "test_raw"): constant(0.8)}
    tables = dice_tables(Analysis(study(tmp_path, scores, methods=methods, fractions=[0.05])))
    assert row(named(tables, "layers_5pct"), "My method")["overall"].value == pytest.approx(80)
    assert [name for name, _ in named(tables, "labels_semi").rows][-1] == "My method"


def test_tables_follow_groups(tmp_path: Path) -> None:
    methods = {
        **METHODS,
        "seg": {"title": "SegResNet", "bundle": "us_layers_supervised", "overlays": ["network_segresnet"]},
        "wide": {"title": "Wide", "bundle": "us_layers_supervised", "group": "control"},
        "single": {"title": "Single stage", **GRN, "modes": ["sge"], "group": "ablation"},
    }
    scores = {
        **SCORES,
        ("seg", 0.05, 0, "test_raw"): constant(0.5),
        ("wide", 0.05, 0, "test_raw"): constant(0.45),
        ("single", 0.05, 0, "test_sge"): constant(0.3),
    }
    results = study(tmp_path, scores, methods=methods, fractions=[0.05])
    write_evaluation(results.folder / "outside/nnunet/5pct/seed_0/evaluation/test_raw", constant(0.9))
    results = load_study(results.folder)
    analysis = Analysis(results)
    names = {table.key: [name for name, _ in table.rows] for table in dice_tables(analysis)}
    assert names["layers_5pct"] == ["U-Net", "Mean Teacher", "GRN+", "GRN+ w. SGE", "nnunet"]
    assert names["networks_5pct"] == ["U-Net", "SegResNet", "GRN+", "GRN+ w. SGE", "nnunet"]
    assert names["labels_grn"] == ["U-Net", "GRN+", "GRN+ w. SGE"]
    (controls,) = control_tables(analysis)
    assert [name for name, _ in controls.rows] == ["U-Net", "GRN+", "GRN+ w. SGE", "Wide"]
    # Against S(G(x)) = 50 + 10 · step, mean 70.
    assert row(controls, "Wide")["difference to GRN+ w. SGE"].value == pytest.approx(45 - 70)
    ablation = ablation_table(analysis, Analysis(results, "validation"))
    assert ablation is not None
    assert [name for name, _ in ablation.rows] == ["U-Net", "GRN+", "GRN+ w. SGE", "Single stage w. SGE"]
    assert "no scores of validation slices" in " ".join(ablation.notes)


def test_ablation_is_of_validation_slices_where_they_are_scored(tmp_path: Path) -> None:
    methods = {**METHODS, "single": {"title": "Single stage", **GRN, "modes": ["sge"], "group": "ablation"}}
    scores = {
        **SCORES,
        ("unet", 0.05, 0, "validation_raw"): constant(0.2),
        ("single", 0.05, 0, "test_sge"): constant(0.3),
        ("single", 0.05, 0, "validation_sge"): constant(0.25),
    }
    results = study(tmp_path, scores, methods=methods, fractions=[0.05], sections=["test", "validation"])
    table = ablation_table(Analysis(results), Analysis(results, "validation"))
    assert row(table, "Single stage w. SGE")["overall"].value == pytest.approx(25)
    assert row(table, "U-Net")["overall"].value == pytest.approx(20)
    assert row(table, "GRN+")["overall"].below == ("not scored",)


def test_printed_values_stand_beside_and_empty_columns_are_left_out(tmp_path: Path) -> None:
    table = named(dice_tables(Analysis(study(tmp_path, SCORES, fractions=[0.05]))), "layers_5pct")
    assert row(table, "U-Net")["dermis, printed"].value == 7.06
    assert row(table, "Mean Teacher")["dermis, printed"].value is None
    assert "muscle, printed" not in table.columns
    assert any("another cohort" in note for note in table.notes)


def test_the_printed_key_may_differ_from_the_methods_own(tmp_path: Path) -> None:
    methods = {"base": {**METHODS["unet"], "printed": "unet"}}
    results = study(tmp_path, {("base", 0.05, 0, "test_raw"): constant(0.4)}, methods=methods, fractions=[0.05])
    table = named(dice_tables(Analysis(results)), "layers_5pct")
    assert row(table, "U-Net")["overall, printed"].value == 43.97


def test_effects_by_hand(tmp_path: Path) -> None:
    methods = {
        "unet": METHODS["unet"],
        "sel": {"title": "GRN-SEL", **GRN, "bundle": "us_layers_grn_sel"},
        "ssl": {"title": "GRN-SSL", **GRN, "bundle": "us_layers_grn_ssl"},
    }
    scores = {
        ("unet", 0.05, 0, "test_raw"): constant(0.4),
        ("sel", 0.05, 0, "test_raw"): gained(0.4),
        ("sel", 0.05, 0, "test_sge"): gained(0.45),
        ("ssl", 0.05, 0, "test_raw"): gained(0.2),
        ("ssl", 0.05, 0, "test_sge"): gained(0.4, 2),
        ("unet", 1.0, 0, "test_raw"): constant(0.8),
    }
    table = effects_table(Analysis(study(tmp_path, scores, methods=methods)))
    assert table is not None
    assert table.columns == ["5 % labels"]  # at 100 % there is nothing to subtract
    found = {name: cells[0] for name, cells in table.rows}
    assert {name: round(cell.value or 0, 3) for name, cell in found.items()} == {
        "RAug: GRN-SEL S(x) − U-Net": 20,
        "SGE: GRN-SEL, S(G(x)) − S(x)": 5,
        "SGE: GRN-SSL, S(G(x)) − S(x)": 40,
        "SSL: GRN-SSL − GRN-SEL": -20,
        "SSL: GRN-SSL − GRN-SEL with SGE": 15,
    }
    sge = found["SGE: GRN-SSL, S(G(x)) − S(x)"]  # 30, 40, 50 by subject
    half = 1.96 * np.sqrt(800 / 11) / np.sqrt(12)
    assert sge.parts["slices high"] == pytest.approx(40 + half, rel=1e-5)
    assert sge.parts["p permutation subjects"] == 0.25
    assert sge.parts["p permutation Holm"] == 1
    assert sge.marks == "†"


def test_not_inferior_is_against_the_reference_with_all_labels(tmp_path: Path) -> None:
    close = by_subject([0.801, 0.799, 0.8005])
    scores = {
        **SCORES,
        ("plus", 0.05, 0, "test_sge"): close,
        ("unet", 1.0, 0, "test_raw"): constant(0.8),
    }
    table = not_inferior_table(Analysis(study(tmp_path, scores), margin=0.01))
    assert table is not None
    cells = row(table, "GRN+ w. SGE, 5 %")
    from scipy.stats import ttest_1samp

    expected = ttest_1samp([0.001, -0.001, 0.0005], -0.01, alternative="greater").pvalue
    assert cells["Difference"].parts["p not inferior subjects"] == pytest.approx(expected, rel=1e-4)
    assert float(cells["Holm"].shown.removeprefix("< ")) >= round(expected, 3)
    assert row(table, "GRN+, 5 %")["not inferior, subjects"].shown > "0.9"


def test_every_test_stands_beside_the_others(tmp_path: Path) -> None:
    analysis = Analysis(study(tmp_path, SCORES, fractions=[0.05]))
    (table,) = every_test_table(analysis)
    cells = row(table, "GRN+")
    assert cells["permutation, subjects"].shown == "0.250"
    assert cells["Holm"].shown == "0.750"
    assert cells["t-test, slices"].shown == "< 0.001"
    who = roles(analysis.results)
    assert who.reference is not None
    assert who.grn_plus is not None
    place, target = Place(Entrant(who.grn_plus, "raw"), 0.05), Place(who.reference, 0.05)
    comparison = analysis.compare(place, target, "deep fat")
    assert comparison is not None
    assert comparison.mean == pytest.approx(0.2)
    assert LAYER_NAMES[4] == "deep fat"
