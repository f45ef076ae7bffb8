"""What a run's folder is taken for: done, cut, of other settings."""

from __future__ import annotations

import hashlib
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from grn_monai.errors import InputError
from grn_monai.study import state
from grn_monai.study.commands import evaluation_command, training_command
from grn_monai.study.status import write_status
from tests.study.conftest import ROOT, Make, write_evaluation, write_run


def options_of(line: tuple[str, ...]) -> dict[str, str]:
    return {a[2:]: b for a, b in pairwise(line) if a.startswith("--")}


def test_commands_are_what_a_user_would_type(make: Make, tmp_path: Path) -> None:
    plan = make(methods={"b": {"bundle": "grn", "options": {"infer_batch_size": 2, "amp": False}}})
    run, out = plan.runs[0], tmp_path / "out"
    train = training_command(plan, run)
    assert train.folder == tmp_path / "bundles" / "grn"
    assert train.line[1:7] == ("-m", "monai.bundle", "run", "training", "--config_file", "['configs/train.yaml']")
    assert options_of(train.line) == {
        "config_file": "['configs/train.yaml']",
        "dataset_dir": str(tmp_path / "cohort"),
        "output_dir": str(out / "runs/b/5pct/seed_0"),
        "cache_dir": str(out / "cache"),
        "fraction": "0.05",
        "seed": "0",
        "width": "16",
        "epochs": "3",
        "patience": "3",
        "amp": "False",
    }
    score = evaluation_command(plan, run, "test", "raw")
    assert score.line[1:4] == ("-m", "monai.bundle", "run")
    assert options_of(score.line) == {
        "config_file": "['configs/train.yaml','configs/evaluate.yaml','configs/no_sge.yaml']",
        "dataset_dir": str(tmp_path / "cohort"),
        "output_dir": str(out / "runs/b/5pct/seed_0"),
        "seed": "0",
        "section": "test",
        "eval_dir": str(out / "runs/b/5pct/seed_0/evaluation/test_raw"),
        "surface_distances": "False",
        "width": "16",
        "infer_batch_size": "2",
        "amp": "False",
    }


@pytest.mark.parametrize(
    "value", [3, 0.05, 1e-4, True, None, [128, 128], ["a", "b, c"], {"a": [1, "x"]}, "text", "a,b", "1", "None", "/p q"]
)
def test_values_reach_a_bundle_as_they_are(value: Any) -> None:
    from fire.parser import DefaultParseValue

    from grn_monai.study.commands import as_argument

    read = DefaultParseValue(as_argument(value))
    assert read == value
    assert type(read) is type(value)


def test_stages_follow_each_other(make: Make) -> None:
    plan = make(sections=["test", "validation"])
    run = plan.runs[1]
    assert state.todo(plan, run) == ["training", "test_raw", "test_sge", "validation_raw", "validation_sge"]
    write_run(plan, run)
    assert state.todo(plan, run) == ["test_raw", "test_sge", "validation_raw", "validation_sge"]
    write_evaluation(plan, run, "test", "sge")
    assert state.todo(plan, run) == ["test_raw", "validation_raw", "validation_sge"]


@pytest.mark.parametrize(
    ("epochs", "status", "done"),
    [(3, "completed", True), (2, "completed", True), (3, "running", False), (3, "failed: x", False)],
)
def test_an_early_stop_is_an_end_and_a_cut_is_not(make: Make, epochs: int, status: str, done: bool) -> None:
    plan = make()
    write_run(plan, plan.runs[0], reached=epochs, status=status)
    assert state.trained(plan, plan.runs[0]) is done


def test_a_run_without_its_weights_is_not_done(make: Make) -> None:
    plan = make()
    (write_run(plan, plan.runs[0]) / "models" / "model.pt").unlink()
    assert not state.trained(plan, plan.runs[0])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"width": 8}, "width 8, now 16"),
        ({"fraction": 0.1}, "fraction 0.1, now 0.05"),
        ({"seed": 4}, "seed 4, now 0"),
        ({"amp": True}, "amp True, now False"),
        ({"network_def": {"_target_": "VNet"}}, "network_def {'_target_': 'VNet'}, now"),
        ({"epochs": 9}, "epochs 9, now 3"),
        ({"patience": 1}, "patience 1, now 3"),
        ({"dataset_dir": "/elsewhere"}, "dataset_dir /elsewhere, now"),
        ({"train": {"trainer": {"_target_": "Other"}}}, "train#trainer#_target_ Other, now Plain"),
    ],
)
def test_other_settings_are_named(make: Make, config: dict[str, Any], words: str) -> None:
    plan = make()
    folder = write_run(plan, plan.runs[0], **config)
    with pytest.raises(InputError, match="a run of other settings") as info:
        state.todo(plan, plan.runs[0])
    assert words in str(info.value)
    assert str(info.value).startswith(str(folder))


