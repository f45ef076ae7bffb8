"""The runner over pretended bundles: nothing twice, nothing lost, nothing at the same time in one folder."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from grn_monai.cli import main
from grn_monai.report.study.plan import read_plan
from grn_monai.study import Plan, pool, record, state
from grn_monai.study.board import Board
from grn_monai.study.overview import overview
from grn_monai.study.pool import Settings, work
from grn_monai.study.status import LOCK_FILE, Lock, read_status
from tests.study.conftest import Make, write_run
from tests.study.pretend import pretended


@pytest.fixture(autouse=True)
def _quick_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """`study.json` without the seconds in which torch tells its version."""
    monkeypatch.setattr(record, "PROVENANCE", 'print(\'{"python": "3"}\')')


def go(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, behave: dict[str, Any] | None = None, **settings: Any
) -> tuple[int, Board]:
    monkeypatch.setattr("grn_monai.study.job.stage_command", pretended(behave or {}))
    board = Board(plan, io.StringIO())
    return work(plan, plan.runs, Settings(**{"jobs": 2, "tick": 0.01, **settings}), board), board


def states(plan: Plan) -> dict[str, str]:
    return {run.id: read_status(plan.folder(run))["state"] for run in plan.runs}


def said(board: Board) -> str:
    assert isinstance(board.stream, io.StringIO)
    return board.stream.getvalue()


def test_every_run_is_trained_and_scored_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make()
    status, board = go(plan, monkeypatch)
    assert status == 0
    assert set(states(plan).values()) == {"done"}
    for run in plan.runs:
        folder = plan.folder(run)
        assert (folder / "train.log").read_text().count("begins") == 1
        assert not list(folder.glob("checkpoint*"))
        modes = {"a": {"test_raw"}, "b": {"test_raw", "test_sge"}}[run.method.key]
        assert {p.name for p in (folder / "evaluation").iterdir()} == modes
    assert said(board).rstrip().endswith("8 done")
    before = {p: p.stat().st_mtime_ns for p in (plan.output / "runs").rglob("*")}
    status, board = go(plan, monkeypatch, {"a/5pct/seed_0 training": {"code": 1}})
    assert status == 0
    assert {p: p.stat().st_mtime_ns for p in (plan.output / "runs").rglob("*")} == before
    assert "start" not in said(board)


def test_the_study_is_recorded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(methods={"b": {"bundle": "grn", "title": "B", "options": {"amp": True}}}, seeds=[0], title="Trial")
    go(plan, monkeypatch)
    found = json.loads((plan.output / "study.json").read_text())
    assert found["methods"]["b"] == {
        "title": "B", "bundle": "grn", "overlays": [], "modes": ["raw", "sge"], "group": "grn", "printed": "b",
        "options": {"amp": True},
    }  # fmt: skip
    run = {"method": "b", "fraction": 1.0, "seed": 0, "folder": "runs/b/100pct/seed_0"}
    assert found["runs"][1] == {**run, "options": {"amp": True, "epochs": 2, "patience": 2, "width": 16}}
    assert (found["name"], found["title"], found["fractions"]) == ("try", "Trial", [0.05, 1.0])
    assert (found["seeds"], found["sections"], found["cohort"]) == ([0], ["test"], str(plan.cohort))
    assert found["simulated"] is False
    assert found["provenance"] == {"python": "3"}


def test_a_moved_study_names_its_cohort(make: Make, tmp_path: Path, cohort: Path) -> None:
    shutil.copytree(cohort, tmp_path / "out" / "scans")
    plan = make(cohort="out/scans")
    assert work(plan, plan.runs, Settings(), Board(plan, io.StringIO()), prepare_only=True) == 0
    plan.output.rename(tmp_path / "moved")
    found = read_plan(tmp_path / "moved").cohort
    assert found == tmp_path / "moved" / "scans"


def test_a_failed_run_is_recorded_and_the_others_go_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make()
    log = "Traceback …\nValueError: inner\nerror: images/x.nii.gz: found nothing; expected a volume. Check it.\nafter"
    behave = {
        "a/5pct/seed_0 training": {"code": 1, "say": log},
        "b/100pct/seed_1 test_sge": {"code": 2, "say": "KeyError: 'model'"},
    }
    status, board = go(plan, monkeypatch, behave)
    assert status == 0
    assert {job.run.id for job in board.all if job.state == "failed"} == {"a/5pct/seed_0", "b/100pct/seed_1"}
    assert list(states(plan).values()).count("done") == 6
    first = read_status(plan.folder(plan.runs[0]))
    assert (first["state"], first["stage"]) == ("failed", "training")
    assert first["error"] == "images/x.nii.gz: found nothing; expected a volume. Check it."
    last = read_status(plan.folder(plan.runs[-1]))
    assert (last["stage"], last["error"]) == ("test_sge", "KeyError: 'model'")
    # They are tried again at the next call; what was done of them stays.
    go(plan, monkeypatch)
    assert set(states(plan).values()) == {"done"}
    assert read_status(plan.folder(plan.runs[-1]))["error"] is None
    assert (plan.folder(plan.runs[-1]) / "train.log").read_text().count("begins") == 1


def test_a_folder_of_other_settings_is_neither_used_nor_touched(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(seeds=[0])
    folder = write_run(plan, plan.runs[0], width=4)
    content = (folder / "run.json").read_bytes()
    for _ in range(2):
        _, board = go(plan, monkeypatch)
        assert read_status(folder)["state"] == "failed"
        assert "a run of other settings (width 4, now 16)" in read_status(folder)["error"]
        assert [job.state for job in board.all] == ["failed", "done", "done", "done"]
    assert (folder / "run.json").read_bytes() == content
    assert not (folder / "train.log").exists()


def test_results_that_do_not_come_are_a_failure_not_a_loop(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    _, board = go(plan, monkeypatch, {"a/5pct/seed_0 test_raw": {"complete": False}})
    assert "left no complete results" in board.all[0].error
    assert states(plan)["a/5pct/seed_0"] == "failed"


def test_training_alone_and_scores_later(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(seeds=[0])
    go(plan, monkeypatch, train_only=True)
    assert set(states(plan).values()) == {"waiting"}
    folder = plan.folder(plan.runs[0])
    assert read_status(folder)["stage"] == "test_raw"
    assert (folder / "checkpoint.pt").is_file()
    go(plan, monkeypatch)
    assert set(states(plan).values()) == {"done"}
    assert (folder / "train.log").read_text().count("begins") == 1


def test_checkpoints_can_be_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(seeds=[0])
    go(plan, monkeypatch, keep_checkpoints=True)
    assert all((plan.folder(run) / "checkpoint.pt").is_file() for run in plan.runs)


def test_a_later_call_leaves_the_checkpoints_that_were_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    go(plan, monkeypatch, keep_checkpoints=True)
    go(plan, monkeypatch)
    assert all((plan.folder(run) / "checkpoint.pt").is_file() for run in plan.runs)


def test_a_damaged_record_fails_its_run_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    write_run(plan, plan.runs[0], epochs="many")
    _, board = go(plan, monkeypatch)
    assert [job.state for job in board.all] == ["failed", "done"]
    status = read_status(plan.folder(plan.runs[0]))
    assert status["state"] == "failed"
    assert status["error"].startswith("ValueError: invalid literal")
    assert main(["study", str(plan.file), "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["failed", "done", "try:"]


def test_each_run_is_of_its_own_split(make: Make, monkeypatch: pytest.MonkeyPatch, cohort: Path) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    (cohort / "other.json").write_text(json.dumps(content | {"name": "other"}))
    methods = {"a": {"bundle": "plain", "options": {"split": "other.json"}}, "b": {"bundle": "grn"}}
    plan = make(methods=methods, seeds=[0], fractions=[1.0])
    go(plan, monkeypatch)
    assert read_status(plan.folder(plan.runs[1]))["cohort"] == state.cohort_digest(cohort)
    for runs in (plan.runs, plan.runs[:1], plan.runs[1:]):
        assert {entry["state"] for entry in overview(plan, runs)} == {"done"}


def test_more_epochs_train_on_and_score_anew(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    few = make(seeds=[0], fractions={1.0: {"epochs": 2}}, methods={"a": {"bundle": "plain"}})
    go(few, monkeypatch, keep_checkpoints=True)
    more = make(seeds=[0], fractions={1.0: {"epochs": 3}}, methods={"a": {"bundle": "plain"}})
    go(more, monkeypatch)
    folder = more.folder(more.runs[0])
    lines = (folder / "train.log").read_text().splitlines()
    assert [line for line in lines if line.startswith("epoch")] == ["epoch 1", "epoch 2", "epoch 3"]
    assert (folder / "evaluate_test_raw.log").read_text().count("begins") == 2


def test_a_run_that_another_process_has_is_left_to_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    other = Lock(plan.folder(plan.runs[0]) / LOCK_FILE)
    assert other.acquire()
    starts: list[str] = []
    board = Board(plan, io.StringIO())
    started = board.started

    def note(job: Any) -> None:
        starts.append(job.run.id)
        started(job)

    ended = board.ended

    def release(job: Any) -> None:  # the other one ends when ours has done the rest
        ended(job)
        other.release()

    monkeypatch.setattr(board, "started", note)
    monkeypatch.setattr(board, "ended", release)
    monkeypatch.setattr("grn_monai.study.job.stage_command", pretended({}))
    monkeypatch.setattr(pool, "BUSY", 0.05)
    assert work(plan, plan.runs, Settings(tick=0.01), board) == 0
    assert starts == ["a/100pct/seed_0", "a/5pct/seed_0"]
    assert said(board).count("another process has a/5pct/seed_0") == 1
    assert set(states(plan).values()) == {"done"}


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "x" / ".lock"), Lock(tmp_path / "x" / ".lock")
    assert not first.is_held()
    assert first.acquire()
    assert not second.acquire()
    assert second.is_held()
    first.release()
    assert not second.is_held()
    assert second.acquire()
    second.release()


def test_a_look_at_a_lock_needs_no_right_to_write_and_hinders_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Lock(tmp_path / ".lock")
    assert lock.acquire()
    open_file = os.open

    def read_only(file: Any, flags: int, *more: Any) -> int:  # root may write anywhere, so it is refused here
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied")
        return open_file(file, flags, *more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        assert Lock(tmp_path / ".lock").is_held()
    lock.release()
    looking = os.open(tmp_path / ".lock", os.O_RDONLY)  # another one who looks at the same moment
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not Lock(tmp_path / ".lock").is_held()
    os.close(looking)
    assert not Lock(tmp_path / "none" / ".lock").is_held()
    assert not (tmp_path / "none").exists()


def test_a_place_without_locks_fails_and_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    folder = plan.folder(plan.runs[0])
    folder.parent.mkdir(parents=True)
    folder.write_text("a file")
    _, board = go(plan, monkeypatch)
    assert [job.state for job in board.all] == ["failed", "done"]
    assert "a place where no file can be locked" in board.all[0].error


def test_methods_without_their_packages_are_skipped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(methods={"a": {"bundle": "plain", "needs": ["no_such_package"]}, "b": {"bundle": "grn"}}, seeds=[0])
    _, board = go(plan, monkeypatch)
    assert [job.state for job in board.all] == ["skipped", "done", "skipped", "done"]
    assert "needs no_such_package, which is not installed" in read_status(plan.folder(plan.runs[0]))["error"]


def test_what_is_done_needs_no_package(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    go(make(methods={"a": {"bundle": "plain"}}, seeds=[0]), monkeypatch)
    _, board = go(make(methods={"a": {"bundle": "plain", "needs": ["no_such_package"]}}, seeds=[0]), monkeypatch)
    assert [job.state for job in board.all] == ["done", "done"]


def test_leftovers_of_a_kill_are_cleared(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make(methods={"a": {"bundle": "plain"}}, seeds=[0])
    folder = plan.folder(plan.runs[0])
    (folder / "models").mkdir(parents=True)
    left = [folder / f".{'0' * 32}-checkpoint.pt", folder / "models" / f".{'1' * 32}-model.pt"]
    for file in left:
        file.touch()
    go(plan, monkeypatch)
    assert not any(file.exists() for file in left)


def test_a_cohort_that_vanished_is_said(make: Make, monkeypatch: pytest.MonkeyPatch, cohort: Path) -> None:
    plan = make()
    cohort.rename(cohort.with_name("gone"))
    with pytest.raises(ValueError, match=r"found no dataset\.json"):
        go(plan, monkeypatch)
    assert not (plan.output / "runs").exists()
