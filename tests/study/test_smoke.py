"""`studies/smoke.yaml` as a user runs it: every kind of method trained and scored, and the report of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from grn_monai.study import load_plan
from tests.study.conftest import ROOT


def grn_monai(*arguments: str) -> str:
    line = [sys.executable, "-m", "grn_monai.cli", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_smoke_study_and_its_report(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    content |= {"bundles": str(ROOT / "bundles"), "output": "out"}
    content["cohort"]["path"] = "cohort"
    file = tmp_path / "smoke.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    grn_monai("study", str(file), "--jobs", "2", "--threads", "1")
    plan = load_plan(file)
    listed = json.loads(grn_monai("study", str(file), "--list", "--json"))
    assert {run["state"] for run in listed["runs"]} == {"done"}
    for run in plan.runs:
        for section, mode in plan.evaluations(run):
            assert (plan.evaluation(run, section, mode) / "slices.csv").is_file()
    grn_monai("report", str(file))
    page = (plan.output / "report" / "report.html").read_text()
    assert all(method.title in page for method in plan.methods)
    assert (plan.output / "report" / "report.json").is_file()
