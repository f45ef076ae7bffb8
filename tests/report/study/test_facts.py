from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from grn_monai.report.study import StudyResults, load_study
from grn_monai.report.study.analysis import Analysis
from grn_monai.report.study.facts import cohort_facts, misprints, problems, provenance_facts, runs_table
from grn_monai.report.study.volumes import thickness_tables, volume_tables
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
    assert "subjects low" not in fused.parts  # three subjects are too few for a bootstrap
    assert (error.value, bias.value) == pytest.approx((0.5, 0.25))
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


def test_biases_of_layers_do_not_cancel(tmp_path: Path) -> None:
    """One layer 0.4 mm too thick and the next as much too thin are an error of 0.4 mm, not of none."""
    found = results(tmp_path)
    file = found.folder / "runs/mt/5pct/seed_0/evaluation/test_raw/scans.csv"
    with open(file, newline="") as stream:
        rows = list(csv.DictReader(stream))
    sign = {row["layer"]: (-1) ** i for i, row in enumerate(rows[:6])}
    for row in rows:
        row["mean_thickness_error_mm"] = str(0.4 * sign[row["layer"]])
    with open(file, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    analysis = Analysis(load_study(found.folder))
    (table,) = volume_tables(analysis)
    assert dict(table.rows)["Mean Teacher"][3].value == pytest.approx(0.4)
    (layers,) = thickness_tables(analysis)
    cells = dict(layers.rows)["Mean Teacher"]
    assert [cell.below for cell in cells] == [("bias +0.40",), ("bias −0.40",)] * 3
    assert [cell.value for cell in cells] == pytest.approx([0.5] * 6)
    assert cells[1].parts["bias"] == pytest.approx(-0.4)


def test_what_is_missing_is_one_line_and_not_one_for_each_run(tmp_path: Path) -> None:
    scores = {("unet", 0.05, 0, "test_raw"): constant(0.5), ("mt", 0.05, 0, "test_raw"): constant(0.5)}
    study = write_study(tmp_path / "s", {**METHODS, "more": METHODS["mt"]}, scores, seeds=[0, 1, 2])
    for seed in (1, 2):
        write_training(study / f"runs/mt/5pct/seed_{seed}", seed, status="failed: ValueError: no")
        (study / f"runs/mt/5pct/seed_{seed}/status.json").unlink()
    assert problems(load_study(study)) == [
        "Mean Teacher at 5 %, seeds 1, 2: training failed: ValueError: no.",
        "Not run: 14 of 18 trainings: U-Net 5 of 6; Mean Teacher 3 of 6; all of Mean Teacher.",
    ]


def test_seeds_that_label_the_same_scans_are_named(tmp_path: Path) -> None:
    scores = {("unet", 0.05, seed, "test_raw"): constant(0.5) for seed in (0, 1, 2)}
    study = write_study(tmp_path / "s", METHODS, scores, fractions=[0.05], seeds=[0, 1, 2])
    write_training(study / "runs/unet/5pct/seed_2", 2, scans=["other"])
    note = dict(cohort_facts(load_study(study)))["note on 5 %"]
    assert note.startswith("seeds 0, 1 label the same scans")
    for seed in (0, 1, 2):
        write_training(study / f"runs/unet/5pct/seed_{seed}", seed, scans=[f"s{seed}"])
    assert "note on 5 %" not in dict(cohort_facts(load_study(study)))


def test_a_command_from_outside_can_be_typed_and_one_is_not_many(tmp_path: Path) -> None:
    found = results(tmp_path)
    command = ["nnunet.py", "studies/laptop.yaml", "--seed", "0"]
    git = {"commit": "0123456789abcdef", "changed_files": 1}
    write_training(found.folder / "runs/mt/5pct/seed_0", 0, command=command, platform="Linux", threads=1, git=git)
    facts = provenance_facts(load_study(found.folder))
    assert facts["commands"]["Mean Teacher"] == (
        "python -m grn_monai.study.outside.nnunet studies/laptop.yaml --seed 0"
    )
    assert facts["machines"] == {"Linux, 1 thread": 1}
    assert "0123456789ab with 1 changed file" in facts["commits"]
