"""Why commands failed; signals and kills of the runner, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from grn_monai.study import Plan
from grn_monai.study.process import reason
from grn_monai.study.status import LOCK_FILE, Lock, read_status
from tests.study.conftest import ROOT, Make


@pytest.mark.parametrize(
    ("log", "code", "text"),
    [
        ("a\nerror: x: found y; expected z. Do.\nNameError: later\n", 1, "x: found y; expected z. Do."),
        ("Traceback\n  File\nRuntimeError: first\n\nValueError: last\nbye\n", 1, "ValueError: last"),
        ("monai.utils.X\n  torch.cuda.OutOfMemoryError: no memory\n", 1, "torch.cuda.OutOfMemoryError: no memory"),
        ("10%\r20%\r30%", 3, "30%"),
        ("", 3, "exit 3 without a word"),
        ("anything", -9, "ended by SIGKILL (most likely for want of memory)"),
        ("anything", -15, "ended by SIGTERM"),
    ],
)
def test_the_reason_is_the_most_telling_line(log: str, code: int, text: str) -> None:
    assert reason(log, code) == text


HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def runner(plan: Plan, behave: dict[str, Any], *arguments: str, ignored: Any = ()) -> subprocess.Popen[str]:
    def signals() -> None:  # a shell that runs the tests in the background ignores SIGINT
        for number in HEARD:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    line = [sys.executable, "-m", "tests.study.pretend", str(plan.file), *arguments, "--behave", json.dumps(behave)]
    return subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=signals
    )


def wait_for(file: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not file.is_file():
        assert time.monotonic() < end, f"{file} did not come"
        time.sleep(0.02)


SLOW = {"a/5pct/seed_0 training": {"sleep": 30.0, "epochs": 3}}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_children_and_keeps_what_is_there(make: Make, number: signal.Signals) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    folder = plan.folder(plan.runs[0])
    running = runner(plan, SLOW, "--only", "a/5pct")
    wait_for(folder / "run.json")
    assert read_status(folder)["state"] == "running"
    assert Lock(folder / LOCK_FILE).is_held()
    running.send_signal(number)
    _, error = running.communicate(timeout=30)
    assert running.returncode == 128 + number, error
    status = read_status(folder)
    assert (status["state"], status["error"]) == ("waiting", f"stopped by {number.name}")
    assert not Lock(folder / LOCK_FILE).is_held()  # the child has gone too
    assert "the same command goes on" in error
    assert json.loads((folder / "run.json").read_text())["status"] == "running"


def test_signals_that_are_ignored_stay_so(make: Make) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    folder = plan.folder(plan.runs[0])
    behave = {"a/5pct/seed_0 training": {"sleep": 0.3}}
    running = runner(plan, behave, "--only", "a/5pct", ignored=(signal.SIGHUP, signal.SIGINT))  # nohup … &
    wait_for(folder / "run.json")
    running.send_signal(signal.SIGHUP)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=30)
    assert running.returncode == 0, error
    assert read_status(folder)["state"] == "done"


def test_a_killed_runner_leaves_its_training_the_folder_and_the_next_goes_on(make: Make) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    folder = plan.folder(plan.runs[0])
    behave = {"a/5pct/seed_0 training": {"sleep": 2.0}}
    running = runner(plan, behave, "--only", "a/5pct")
    wait_for(folder / "checkpoint.pt")  # after epoch 1 of 3
    running.kill()
    running.communicate()
    assert read_status(folder)["state"] == "running"  # nobody was there to say otherwise
    assert Lock(folder / LOCK_FILE).is_held()  # by the training, which nobody ended
    again = runner(plan, {}, "--only", "a/5pct")
    out, error = again.communicate(timeout=60)
    assert again.returncode == 0, error
    assert "another process has a/5pct/seed_0" in out
    assert read_status(folder)["state"] == "done"
    epochs = [line for line in (folder / "train.log").read_text().splitlines() if line.startswith("epoch")]
    assert epochs == ["epoch 1", "epoch 2", "epoch 3"]  # never two trainings at a time, none from the start


def test_a_killed_training_is_tried_again_from_its_checkpoint(make: Make) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    folder = plan.folder(plan.runs[0])
    running = runner(plan, {"a/5pct/seed_0 training": {"sleep": 0.5}}, "--only", "a/5pct")
    wait_for(folder / "checkpoint.pt")
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    out, error = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "FAILED a/5pct/seed_0: ended by SIGKILL" in out
    assert "1 of 1 runs failed:\n  a/5pct/seed_0: ended by SIGKILL" in error
    again = runner(plan, {}, "--only", "a/5pct")
    again.communicate(timeout=60)
    assert again.returncode == 0
    log = (folder / "train.log").read_text().splitlines()
    assert log.count("begins") == 2
    assert log.count("epoch 1") == 1
    assert read_status(folder)["state"] == "done"


def test_two_runners_share_a_study(make: Make) -> None:
    plan = make()
    behave = {f"{run.id} training": {"sleep": 0.05} for run in plan.runs}
    both = [runner(plan, behave, "--jobs", "2") for _ in range(2)]
    for one in both:
        _, error = one.communicate(timeout=90)
        assert one.returncode == 0, error
    for run in plan.runs:
        assert (plan.folder(run) / "train.log").read_text().count("begins") == 1
        assert read_status(plan.folder(run))["state"] == "done"
