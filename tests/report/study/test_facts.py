from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from grn_monai.report.study import StudyResults, load_study
from grn_monai.report.study.analysis import Analysis
from grn_monai.report.study.facts import cohort_facts, misprints, provenance_facts, runs_table, volume_tables
from tests.report.conftest import save
from tests.report.study.made import constant, write_evaluation, write_study, write_training

METHODS = {
    "unet": {"title": "U-Net", "bundle": "us_layers_supervised"},
    "mt": {"title": "Mean Teacher", "bundle": "us_layers_semi"},
}


def results(tmp_path: Path) -> StudyResults:
    by_subject = np.repeat([0.4, 0.5, 0.6], 4)[:, None] * np.ones(6)
    scores = {
        ("unet", 0.05, 0, "test_raw"): constant(0.5),
        ("unet", 0.05, 1, "test_raw"): by_subject,
        ("mt", 0.05, 0, "test_raw"): constant(0.7),
    }
    study = write_study(tmp_path / "s", METHODS, scores, fractions=[0.05], seeds=[0, 1])
    write_training(study / "runs/unet/5pct/seed_1", 1, iterations=100, epochs=3, seconds=90.0, scans=["a", "b"])
    return load_study(study)


def test_volumes_by_hand(tmp_path: Path) -> None:
    found = results(tmp_path)
    (table,) = volume_tables(Analysis(found))
    rows = dict(table.rows)
    fused, decoded, error, bias = rows["U-Net"]
    # Over two seeds each subject has 45, 50 and 55.
    assert fused.value == decoded.value == pytest.approx(50)
    assert fused.parts["subjects low"] == pytest.approx(45, abs=2)
    assert (error.value, bias.value) == pytest.approx((0.5, -0.25))
    assert rows["Mean Teacher"][0].best
    assert not fused.best


def test_a_layer_without_thickness_is_left_out_of_the_mean(tmp_path: Path) -> None:
    found = results(tmp_path)
    file = found.folder / "runs/mt/5pct/seed_0/evaluation/test_raw/scans.csv"
    with open(file, newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["thickness_error_mm"] = "" if row["layer"] == "dermis" else "1.5"
    with open(file, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (table,) = volume_tables(Analysis(load_study(found.folder)))
    assert dict(table.rows)["Mean Teacher"][2].value == pytest.approx(1.5)


@pytest.mark.parametrize("kind", ["volume", None])
def test_volumes_that_were_not_scored_are_a_dash(tmp_path: Path, kind: str | None) -> None:
    """Results from outside have one kind of volume only, or none."""
    found = results(tmp_path)
    file = found.folder / "runs/mt/5pct/seed_0/evaluation/test_raw/scans.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.unlink()
    if kind:
        file.write_text("".join(line for line in lines if f",{kind}," not in line))
    fused, decoded, error, _ = dict(volume_tables(Analysis(load_study(found.folder)))[0].rows)["Mean Teacher"]
    assert (fused.value, fused.below) == (None, ("not scored",))
    assert (decoded.value is None) == (error.value is None) == (kind is None)


def test_runs_say_what_they_took(tmp_path: Path) -> None:
    rows = dict(runs_table(results(tmp_path)).rows)
    shown = [cell.shown for cell in rows["U-Net, 5 %"]]
    assert shown == ["2 of 2", "0, 1", "1 to 2", "2 to 3", "96 to 100", "0.5 to 1.5"]
    assert rows["Mean Teacher, 5 %"][0].below == ("1 missing",)


def test_cohort_sizes_and_labelled_scans(tmp_path: Path) -> None:
    import json

    found = results(tmp_path)
    lines = dict(cohort_facts(found))
    assert "could not be read" in lines["cohort"]
    assert lines["scored, test"] == "3 subjects, 3 scans, 12 slices"
    assert lines["labelled at 5 %"] == "seed 0: s9_a; seed 1: a, b"
    cohort = found.folder / "cohort"
    save(cohort / "x.nii.gz", np.zeros((2, 2, 2), np.uint8))
    items = [{"image": "x.nii.gz", "label": "x.nii.gz", "subject": "a", "scan": f"a{i}"} for i in range(2)]
    (cohort / "dataset.json").write_text(json.dumps({"labels": {"0": "background"}, "training": items}))
    assert dict(cohort_facts(found))["cohort, training"] == "1 subject, 2 scans"


def test_commands_name_the_study_and_no_disk(tmp_path: Path) -> None:
    found = results(tmp_path)
    command = ["__main__.py", "run", "--dataset_dir", "/data/somebody/cohort", "--config_file", "['a.yaml', 'b.yaml']"]
    write_training(found.folder / "runs/mt/5pct/seed_0", 0, command=command, platform="Linux x86_64", threads=2)
    facts = provenance_facts(load_study(found.folder))
    assert facts["commands"]["U-Net"] == (
        "python -m monai.bundle run training --output_dir STUDY/runs/unet/5pct/seed_0"
    )
    assert facts["commands"]["Mean Teacher"] == (
        "python -m monai.bundle run --dataset_dir cohort --config_file \"['a.yaml', 'b.yaml']\""
    )
    assert facts["commits"] == {"0123456789ab": 3}
    assert facts["versions"]["monai"] == {"1.6.1": 3}
    assert facts["machines"] == {"Linux x86_64, 2 threads": 1}


def test_outside_results_have_the_title_of_their_record(tmp_path: Path) -> None:
    found = results(tmp_path)
    place = found.folder / "outside/nnunet/5pct/seed_0"
    write_evaluation(place / "evaluation/test_raw", constant(0.9))
    write_training(place, 0, title="nnU-Net 2d")
    again = load_study(found.folder)
    assert again.methods["nnunet"].title == "nnU-Net 2d"
    assert dict(volume_tables(Analysis(again))[0].rows)["nnU-Net 2d"][0].value == pytest.approx(90)


def test_each_misprint_names_its_tables_once() -> None:
    lines = misprints()
    assert len(lines) == len(set(lines))
    assert any(line.startswith("GRN+ Table 3: ") for line in lines)
