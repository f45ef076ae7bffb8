from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grn_monai.errors import InputError
from grn_monai.report.study import find_study, load_study
from grn_monai.report.study.facts import problems
from grn_monai.report.study.plan import fraction_name, fraction_of
from tests.report.study.made import constant, write_evaluation, write_study, write_training

METHODS = {
    "unet": {"title": "U-Net", "bundle": "us_layers_supervised"},
    "grn": {"title": "GRN+", "bundle": "us_layers_grn_plus", "modes": ["raw", "sge"]},
}


def scores(value: float = 0.5) -> dict[tuple[str, float, int, str], np.ndarray]:
    return {
        ("unet", 0.05, 0, "test_raw"): constant(value),
        ("grn", 0.05, 0, "test_raw"): constant(0.6),
        ("grn", 0.05, 0, "test_sge"): constant(0.7),
    }


def test_scores_rows_and_facts_are_those_of_the_files(tmp_path: Path) -> None:
    dice = constant(0.5)
    dice[1, 2] = 0.25
    study = write_study(tmp_path / "s", METHODS, {**scores(), ("unet", 0.05, 0, "test_raw"): dice}, fractions=[0.05])
    results = load_study(study)
    rows = results.rows["test"]
    assert rows.subjects == tuple(s for s in ("s1", "s2", "s3") for _ in range(4))
    assert rows.planes[:4] == ("sagittal", "sagittal", "transverse", "transverse")
    assert rows.indices[:4] == (0, 1, 0, 1)
    found = results.dice("unet", 0.05)
    assert found is not None
    assert found.shape == (1, 12, 6)
    assert found.dtype == np.float32
    assert np.allclose(found[0], dice)
    (run,) = results.select("unet", 0.05)
    assert (run.state, run.reason) == ("done", "")
    assert (run.iterations, run.epochs, run.seconds, run.labelled_scans) == (96, 2, 30.0, ["s9_a"])
    assert "config" not in run.record  # would be most of the memory of a large study
    assert run.history["val_dice_loss"][1] == 0.45
    assert np.isnan(run.history["val_dice_loss"][0])
    volume = run.evaluations["test_raw"].volumes["decoded"]
    assert volume.scans == ("s1_a", "s2_a", "s3_a")
    assert volume.dice[0] == pytest.approx(dice[:4].mean(axis=0))
    assert (volume.thickness_error_mm == 0.5).all()
    assert results.methods["grn"].group == "grn"
    assert problems(results) == []


def test_rows_are_kept_once(tmp_path: Path) -> None:
    results = load_study(write_study(tmp_path / "s", METHODS, scores()))
    assert len({id(e.rows) for run in results.runs for e in run.evaluations.values()}) == 1


def test_a_run_with_other_slices_is_left_out_and_named(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05])
    file = study / "runs/unet/5pct/seed_0/evaluation/test_raw/slices.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))  # same slices, another order
    results = load_study(study)
    assert results.dice("unet", 0.05) is None
    assert results.dice("grn", 0.05) is not None
    (run,) = results.select("unet")
    assert run.state == "partial"
    assert any("U-Net at 5 %, seed 0" in note and "do not pair" in note for note in problems(results))


def test_states_and_reasons(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05, 0.1, 1.0], seeds=[0, 1])
    base = study / "runs/unet"
    (base / "5pct/seed_1").mkdir()
    status = {"state": "failed", "stage": "training", "error": "NaN in the loss"}
    (base / "5pct/seed_1/status.json").write_text(json.dumps(status))
    write_training(base / "10pct/seed_0", 0)
    write_training(base / "10pct/seed_1", 1, status="running")
    write_training(base / "100pct/seed_0", 0, status="failed: ValueError: no")
    (base / "100pct/seed_1/evaluation/test_raw").mkdir(parents=True)
    results = load_study(study)
    found = {(r.fraction, r.seed): (r.state, r.reason) for r in results.select("unet")}
    assert found == {
        (0.05, 0): ("done", ""),
        (0.05, 1): ("failed", "failed at training: NaN in the loss"),
        (0.1, 0): ("missing", "trained, not scored"),
        (0.1, 1): ("running", "not finished at test_raw"),
        (1.0, 0): ("failed", "training failed: ValueError: no"),
        (1.0, 1): ("missing", "not run"),
    }
    assert len(problems(results)) == 5  # those not run are one line


def test_a_mode_that_is_not_scored_makes_a_run_partial(tmp_path: Path) -> None:
    some = {key: dice for key, dice in scores().items() if key[3] != "test_sge"}
    (run,) = load_study(write_study(tmp_path / "s", METHODS, some, fractions=[0.05])).select("grn")
    assert (run.state, run.reason) == ("partial", "not scored: test_sge")


