"""A tiny study of real bundles through the command line: simulated, trained, killed, resumed, scored."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.study.conftest import ROOT

PLAN = {
    "name": "tiny",
    "cohort": {
        "path": "cohort",
        "simulate": "--subjects 4 --scans 4 --split 2 1 1 --split-scans 2 1 1 --shape 20 16 40 --workers 1",
    },
    "bundles": str(ROOT / "bundles"),
    "output": "out",
    "options": {"slice_size": [32, 32], "device": "cpu", "batch_size": 8},
    "fractions": {0.5: {"epochs": 30, "val_interval": 5}},
    "methods": {
        "unet": {"bundle": "us_layers_supervised"},
        "grn_plus": {"bundle": "us_layers_grn_plus", "options": {"base_channels": 4}},
        "bad": {"bundle": "us_layers_supervised", "options": {"learning_rate": 1e30}},
    },
}


def study(file: Path, *arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "grn_monai.cli", "study", str(file), "--jobs", "2", "--threads", "1", *arguments]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_study_survives_a_stop_and_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(PLAN))
    runs = {name: tmp_path / "out" / "runs" / name / "50pct" / "seed_0" for name in PLAN["methods"]}  # type: ignore[attr-defined]
    first = study(file, "--only", "unet", "--only", "grn_plus")
    end = time.monotonic() + 300
    while not (runs["grn_plus"] / "checkpoint.pt").is_file():
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, error = first.communicate(timeout=60)
    assert first.returncode == 143, error
    second = study(file)
    out, error = second.communicate(timeout=600)
    assert second.returncode == 1, error
    assert "1 of 3 runs failed:\n  bad/50pct/seed_0: training: found loss nan" in error
    assert "simulating" not in out  # it was there
    for name in ("unet", "grn_plus"):
        record = json.loads((runs[name] / "run.json").read_text())
        assert record["status"] == "completed"
        assert json.loads((runs[name] / "status.json").read_text())["state"] == "done"
        with open(runs[name] / "history.csv", newline="") as text:
            assert [int(row["epoch"]) for row in csv.DictReader(text)] == list(range(1, 31))
        assert not (runs[name] / "checkpoint.pt").exists()
        modes = {"unet": ["test_raw"], "grn_plus": ["test_raw", "test_sge"]}[name]
        for mode in modes:
            scores = json.loads((runs[name] / "evaluation" / mode / "metrics.json").read_text())
            assert 0 <= scores["decoded"]["mean"] <= 1
            assert len(list((runs[name] / "evaluation" / mode / "predictions").glob("*_seg.nii.gz"))) == 1
    cut = json.loads((runs["grn_plus"] / "run.json").read_text())
    assert cut["first_epoch"] > 1  # went on from its checkpoint
    assert cut["earlier"][0]["status"] == "running"
    record = json.loads((tmp_path / "out" / "study.json").read_text())
    assert record["simulated"] is True
    assert record["provenance"]["versions"]["monai"]
