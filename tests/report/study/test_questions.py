"""Families of comparisons, and what is asked and printed where."""

from __future__ import annotations

from pathlib import Path

import pytest

from grn_monai.report.study import load_study
from grn_monai.report.study.analysis import Analysis
from grn_monai.report.study.effects import effects_table
from grn_monai.report.study.tables import control_tables, dice_tables
from tests.report.study.made import constant, write_evaluation
from tests.report.study.test_tables import GRN, METHODS, SCORES, every_test_table, gained, named, row, study


def test_one_comparison_has_one_corrected_p_wherever_it_stands(tmp_path: Path) -> None:
    methods = {
        **METHODS,
        "sel": {"title": "GRN-SEL", **GRN, "bundle": "us_layers_grn_sel"},
        "wide": {"title": "Wide", "bundle": "us_layers_supervised", "group": "control"},
    }
    scores = {**SCORES, ("wide", 0.05, 0, "test_raw"): gained(0.41), ("sel", 0.05, 0, "test_raw"): gained(0.42)}
    analysis = Analysis(study(tmp_path, scores, methods=methods, fractions=[0.05]))
    layers = named(dice_tables(analysis), "layers_5pct")
    (tests,) = every_test_table(analysis)
    (controls,) = control_tables(analysis)
    effects = effects_table(analysis)
    assert effects is not None
    holm = "p permutation Holm"
    sel = row(layers, "GRN-SEL")["difference to U-Net"].parts[holm]
    assert sel == row(tests, "GRN-SEL")["Difference"].parts[holm]
    assert sel == dict(effects.rows)["RAug: GRN-SEL S(x) − U-Net"][0].parts[holm]
    sge = dict(effects.rows)["SGE: GRN+, S(G(x)) − S(x)"][0]
    assert sge.parts[holm] == row(controls, "GRN+")["difference to GRN+ w. SGE"].parts[holm]
    plus = row(layers, "GRN+ w. SGE")["difference to U-Net"].parts[holm]
    assert plus == row(controls, "U-Net")["difference to GRN+ w. SGE"].parts[holm]
    every = [frozenset(pair) for family in analysis.families for pair in family.pairs]
    assert len(every) == len(set(every))
    marks = [cell.marks for table in dice_tables(analysis) if table.key.startswith("labels") for _, r in table.rows
             for cell in r]  # fmt: skip
    assert set(marks) == {""}


def test_the_family_has_its_planned_size_while_runs_are_missing(tmp_path: Path) -> None:
    table = named(dice_tables(Analysis(study(tmp_path, SCORES, fractions=[0.05]))), "layers_5pct")
    whole = row(table, "GRN+")["difference to U-Net"].parts["p permutation Holm"]
    few = {key: dice for key, dice in SCORES.items() if key[0] != "mt"}
    table = named(dice_tables(Analysis(study(tmp_path / "few", few, fractions=[0.05]))), "layers_5pct")
    assert row(table, "GRN+")["difference to U-Net"].parts["p permutation Holm"] == whole == 0.75


def test_a_mean_of_fewer_seeds_is_not_called_best(tmp_path: Path) -> None:
    scores = {
        ("unet", 0.05, 0, "test_raw"): constant(0.7),
        ("unet", 0.05, 1, "test_raw"): constant(0.3),  # a subject that is harder to learn from
        ("mt", 0.05, 0, "test_raw"): constant(0.65),
        ("plus", 0.05, 0, "test_raw"): constant(0.6),
        ("plus", 0.05, 1, "test_raw"): constant(0.2),
    }
    table = named(dice_tables(Analysis(study(tmp_path, scores, fractions=[0.05], seeds=[0, 1]))), "layers_5pct")
    best = {name: row(table, name)["overall"].best for name in ("U-Net", "Mean Teacher", "GRN+")}
    assert best == {"U-Net": True, "Mean Teacher": False, "GRN+": False}


def test_results_from_outside_are_never_best_nor_corrected_and_lack_seeds(tmp_path: Path) -> None:
    results = study(tmp_path, SCORES, fractions=[0.05], seeds=[0, 1, 2])
    write_evaluation(results.folder / "outside/nnunet/5pct/seed_0/evaluation/test_raw", constant(0.95))
    analysis = Analysis(load_study(results.folder))
    outside = row(named(dice_tables(analysis), "layers_5pct"), "nnunet")
    assert outside["overall"].value == pytest.approx(95)
    assert not any(cell.best for cell in outside.values())
    assert "1 of 3 seeds" in outside["overall"].below
    assert (outside["overall"].marks, outside["difference to U-Net"].marks) == ("", "")
    assert "p 0.250, not corrected" in outside["difference to U-Net"].below
    assert not any(
        place.entrant.method.key == "nnunet" for f in analysis.families for pair in f.pairs for place in pair
    )
    assert row(every_test_table(analysis)[0], "nnunet")["Holm"].below == ("in no family",)


def test_printed_values_stand_only_in_their_table_and_name_it(tmp_path: Path) -> None:
    methods = {**METHODS, "seg": {"title": "Seg", "bundle": "us_layers_supervised", "overlays": ["network_seg"]}}
    scores = {**SCORES, ("unet", 1.0, 0, "test_raw"): constant(0.8), ("seg", 1.0, 0, "test_raw"): constant(0.8)}
    tables = dice_tables(Analysis(study(tmp_path, scores, methods=methods)))
    networks = named(tables, "networks_100pct")
    cell = row(networks, "U-Net")["overall, printed"]
    assert (cell.value, cell.below) == (80.62, ("its layers average 69.91",))
    assert any("GRN+ Table 3" in note for note in networks.notes)
    grn = named(tables, "labels_grn")
    assert grn.columns == ["5 % labels", "5 % labels, printed", "100 % labels"]  # 80.62 is of another paper's table
    assert not any("printed" in column for column in named(tables, "labels_semi").columns)
    assert not any("printed" in column for column in named(tables, "layers_100pct").columns)


def test_no_effect_of_unlabelled_images_where_there_are_none(tmp_path: Path) -> None:
    methods = {
        "sel": {"title": "GRN-SEL", "bundle": "us_layers_grn_sel"},
        "ssl": {"title": "GRN-SSL", "bundle": "us_layers_grn_ssl"},
    }
    scores = {(name, f, 0, "test_raw"): gained(0.4) for name in methods for f in (0.05, 1.0)}
    table = effects_table(Analysis(study(tmp_path, scores, methods=methods)))
    assert row(table, "SSL: GRN-SSL − GRN-SEL")["5 % labels"].value == 0
    assert "100 % labels" not in (table.columns if table else ())