@pytest.mark.parametrize("text", ["", "subject,scan\n", "subject,scan,plane,index\na,b,c,0\n"])
def test_a_broken_table_is_a_fault_of_its_run(tmp_path: Path, text: str) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05])
    (study / "runs/unet/5pct/seed_0/evaluation/test_raw/slices.csv").write_text(text)
    (run,) = load_study(study).select("unet")
    assert run.state == "partial"
    assert "slices.csv" in run.reason


def test_names_with_commas_and_quotes(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05], subjects=['a, "b"', "c", "d"])
    rows = load_study(study).rows["test"]
    assert set(rows.subjects) == {'a, "b"', "c", "d"}
    assert rows.indices[:2] == (0, 1)


@pytest.mark.parametrize("cell", ["", "x", "nan"])
def test_a_slice_without_a_score_is_a_fault(tmp_path: Path, cell: str) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05])
    file = study / "runs/unet/5pct/seed_0/evaluation/test_raw/slices.csv"
    file.write_text(file.read_text().replace(",0.5,", f",{cell},", 1))
    (run,) = load_study(study).select("unet")
    assert run.state == "partial"
    assert "test_raw is left out" in run.reason


def test_dice_out_of_range_is_a_fault(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(50.0), fractions=[0.05])
    (run,) = load_study(study).select("unet")
    assert "no fractions between 0 and 1" in run.reason


def test_results_from_outside_are_read_without_being_planned(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05])
    write_evaluation(study / "outside/nnunet/5pct/seed_0/evaluation/test_raw", constant(0.9))
    results = load_study(study)
    assert results.methods["nnunet"].group == "outside"
    dice = results.dice("nnunet", 0.05)
    assert dice is not None
    assert np.allclose(dice, 0.9)
    assert results.select("nnunet")[0].state == "done"


def test_time_of_a_resumed_run_counts_its_parts(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05])
    write_training(study / "runs/unet/5pct/seed_0", 0, earlier=[{"seconds": 12.0}, {"seconds": None}], seconds=30.0)
    assert load_study(study).select("unet")[0].seconds == 42.0


def test_a_study_is_found_by_its_yaml(tmp_path: Path) -> None:
    study = write_study(tmp_path / "runs/tiny", METHODS, scores())
    (tmp_path / "studies").mkdir()
    named = tmp_path / "studies/tiny.yaml"
    named.write_text("name: tiny\nmethods: {}\n")
    placed = tmp_path / "other.yaml"
    placed.write_text("name: x\noutput: runs/tiny\nmethods: {}\n")
    for path in (study, named, placed):
        found = find_study(path)
        assert found is not None
        assert found.resolve() == study.resolve()
        assert load_study(path).plan.name == "tiny"
    assert find_study(tmp_path) is None
    assert find_study(tmp_path / "nothing.yaml") is None


@pytest.mark.parametrize(
    ("text", "found"),
    [("", "no valid JSON"), ("{}", "no 'methods'"), ('{"methods": {}, "runs": [{"method": "a"}]}', "no 'fraction'")],
)
def test_a_broken_plan_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(InputError, match=found):
        load_study(tmp_path)


def test_a_study_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scores in any of 4 runs"):
        load_study(write_study(tmp_path / "s", METHODS, {}))


@pytest.mark.parametrize("fraction", [0.05, 0.125, 1.0, 0.3])
def test_fraction_names_go_both_ways(fraction: float) -> None:
    assert fraction_of(fraction_name(fraction)) == fraction
    assert fraction_of("seed_0") is None


def set_status(folder: Path, **status: Any) -> None:
    (folder / "status.json").write_text(json.dumps({"state": "done", "stage": "test_raw", "error": None} | status))


