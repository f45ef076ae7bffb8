"""Works through the runs of a study, several at a time; nothing is lost when it is stopped, or killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from grn_monai.errors import InputError
from grn_monai.files import make_folder
from grn_monai.study.board import Board
from grn_monai.study.cohort import make_cohort
from grn_monai.study.job import Job
from grn_monai.study.plan import Plan, Run
from grn_monai.study.record import StudyRecord
from grn_monai.study.state import cohort_digests

__all__ = ["Settings", "work"]

BUSY = 2.0
"""Seconds after which a run that another process has is looked at again."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Settings:
    """How a study is worked through.

    Args:
        jobs: runs at a time.
        threads: of each run.
        train_only: leave the evaluations to a later call.
        keep_checkpoints: keep `checkpoint.pt` of finished runs.
        tick: seconds between two looks at the runs.
    """

    jobs: int = 1
    threads: int = 1
    train_only: bool = False
    keep_checkpoints: bool = False
    tick: float = 0.2


class _Stop:
    """The signal that was received, 0 before."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        return self.number != 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals down instead of dying of them. One that is ignored stays so: `nohup` asks for that."""

        def note(number: int, _: Any) -> None:
            self.number = self.number or number

        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, note) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def work(plan: Plan, runs: Sequence[Run], settings: Settings, board: Board, prepare_only: bool = False) -> int:
    """Bring runs to their end.

    A run that fails is recorded, and the others go on; one that another process has is left to it, and looked at again
    at the end.

    Args:
        plan: the study.
        runs: those of its runs to do, in this order.
        settings: how.
        board: shows how it goes.
        prepare_only: make the cohort and `study.json`, and start no run.

    Returns:
        0, or 128 + the number of the signal that stopped it.

    Raises:
        InputError: the folder cannot be written to, or the cohort cannot be made.
    """
    stop = _Stop()
    with stop.watching():
        make_folder(plan.output)
        make_cohort(plan, settings.jobs * settings.threads, stop, board.say)
        digests = cohort_digests(plan, runs)
        for split, digest in digests.items():
            if digest is None and not stop():
                raise InputError(plan.cohort, f"no {split}", "a cohort", "Correct `cohort` in the study's file.")
        waiting = [] if prepare_only else [
            Job(plan, run, digests[run.split], settings.threads, settings.train_only, settings.keep_checkpoints)
            for run in runs
        ]  # fmt: skip
        record = StudyRecord(plan)
        try:
            if not prepare_only:
                _loop(waiting, settings, board, stop, record)
        finally:
            record.finish(wait=not stop() and (prepare_only or any(job.worked for job in board.all)))
    return 128 + stop.number if stop() else 0


def _loop(waiting: list[Job], settings: Settings, board: Board, stop: _Stop, record: StudyRecord) -> None:
    active: list[Job] = []
    busy: dict[str, float] = {}
    """Runs that another process has, and when to look at them again."""
    board.begin(waiting)
    try:
        while (waiting or active) and not stop():
            for job in list(waiting):
                if len(active) >= settings.jobs or stop():
                    break
                if busy.get(job.run.id, 0) > time.monotonic():
                    continue
                if not job.start():
                    if job.run.id not in busy:
                        board.elsewhere(job)
                    busy[job.run.id] = time.monotonic() + BUSY
                    continue
                waiting.remove(job)
                if job.state == "running":
                    active.append(job)
                    board.started(job)
                else:
                    board.ended(job)
            for job in list(active):
                before = job.stage
                if job.step():
                    active.remove(job)
                    board.ended(job)
                elif job.stage != before:
                    board.stage(job)
            record.poll()
            board.draw()
            if waiting or active:
                time.sleep(settings.tick)
    finally:  # also where an error of ours ends the loop: no child is left behind
        why = f"stopped by {signal.Signals(stop.number).name}" if stop() else "stopped"
        for job in active:
            job.stop(why)
            board.ended(job)
        board.end()
