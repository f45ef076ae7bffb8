"""The same grid by Snakemake, over pretended bundles. Skipped where Snakemake is not installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from grn_monai.study import Plan
from grn_monai.study.status import read_status
from tests.study.conftest import ROOT, Make

OWN = ROOT / ".venv-snakemake" / "bin" / "snakemake"
SNAKEMAKE = os.environ.get("SNAKEMAKE") or (str(OWN) if OWN.is_file() else shutil.which("snakemake"))
pytestmark = pytest.mark.skipif(not SNAKEMAKE, reason="Snakemake is not installed (make setup-snakemake)")

COMMAND = """#!/bin/sh
cd {root}
case "$1" in
  report) mkdir -p {out}/report && touch {out}/report/report.html ;;
  study) shift; exec {python} -m tests.study.pretend "$@" --behave "$(cat {behave})" ;;
esac
"""


def snakemake(plan: Plan, behave: dict[str, Any], *arguments: str) -> subprocess.Popen[str]:
    folder = plan.file.parent
    (folder / "behave.json").write_text(json.dumps(behave))
    command = folder / "grn-monai"
    parts = {"root": ROOT, "out": plan.output, "python": sys.executable, "behave": folder / "behave.json"}
    command.write_text(COMMAND.format(**parts))
    command.chmod(0o755)
    how = arguments if "--profile" in arguments else ("--cores", "2", "--keep-going", *arguments)
    line = [str(SNAKEMAKE), "-s", str(ROOT / "studies" / "Snakefile"), *how]
    line += ["--config", f"study={plan.file}", f"grn_monai={command}", "threads=1"]
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        line,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def states(plan: Plan) -> list[str]:
    return [read_status(plan.folder(run))["state"] for run in plan.runs]


@pytest.mark.slow
def test_a_failed_run_stops_no_other_and_is_tried_again(make: Make) -> None:
    plan = make(seeds=[0])
    first = snakemake(plan, {"a/100pct/seed_0 training": {"code": 1, "say": "ValueError: x"}})
    out, _ = first.communicate(timeout=300)
    assert first.returncode == 1, out
    assert states(plan) == ["done", "done", "failed", "done"]
    assert read_status(plan.folder(plan.runs[2]))["error"] == "ValueError: x"  # Snakemake has removed nothing
    assert (plan.output / "report" / "report.html").is_file()  # of what there is
    (plan.output / "report" / "report.html").unlink()
    second = snakemake(plan, {})
    out, _ = second.communicate(timeout=300)
    assert second.returncode == 0, out
    assert states(plan) == ["done"] * 4
    assert (plan.output / "report" / "report.html").is_file()
    logs = [(plan.folder(run) / "train.log").read_text().count("begins") for run in plan.runs]
    assert logs == [1, 1, 1, 1]
    shutil.rmtree(plan.folder(plan.runs[0]))  # and its mark stays
    third = snakemake(plan, {})
    out, _ = third.communicate(timeout=300)
    assert third.returncode == 0, out
    assert states(plan) == ["done"] * 4
    assert [(plan.folder(run) / "train.log").read_text().count("begins") for run in plan.runs] == logs
    assert (plan.output / "study.json").is_file()


@pytest.mark.slow
def test_a_kill_loses_nothing(make: Make) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    folder = plan.folder(plan.runs[0])
    first = snakemake(plan, {"a/5pct/seed_0 training": {"sleep": 2.0}})
    end = time.monotonic() + 120
    while not (folder / "checkpoint.pt").is_file():
        assert first.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    second = snakemake(plan, {}, "--rerun-incomplete", "--unlock")
    second.communicate(timeout=120)
    third = snakemake(plan, {}, "--rerun-incomplete")
    out, _ = third.communicate(timeout=300)
    assert third.returncode == 0, out
    assert states(plan) == ["done", "done"]
    lines = (folder / "train.log").read_text().splitlines()
    assert [line for line in lines if line.startswith("epoch")] == ["epoch 1", "epoch 2", "epoch 3"]


@pytest.mark.slow
def test_the_slurm_profile_asks_for_what_it_says(make: Make, tmp_path: Path) -> None:
    python = Path(str(SNAKEMAKE)).with_name("python")
    if subprocess.run([python, "-c", "import snakemake_executor_plugin_slurm"], capture_output=True).returncode:
        pytest.skip("snakemake-executor-plugin-slurm is not installed")
    # In the place of a cluster: a command that takes the call down and refuses it.
    for name in ("sbatch", "sacct", "scontrol", "sinfo", "squeue", "scancel", "sacctmgr", "sshare"):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(
            f'#!/bin/sh\necho "$@" >> {tmp_path / "calls"}; exit 1\n' if name == "sbatch" else "#!/bin/sh\n"
        )
        command.chmod(0o755)
    plan = make(seeds=[0])
    profile = ROOT / "studies" / "profiles" / "slurm"
    out, _ = snakemake(plan, {}, "--profile", str(profile), "--retries", "0").communicate(timeout=300)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == len(plan.runs), out
    for run in plan.runs:
        call = next(call for call in calls if f"run:run={run.id}" in call)
        assert all(f" {option} " in call for option in ("-t 480", "--mem 16000", "--cpus-per-task=4", "--gpus=1"))
    assert (plan.output / "study.json").is_file()  # prepared here, not by a job


def test_a_bad_plan_is_one_clear_line(make: Make, tmp_path: Path) -> None:
    plan = make()
    plan.file.write_text(plan.file.read_text().replace("seeds", "seedz"))
    out, _ = snakemake(plan, {}).communicate(timeout=120)
    assert "seedz: found an unknown key; expected a key that studies have. Did you mean seeds?" in out
    assert not (tmp_path / "out").exists()
