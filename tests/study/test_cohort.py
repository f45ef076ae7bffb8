"""The cohort of a study is made once, and is the one that the plan describes."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from grn_monai.errors import InputError
from grn_monai.study import Plan, cohort
from grn_monai.study.commands import Command, simulation_command
from grn_monai.study.status import Lock
from tests.study.conftest import Make

WRITES = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.mkdir(); (p / 'dataset.json').write_text('{}')"


@pytest.fixture
def plan(make: Make, tmp_path: Path) -> Plan:
    (tmp_path / "data_prep").mkdir()  # as in the repository
    return make(cohort={"path": "made", "simulate": "--shape 20 16 40"})


def pretend(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def command(plan: Plan) -> Command:
        return Command((sys.executable, "-S", "-c", code, str(plan.cohort)), plan.file.parent)

    monkeypatch.setattr(cohort, "simulation_command", command)


def test_the_command_is_that_of_data_prep(plan: Plan, tmp_path: Path) -> None:
    command = simulation_command(plan)
    assert command.folder == tmp_path
    line = f"-m data_prep simulate --out {tmp_path / 'made'} --shape 20 16 40"
    assert " ".join(command.line[1:]) == line


def test_a_missing_cohort_is_made(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, WRITES)
    said: list[str] = []
    cohort.make_cohort(plan, 1, lambda: False, said.append)
    assert (plan.cohort / "dataset.json").is_file()
    assert said == [f"simulating the cohort {plan.cohort}"]
    assert not Lock(plan.cohort.with_name(".made.lock")).is_held()


def test_a_failed_simulation_is_an_error_of_the_plan(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "import sys; sys.exit('data_prep: made: found a cohort begun with seed 1; expected seed 0.')")
    with pytest.raises(InputError, match="begun with seed 1; expected seed 0") as info:
        cohort.make_cohort(plan, 1, lambda: False, lambda _: None)
    assert str(info.value).startswith(str(plan.file))


def test_one_that_another_process_makes_is_waited_for(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "")  # there is nothing left to do, once it is there
    other = Lock(plan.cohort.with_name(".made.lock"))
    assert other.acquire()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        plan.cohort.mkdir()
        (plan.cohort / "dataset.json").write_text("{}")
        other.release()

    cohort.make_cohort(plan, 1, lambda: False, say)
    assert said == [f"{plan.cohort} is being made by another process: waiting for it"]


def test_a_stop_ends_the_simulation(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "import time; time.sleep(60)")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    cohort.make_cohort(plan, 1, stop.is_set, lambda _: None)
    assert not Lock(plan.cohort.with_name(".made.lock")).is_held()


def test_a_cohort_without_the_repository_is_taken_as_it_is(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make(cohort={"path": "cohort", "simulate": "--seed 0"})  # no data_prep beside the bundles
    pretend(monkeypatch, "raise SystemExit('must not run')")
    cohort.make_cohort(plan, 1, lambda: False, lambda _: None)