def test_several_differences_are_all_named(make: Make) -> None:
    plan = make()
    write_run(plan, plan.runs[0], width=8, amp=True)
    assert sorted(state.differences(plan, plan.runs[0], None)) == ["amp True, now False", "width 8, now 16"]


@pytest.mark.parametrize(
    "config",
    [
        {"device": "cuda"},
        {"cache_dir": "/x"},
        {"amp": "false"},  # a switch as monai.bundle hands it over
        {"width": 16.0},
        {"computed": "$2 / 30"},  # an expression may be written anew
    ],
)
def test_what_changes_no_result_is_no_difference(make: Make, config: dict[str, Any]) -> None:
    plan = make()
    write_run(plan, plan.runs[0], **config)
    assert state.differences(plan, plan.runs[0], None) == []


def test_an_id_that_train_yaml_got_since_is_no_difference(make: Make, bundles: Path) -> None:
    plan = make()
    folder = write_run(plan, plan.runs[0])
    record = json.loads((folder / "run.json").read_text())
    del record["config"]["amp"], record["config"]["width"]
    (folder / "run.json").write_text(json.dumps(record))
    assert state.differences(plan, plan.runs[0], None) == ["width None, now 16"]  # asked for by the plan


def test_overlays_are_compared(make: Make) -> None:
    plan = make(methods={"a": {"bundle": "plain", "overlays": ["network_big", "augment"]}})
    run = plan.runs[0]
    network = {"_target_": "UNet", "channels": [16, 32], "dropout": 0.0}
    train = {"trainer": {"_target_": "Plain"}, "extra": [1, 2]}
    write_run(plan, run, network_def=network, train=train)
    assert state.differences(plan, run, None) == []
    write_run(plan, run, train=train)
    assert state.differences(plan, run, None) == ["network_def#channels [8, 16], now [16, 32]"]
    write_run(plan, run, network_def=network)
    assert state.differences(plan, run, None) == ["train#extra None, now [1, 2]"]


def test_an_overlay_taken_out_of_the_plan_is_seen_by_the_command(make: Make) -> None:
    plan = make()
    folder = write_run(plan, plan.runs[0])
    record = json.loads((folder / "run.json").read_text())
    record["command"] = ["__main__.py", "run", "--config_file", "['configs/train.yaml','configs/augment.yaml']"]
    (folder / "run.json").write_text(json.dumps(record))
    assert state.differences(plan, plan.runs[0], None) == ["configs train, augment, now train"]


def test_more_epochs_go_on_where_there_is_a_checkpoint(make: Make) -> None:
    plan = make()
    run = plan.runs[0]
    folder = write_run(plan, run, reached=2, epochs=2, patience=2)
    assert state.differences(plan, run, None) == ["epochs 2, now 3, and no checkpoint.pt to go on from"]
    (folder / "checkpoint.pt").touch()
    assert state.todo(plan, run) == ["training", "test_raw"]


@pytest.mark.parametrize("bundle", ["us_layers_supervised", "us_layers_semi", "us_layers_grn_plus"])
def test_more_epochs_go_on_where_the_checkpoint_is_taken(make: Make, bundle: str) -> None:
    """As CheckpointHandler will see it: the bundle's own `identity` says whether other epochs are another run."""
    overlays = ["method_uamt"] if bundle.endswith("semi") else []
    method = {"bundle": bundle, "overlays": overlays}
    plan = make(bundles=str(ROOT / "bundles"), methods={"a": method}, options={}, fractions={1.0: {"epochs": 3}})
    run = plan.runs[0]
    values = run.method.bundle.values(run.method.configs())
    parser = ConfigParser()
    parser.read_config([str(run.method.bundle.folder / "configs" / f"{c}.yaml") for c in run.method.configs()])
    folder = write_run(plan, run)
    options = {"epochs": 2, "patience": 2, "fraction": 1.0, "seed": 0, "dataset_dir": str(plan.cohort)}
    record = {"status": "completed", "epochs": 2, "config": {**parser.get(), **options}}
    (folder / "run.json").write_text(json.dumps(record, default=str))
    (folder / "checkpoint.pt").touch()
    named = any("epochs" in (one.get("identity") or {}) for one in values["train"]["handlers"])
    assert named == bundle.endswith("semi")
    spread = ["epochs 2, now 3, over which its schedule is spread"] if named else []
    assert [d for d in state.differences(plan, run, None) if d.startswith("epochs")] == spread
    record["status"] = "running"  # cut: the checkpoint is refused all the same, and without one it starts anew
    (folder / "run.json").write_text(json.dumps(record, default=str))
    assert [d for d in state.differences(plan, run, None) if d.startswith("epochs")] == spread
    (folder / "checkpoint.pt").unlink()
    assert not [d for d in state.differences(plan, run, None) if d.startswith("epochs")]


