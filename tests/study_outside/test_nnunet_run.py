"""The steps of a run, with stand-ins for nnU-Net's commands that leave the files that it leaves."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.data import scan_list
from grn_monai.metrics import dice_per_slice
from grn_monai.study.outside import nnunet
from grn_monai.study.state import cohort_digest
from grn_monai.study.status import Lock
from tests.metrics.layered import perturbed
from tests.study_outside.conftest import AFFINE, SHAPE, save

PLAN = """
plans = {"transpose_forward": [1, 0, 2], "configurations": {"2d": {
    "batch_size": 12, "patch_size": [32, 24], "spacing": [0.2, 0.3], "normalization_schemes": ["ZScoreNormalization"],
    "architecture": {"network_class_name": "a.b.PlainConvUNet", "arch_kwargs": {
        "strides": [[1, 1], [2, 2]], "features_per_stage": [32, 64]}}}}}
folder = pathlib.Path(os.environ["nnUNet_preprocessed"]) / "Dataset001_Study"
folder.mkdir(parents=True, exist_ok=True)
(folder / "nnUNetPlans.json").write_text(json.dumps(plans))
"""
TRAIN = """
fail = calls.parent / "fail"
if fail.exists():
    fail.unlink()
    print("RuntimeError: background workers are no longer alive")
    sys.exit(1)
"""
PREDICT = """
source, target = (pathlib.Path(sys.argv[sys.argv.index(o) + 1]) for o in ("-i", "-o"))
assert not target.exists()
target.mkdir()
for image in source.iterdir():
    name = image.name.replace("_0000", "")
    (target / name).write_bytes((calls.parent / "labels" / name).read_bytes())
"""


@pytest.fixture
def fake(cohort: Path, tmp_path: Path) -> Path:
    """An environment whose nnU-Net predicts the truth, perturbed."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    for name, body in (("plan_and_preprocess", PLAN), ("train", TRAIN), ("predict", PREDICT)):
        script = folder / "bin" / f"nnUNetv2_{name}"
        head = f"#!{sys.executable}\nimport json, os, pathlib, sys\ncalls = pathlib.Path({str(folder / 'calls')!r})\n"
        script.write_text(f"{head}calls.open('a').write({name!r} + chr(10))\n{body}")
        script.chmod(0o755)
    for i, name in enumerate(("x_1", "y_1")):
        save(folder / f"labels/{name}.nii.gz", perturbed(truth(cohort, name), i))
    return folder


def truth(cohort: Path, name: str) -> np.ndarray:
    return np.asarray(nib.load(cohort / f"labels/{name}.nii.gz").dataobj)


def calls(fake: Path) -> list[str]:
    return (fake / "calls").read_text().split()


def start(study: Path, fake: Path, *more: str) -> int:
    own = ["--fraction", "0.5", "--seed", "1", "--device", "cpu", "--workers", "1", "--nnunet", str(fake)]
    return nnunet.main([str(study), *own, *more])


@pytest.fixture
def folder(study: Path) -> Path:
    return study.parent / "out/outside/nnunet_2d/50pct/seed_1"


def rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def test_scores_of_every_slice(study: Path, fake: Path, folder: Path, cohort: Path) -> None:
    assert start(study, fake) == 0
    found = rows(folder / "evaluation/test_raw/slices.csv")
    # The rows of the bundles' evaluation: scans in the cohort's order, then planes, then slices.
    expected = [
        (item["subject"], item["scan"], plane, str(index))
        for item in scan_list(cohort)
        for plane, count in (("sagittal", SHAPE[0]), ("transverse", SHAPE[1]))
        for index in range(count)
    ]
    assert [tuple(row[key] for key in ("subject", "scan", "plane", "index")) for row in found] == expected
    y = truth(cohort, "y_1")
    dice = dice_per_slice(perturbed(y, 1), y, "transverse").mean(axis=1)
    np.testing.assert_allclose([float(r["dice_mean"]) for r in found[-SHAPE[1] :]], dice, atol=1e-5)
    assert {row["kind"] for row in rows(folder / "evaluation/test_raw/scans.csv")} == {"volume"}
    assert sorted(p.name for p in (folder / "evaluation/test_raw/predictions").iterdir()) == [
        "x_1.nii.gz",
        "y_1.nii.gz",
    ]


