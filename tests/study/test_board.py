"""What people see while a study runs, and the list of its states."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from grn_monai.cli import main
from grn_monai.study.board import Board, duration, grid, narrow_grid
from grn_monai.study.job import Job
from grn_monai.study.status import LOCK_FILE, Lock, write_status
from tests.study.conftest import Make, write_evaluation, write_run


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (3570, "1 h 00 min"), (11100, "3 h 05 min"), (2 * 86400, "2 d 0 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_table_has_methods_by_fractions_and_seeds(make: Make) -> None:
    plan = make(methods={"a": {"bundle": "plain"}, "long_name": {"bundle": "grn", "fractions": [1.0]}})
    lines = grid(plan, plan.runs, {"a/5pct/seed_1": "3 min", "long_name/100pct/seed_0": "FAILED"}, 80, 10)
    assert lines == [
        "           5pct         100pct",
        "seed       0     1      0       1",
        "a          ·     3 min  ·       ·",
        "long_name               FAILED  ·",
    ]


def test_the_table_fits_the_terminal(make: Make) -> None:
    plan = make(methods={f"m{i}": {"bundle": "plain"} for i in range(9)})
    lines = grid(plan, plan.runs, {}, 12, 5)
    assert len(lines) == 5
    assert all(len(line) <= 12 for line in lines)
    assert lines[-1].startswith("… 7 more")


def test_a_grid_wider_than_the_terminal_counts_seeds(make: Make) -> None:
    plan = make(methods={"a": {"bundle": "plain"}, "b": {"bundle": "grn", "fractions": [1.0]}})
    states = dict.fromkeys((run.id for run in plan.runs), "waiting")
    states |= {"a/5pct/seed_0": "done", "a/5pct/seed_1": "running", "b/100pct/seed_0": "failed"}
    assert narrow_grid(plan, plan.runs, states, 80, 10) == ["   5pct   100pct", "a  1/2 …  0/2", "b         0/2 FAILED"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def jobs_of(plan: Any, states: dict[str, str]) -> list[Job]:
    jobs = [Job(plan, run, None) for run in plan.runs]
    for one in jobs:
        one.state = states.get(one.run.id, "waiting")
    return jobs


def test_a_terminal_shows_epochs_and_redraws_in_place(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    plan = make(seeds=[0])
    stream = Terminal()
    board = Board(plan, stream)
    jobs = jobs_of(plan, {"a/5pct/seed_0": "running", "b/5pct/seed_0": "failed"})
    jobs[0].begun = 1e9
    board.begin(jobs)
    (write_run(plan, plan.runs[0], status="running") / "history.csv").write_text("epoch\n1\n2\n")
    board.draw(0.0)
    first = stream.getvalue()
    assert re.search(r"a +2/3 … +·", first)
    assert re.search(r"b +FAILED +·", first)
    assert "1 running, 1 failed, 2 waiting" in first
    board.draw(0.0)
    height = first[first.index("seed") :].count("\n") + 2  # the heading and the empty line above
    assert f"\x1b[{height}A\x1b[J" in stream.getvalue()


def test_what_is_left_comes_from_runs_alike(make: Make) -> None:
    plan = make(seeds=[0, 1], fractions={0.05: {"epochs": 3}, 1.0: {"epochs": 3}})
    board = Board(plan, io.StringIO(), jobs=2)
    jobs = jobs_of(plan, {"a/5pct/seed_0": "done", "b/100pct/seed_0": "done", "a/100pct/seed_1": "failed"})
    board.all = jobs
    assert board.left() is None
    board.took = {"a/5pct/seed_0": 100.0, "b/100pct/seed_0": 400.0}
    # Waiting: b/5pct/0 and b/5pct/1 like a/5pct; a/5pct/1 like itself; a/100pct/0 and b/100pct/1 like b/100pct.
    assert board.left() == (3 * 100 + 2 * 400) / 2


def test_the_list_says_what_each_run_is(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make()
    runs = {run.id: run for run in plan.runs}
    write_run(plan, runs["a/5pct/seed_0"])
    write_evaluation(plan, runs["a/5pct/seed_0"], "test", "raw")
    write_run(plan, runs["b/5pct/seed_0"])
    cut = write_run(plan, runs["a/100pct/seed_0"], status="running")
    (cut / "history.csv").write_text("epoch\n1\n")
    write_run(plan, runs["b/100pct/seed_0"], width=3)
    write_status(plan.folder(runs["a/5pct/seed_1"]), "failed", "training", "ValueError: x")
    lock = Lock(plan.folder(runs["b/5pct/seed_1"]) / LOCK_FILE)
    assert lock.acquire()
    assert main(["study", str(plan.file), "--list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["output"]) == ("try", str(plan.output))
    assert {run["id"]: (run["state"], run["detail"]) for run in found["runs"]} == {
        "a/5pct/seed_0": ("done", ""),
        "b/5pct/seed_0": ("waiting", "trained; to do: test_raw, test_sge"),
        "a/100pct/seed_0": ("waiting", "epoch 1 of 2"),
        "b/100pct/seed_0": ("failed", next(r["detail"] for r in found["runs"] if r["id"] == "b/100pct/seed_0")),
        "a/5pct/seed_1": ("failed", "ValueError: x"),
        "b/5pct/seed_1": ("running", "training, epoch 0 of 3"),
        "a/100pct/seed_1": ("waiting", ""),
        "b/100pct/seed_1": ("waiting", ""),
    }
    assert "width 3, now 16" in found["runs"][3]["detail"]
    assert found["runs"][0]["seconds"] == 90.0
    assert main(["study", str(plan.file), "--list"]) == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0].split() == ["done", "a/5pct/seed_0", "2", "min"]
    assert text[-1] == f"try: 1 done, 4 waiting, 2 failed, 1 running, in {plan.output}"
    lock.release()


def test_a_dry_run_prints_what_is_left_and_starts_nothing(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make(cohort={"path": "made", "simulate": "--seed 3"}, seeds=[0], fractions=[1.0])
    write_run(plan, plan.runs[0])
    assert main(["study", str(plan.file), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "-m data_prep simulate --out" in lines[0]
    assert [("run training" in line, "--section test" in line) for line in lines[1:]] == [
        (False, True), (True, False), (False, True), (False, True)]  # fmt: skip
    assert main(["study", str(plan.file), "--dry-run", "--train-only", "--only", "b"]) == 0
    assert capsys.readouterr().out.count("run training") == 1
    assert not (plan.output / "study.json").exists()


def test_bad_plans_end_with_one_line(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make()
    assert main(["study", str(plan.file), "--only", "zzz"]) == 2
    assert main(["study", str(plan.file.with_name("none.yaml"))]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("grn-monai: ") for line in lines)


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--threads", "x"], ["--list", "--dry-run"]])
def test_wrong_options_are_usage_errors(make: Make, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["study", str(make().file), *arguments])
    assert stop.value.code == 2
