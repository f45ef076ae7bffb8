"""The worked example of docs/add_a_method.md, taken from the page, trained and scored in a study."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import fire
import monai.bundle
import pytest
import torch
import yaml

from data_prep.simulate.cohort import simulate_cohort
from data_prep.simulate.settings import Settings
from grn_monai.cli import main
from grn_monai.study import load_plan, state
from grn_monai.study.job import stage_command
from tests.study.conftest import ROOT

PAGE = (ROOT / "docs" / "add_a_method.md").read_text()


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)[number]


def test_the_example_of_the_page_runs_in_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "bundles" / "us_layers_semi", tmp_path / "bundles" / "us_layers_semi")
    (tmp_path / "my_methods.py").write_text(block("python"))
    overlay = tmp_path / "bundles" / "us_layers_semi" / "configs" / "method_entropy.yaml"
    overlay.write_text(block("yaml"))
    settings = Settings(split=(2, 1, 1), split_scans=(2, 1, 1), shape=(20, 16, 40))
    simulate_cohort(tmp_path / "cohort", settings, workers=1, progress=False)
    content = {
        "name": "example",
        "cohort": {"path": "cohort"},
        "bundles": "bundles",
        "output": "out",
        "options": {"slice_size": [32, 32], "device": "cpu"},
        "fractions": {0.5: {"epochs": 2}},
        "methods": yaml.safe_load(block("yaml", 1)),
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    plan = load_plan(tmp_path / "study.yaml")
    (run,) = plan.runs
    monkeypatch.syspath_prepend(str(tmp_path))
    # In this process: a study would start one for each, which takes most of a minute on a busy machine.
    while left := state.todo(plan, run):
        command = stage_command(plan, run, left[0])
        monkeypatch.chdir(command.folder)
        assert command.line[1:4] == ("-m", "monai.bundle", "run")
        fire.Fire({"run": monai.bundle.run}, command=list(command.line[3:]))
        assert left[0] not in state.todo(plan, run)
    folder = plan.folder(run)
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # The entropy of a network that has hardly learnt is near its maximum, and it had its weight.
    assert 0.5 < float(rows[0]["unsupervised_loss"]) < 1
    assert 0 < float(rows[0]["unsupervised_weight"]) < float(rows[1]["unsupervised_weight"]) < 0.1
    scores = json.loads((folder / "evaluation" / "test_raw" / "metrics.json").read_text())
    assert 0 < scores["slice"]["mean"] < 1
    identity = torch.load(folder / "checkpoint.pt", weights_only=True)["identity"]
    assert (identity["method"], identity["temperature"]) == ("entropy", "1.0")
    # The page's last commands, of this study instead of the laptop's, and without pictures.
    study, report = block("console").splitlines()
    assert study.startswith("PYTHONPATH=. grn-monai study studies/laptop.yaml --only 'entropy/*'")
    assert report == "grn-monai report studies/laptop.yaml"
    for name, option in (("study", "--prepare"), ("report", "--no-figures")):  # the runs are done
        assert main([name, str(tmp_path / "study.yaml"), option]) == 0
    page = (tmp_path / "out" / "report" / "report.md").read_text()
    assert "| Entropy minimisation | " in page
