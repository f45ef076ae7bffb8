"""The overlay multi_gpu_train.yaml of every bundle, with two gloo processes on the CPU."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.bundles.conftest import BUNDLES, EXTRA, ROOT

CASES = [(bundle, "") for bundle in BUNDLES]
CASES += [(b, "alternate" if "plus" in b else "joint") for b in BUNDLES if "grn" in b]


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "update"), CASES)
def test_two_processes_train_and_only_the_first_writes(bundle: str, update: str, cohort: Path, tmp_path: Path) -> None:
    options = {**EXTRA[bundle], "slice_size": "[32,32]", "epochs": 2, "batch_size": 4}
    options |= {"segmentor_update": update} if update else {}
    watch = tmp_path / "watch.yaml"
    watch.write_text(
        f'"+train#handlers":\n- _target_: tests.bundles.writes.NoteWrites\n  folder: {tmp_path / "notes"}\n'
    )
    (tmp_path / "notes").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         "-m", "monai.bundle", "run", "training", "--config_file",
         f"['configs/train.yaml','configs/multi_gpu_train.yaml','{watch}']",
         "--dataset_dir", str(cohort), "--output_dir", str(tmp_path / "run"),
         *(text for k, v in options.items() for text in (f"--{k}", str(v)))],
        cwd=ROOT / "bundles" / bundle,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    images = 36 if "fraction" in EXTRA[bundle] else 72  # one of two subjects labelled, or both
    assert json.loads((tmp_path / "run" / "run.json").read_text())["iterations"] == 2 * (images // 8)
    assert len(list((tmp_path / "run" / "tensorboard").glob("events*"))) == 2  # trainer and validator of rank 0
    with open(tmp_path / "run" / "history.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    wrote = {rank: (tmp_path / "notes" / f"{rank}.txt").read_text().splitlines() for rank in (0, 1)}
    assert any("checkpoint.pt" in line for line in wrote[0])
    assert any("history.csv" in line for line in wrote[0])
    assert wrote[1] == []