def test_scores_of_other_weights_are_made_anew(make: Make) -> None:
    plan = make()
    run = plan.runs[0]
    folder = write_run(plan, run)
    resolved = {"ckpt_path": "/where/it/was/model.pt"}
    digest = hashlib.sha256(b"weights").hexdigest()
    scores = write_evaluation(plan, run, "test", "raw", resolved=resolved, ckpt_sha256="0")
    assert state.evaluated(plan, run, "test", "raw")
    later = (scores / "metrics.json").stat().st_mtime + 5
    os.utime(folder / "run.json", (later, later))  # trained on
    assert not state.evaluated(plan, run, "test", "raw")
    write_evaluation(plan, run, "test", "raw", resolved=resolved, ckpt_sha256=digest)
    os.utime(folder / "run.json", (later, later))  # copied, with the same weights
    assert state.evaluated(plan, run, "test", "raw")


@pytest.mark.parametrize("changes", [{"status": "2 scans failed"}, {"config": {"section": "test", "width": 8}}])
def test_incomplete_or_other_scores_are_made_anew(make: Make, changes: dict[str, Any]) -> None:
    plan = make()
    write_run(plan, plan.runs[0])
    write_evaluation(plan, plan.runs[0], "test", "raw", **changes)
    assert state.todo(plan, plan.runs[0]) == ["test_raw"]


def test_the_digest_tells_cohorts_apart_and_not_places(make: Make, cohort: Path, tmp_path: Path) -> None:
    first = state.cohort_digest(cohort)
    moved = cohort.rename(tmp_path / "moved")
    assert state.cohort_digest(moved) == first
    (moved / "images" / "test.nii.gz").write_bytes(b"12")
    assert state.cohort_digest(moved) != first
    (moved / "simulation.json").write_text('{"settings": {"seed": 0}}')
    simulated = state.cohort_digest(moved)
    (moved / "images" / "test.nii.gz").write_bytes(b"1234")  # other compression of the same voxels
    assert state.cohort_digest(moved) == simulated
    (moved / "simulation.json").write_text('{"settings": {"seed": 1}}')
    assert state.cohort_digest(moved) != simulated
    assert state.cohort_digest(tmp_path / "none") is None


def test_a_moved_study_keeps_its_runs_and_another_cohort_does_not_pass(make: Make) -> None:
    plan = make()
    folder = write_run(plan, plan.runs[0], dataset_dir="/on/another/machine")
    write_status(folder, "done", "test_raw", cohort="aa")
    assert state.differences(plan, plan.runs[0], "aa") == []
    assert state.differences(plan, plan.runs[0], "bb") == ["another cohort"]


def test_time_counts_every_part(make: Make) -> None:
    plan = make()
    run = plan.runs[1]
    folder = write_run(plan, run)
    record = json.loads((folder / "run.json").read_text()) | {"earlier": [{"seconds": 40.0}, {"seconds": None}]}
    (folder / "run.json").write_text(json.dumps(record))
    write_evaluation(plan, run, "test", "raw")
    write_evaluation(plan, run, "test", "sge")
    assert state.seconds(plan, run) == 60 + 40 + 2 * 30


def test_epoch_is_read_from_the_history(make: Make) -> None:
    plan = make()
    folder = write_run(plan, plan.runs[0])
    assert state.epoch(plan, plan.runs[0]) == 0
    (folder / "history.csv").write_text("epoch,seconds\n1,2.0\n2,2.0\n")
    assert state.epoch(plan, plan.runs[0]) == 2
    (folder / "history.csv").write_text("damaged")
    assert state.epoch(plan, plan.runs[0]) == 0