def test_record_and_status(study: Path, fake: Path, folder: Path) -> None:
    assert start(study, fake, "--epochs", "10", "--preset", "small", "--name", "nnunet_2d") == 0
    record, status = (json.loads((folder / f"{name}.json").read_text()) for name in ("run", "status"))
    assert (status["state"], status["error"]) == ("done", None)
    assert record["status"] == "completed"
    assert record["title"] == "nnU-Net 2d, small, 1 % of its iterations"
    assert record["iterations"] == 2500
    assert list(record["stages"]) == ["export", "plan", "training", "predict_test", "test_raw"]
    assert (record["planned"]["planned_batch_size"], record["planned"]["batch_size"]) == (12, 4)
    assert record["planned"]["slices_fix_axis"] == 1
    assert len(record["scans"]) == 2
    assert record["versions"]["grn-monai"]


def test_a_failed_stage_is_named_and_the_next_start_goes_on(
    study: Path, fake: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fake / "fail").touch()
    assert start(study, fake) == 1
    assert "background workers are no longer alive" in capsys.readouterr().err
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["stage"]) == ("failed", "training")
    assert "background workers are no longer alive" in status["error"]
    assert not (folder / "evaluation").exists()
    assert start(study, fake) == 0
    assert calls(fake) == ["plan_and_preprocess", "train", "train", "predict"]
    assert start(study, fake) == 0  # nothing is left to do
    assert calls(fake) == ["plan_and_preprocess", "train", "train", "predict"]
    assert "done before" in capsys.readouterr().out


def test_other_settings_do_not_mix(study: Path, fake: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(study, fake, "--epochs", "5") == 0
    before = (folder / "run.json").read_bytes()
    assert start(study, fake, "--epochs", "6") == 1
    assert "a run of other settings (epochs 5)" in capsys.readouterr().err
    assert (folder / "run.json").read_bytes() == before
    assert json.loads((folder / "status.json").read_text())["state"] == "done"


def test_another_cohort_with_the_same_list_is_refused(
    study: Path, fake: Path, folder: Path, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    shutil.copytree(cohort, own)
    study.write_text(study.read_text().replace(str(cohort), str(own)))
    assert start(study, fake) == 0
    assert json.loads((folder / "status.json").read_text())["cohort"] == cohort_digest(own)
    image = own / "images/a_1.nii.gz"
    image.write_bytes(image.read_bytes() + b"0")
    assert start(study, fake) == 1
    assert "a run of other settings (another cohort)" in capsys.readouterr().err
    # A record from before there was a digest stands by its list of scans.
    record = json.loads((folder / "run.json").read_text())
    del record["settings"]["cohort"]
    (folder / "run.json").write_text(json.dumps(record))
    assert start(study, fake) == 0


def test_methods_with_splits_of_their_own_give_it_none(
    study: Path, fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "  deep: {bundle: us_layers_supervised, options: {depth_axis: 1}}\n"
    study.write_text(study.read_text() + line)
    assert start(study, fake) == 2
    assert "runs that differ in depth_axis" in capsys.readouterr().err


def test_a_prediction_off_the_grid_fails(study: Path, fake: Path, folder: Path) -> None:
    moved = AFFINE.copy()
    moved[2, 3] += 0.5
    save(fake / "labels/y_1.nii.gz", np.zeros(SHAPE, np.uint8), moved)
    assert start(study, fake) == 1
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["stage"]) == ("failed", "test_raw")
    assert "1 scan that cannot be scored" in status["error"]
    assert "y_1" in status["error"]


def test_a_folder_in_use_is_left_alone(
    study: Path, fake: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = Lock(folder / ".lock")
    assert lock.acquire()
    assert start(study, fake) == 1
    assert "a run in progress" in capsys.readouterr().err
    lock.release()
    assert not (folder / "status.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--fraction", "0.1"], "--fraction 0.1: found none of the study; expected 0.5, 1"),
        (["--seed", "7"], "--seed 7: found none of the study; expected 0, 1"),
        (["--nnunet", "nowhere"], "found no nnU-Net; expected an environment with nnU-Net v2"),
    ],
)
def test_bad_input(study: Path, fake: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(study, fake, *more) == 2
    assert message in capsys.readouterr().err
    assert not (study.parent / "out").exists()
