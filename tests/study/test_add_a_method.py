"""The worked example of docs/add_a_method.md, taken from the page, trained and scored in a study."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.study.conftest import ROOT

PAGE = (ROOT / "docs" / "add_a_method.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)[number]


def test_the_example_of_the_page_runs_in_a_study(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bundles" / "us_layers_semi", tmp_path / "bundles" / "us_layers_semi")
    (tmp_path / "my_methods.py").write_text(block("python"))
    overlay = tmp_path / "bundles" / "us_layers_semi" / "configs" / "method_entropy.yaml"
    overlay.write_text(block("yaml"))
    cohort = "--subjects 4 --scans 4 --split 2 1 1 --split-scans 2 1 1 --shape 20 16 40 --workers 1"
    # Made here: the study would look for data_prep beside `bundles`.
    simulate = [sys.executable, "-m", "data_prep", "simulate", "--out", str(tmp_path / "cohort"), *cohort.split()]
    subprocess.run(simulate, cwd=ROOT, check=True, capture_output=True)
    plan = {
        "name": "example",
        "cohort": {"path": "cohort"},
        "bundles": "bundles",
        "output": "out",
        "options": {"slice_size": [32, 32], "device": "cpu"},
        "fractions": {0.5: {"epochs": 2}},
        "methods": yaml.safe_load(block("yaml", 1)),
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "grn_monai.cli", "study", "study.yaml"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "out" / "runs" / "entropy" / "50pct" / "seed_0"
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # The entropy of a network that has hardly learnt is near its maximum, and it had its weight.
    assert 0.5 < float(rows[0]["unsupervised_loss"]) < 1
    assert 0 < float(rows[0]["unsupervised_weight"]) < float(rows[1]["unsupervised_weight"]) < 0.1
    scores = json.loads((folder / "evaluation" / "test_raw" / "metrics.json").read_text())
    assert 0 < scores["slice"]["mean"] < 1
