"""The studies of the repository: each plan is sound, and what its bundles record is taken for what was planned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from grn_monai.study import load_plan, state
from tests.study.conftest import ROOT

STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_a_run_of_each_method_is_taken_for_the_planned_one(study: Path, tmp_path: Path) -> None:
    plan = load_plan(study, tmp_path)
    runs = {run.method.key: run for run in plan.runs}
    assert len(runs) == len(plan.methods)
    for run in runs.values():
        parser = ConfigParser()
        configs = run.method.bundle.folder / "configs"
        parser.read_config([str(configs / f"{name}.yaml") for name in run.method.configs()])
        options = {**run.options, "fraction": run.fraction, "seed": run.seed, "dataset_dir": str(plan.cohort)}
        known = run.method.bundle.ids(run.method.configs())
        for key, value in options.items():
            if key in known:
                parser[key] = value
        parser.parse(True)  # replaces macros and the spelling of references, as a run does before it is recorded
        record = {"config": parser.get() | {"epochs": run.epochs}, "status": "completed", "epochs": run.epochs}
        folder = plan.folder(run)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(record, default=str))
        assert state.differences(plan, run, None) == [], run.method.key