@pytest.mark.parametrize(
    ("status", "record", "state"),
    [
        ({"state": "failed", "stage": "training", "error": "a run of other settings"}, {}, "failed"),
        ({"state": "running", "stage": "training"}, {}, "running"),
        ({"state": "running", "stage": "training"}, {"status": "running"}, "running"),
        ({"state": "waiting", "stage": "training", "error": "stopped"}, {"status": "running"}, "running"),
        ({}, {"status": "failed: ValueError: no"}, "failed"),
        ({}, {"config": {"seed": 7}}, "other settings"),
        ({}, {"config": {"fraction": 0.1}}, "other settings"),
        ({}, {"config": {"width": 8}}, "other settings"),
        ({}, {"command": ["x", "--config_file", "['configs/train.yaml','configs/no.yaml']"]}, "other settings"),
    ],
)
def test_only_finished_trainings_of_the_plan_are_scored(
    tmp_path: Path, status: dict[str, Any], record: dict[str, Any], state: str
) -> None:
    methods = {**METHODS, "unet": {**METHODS["unet"], "options": {"width": 16}}}
    study = write_study(tmp_path / "s", methods, scores(), fractions=[0.05])
    folder = study / "runs/unet/5pct/seed_0"
    config = {"seed": 0, "fraction": 0.05, "width": "16"}
    assert load_study(study).dice("unet", 0.05) is not None
    write_training(folder, 0, **{**record, "config": {**config, **record.get("config", {})}})
    set_status(folder, **status)
    results = load_study(study)
    (run,) = results.select("unet")
    assert run.state == state
    assert results.dice("unet", 0.05) is None
    assert run.faults["test_raw"]
    assert run.reason in run.faults["test_raw"]


OPTIONS = {"amp": False, "size": [1, 2], "device": "cuda"}


def test_a_run_as_planned_is_scored_whatever_kind_its_values_have(tmp_path: Path) -> None:
    methods = {**METHODS, "unet": {**METHODS["unet"], "options": OPTIONS, "overlays": ["wide"]}}
    study = write_study(tmp_path / "s", methods, scores(), fractions=[0.05])
    command = ["x", "--config_file", "['configs/train.yaml','configs/wide.yaml']"]
    config = {"seed": 0, "fraction": 0.05, "amp": "false", "size": [1, 2], "device": "cpu"}
    write_training(study / "runs/unet/5pct/seed_0", 0, config=config, command=command)
    assert load_study(study).select("unet")[0].state == "done"


def test_a_training_on_another_cohort_is_left_out(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05])
    (study / "cohort").mkdir()
    (study / "cohort/dataset.json").write_text("{}")
    set_status(study / "runs/unet/5pct/seed_0", cohort="of-before")
    write_training(study / "runs/unet/5pct/seed_0", 0, config={"seed": 0})
    set_status(study / "runs/unet/5pct/seed_0", cohort="of-before")
    (run,) = load_study(study).select("unet")
    assert (run.state, run.evaluations) == ("other settings", {})
    assert "another cohort" in run.reason


@pytest.mark.parametrize(
    ("started", "same", "kept"), [("12:00", False, True), ("10:00", False, False), ("10:00", True, True)]
)
def test_scores_of_an_earlier_training_are_left_out(tmp_path: Path, started: str, same: bool, kept: bool) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05])
    folder = study / "runs/unet/5pct/seed_0"
    write_training(folder, 0, started="2026-01-01T11:00:00+0000")
    (folder / "models").mkdir()
    (folder / "models/model.pt").write_bytes(b"weights")
    sha = hashlib.sha256(b"weights" if same else b"others").hexdigest()
    own = {"status": "completed", "started": f"2026-01-01T{started}:00+0000", "ckpt_sha256": sha}
    own["resolved"] = {"ckpt_path": "/gone/models/model.pt"}
    (folder / "evaluation/test_raw/run.json").write_text(json.dumps(own))
    (run,) = load_study(study).select("unet")
    assert ("test_raw" in run.evaluations) == kept
    assert run.state == ("done" if kept else "partial")
    if not kept:
        assert "earlier training" in run.reason


def test_a_scoring_under_way_is_not_read_and_the_other_is(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05])
    folder = study / "runs/grn/5pct/seed_0"
    set_status(folder, state="running", stage="test_sge")
    (run,) = load_study(study).select("grn")
    assert run.state == "running"
    assert list(run.evaluations) == ["test_raw"]
    set_status(folder)
    (folder / "evaluation/test_sge/run.json").write_text(json.dumps({"status": "running"}))
    (run,) = load_study(study).select("grn")
    assert (run.state, list(run.evaluations)) == ("partial", ["test_raw"])


def test_options_of_single_runs_count_where_the_plan_has_them(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", METHODS, scores(), fractions=[0.05])
    write_training(study / "runs/unet/5pct/seed_0", 0, config={"epochs": 8})
    assert load_study(study).select("unet")[0].state == "done"
    plan = json.loads((study / "study.json").read_text())
    plan["runs"] = [{**run, "options": {"epochs": 32}} for run in plan["runs"]]
    (study / "study.json").write_text(json.dumps(plan))
    assert load_study(study).select("unet")[0].reason == "a training of other settings: epochs 8, planned 32"
