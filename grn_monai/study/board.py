"""Shows how a study goes: a table that is drawn anew on a terminal, else one line for each event."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from typing import TextIO

from grn_monai.study import state
from grn_monai.study.job import Job
from grn_monai.study.plan import Plan, Run, fraction_name

__all__ = ["Board", "duration", "grid"]


def duration(seconds: float) -> str:
    """Seconds as people say them: `40 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _row_names(plan: Plan, runs: Sequence[Run]) -> list[str]:
    return [m.key for m in plan.methods if any(run.method.key == m.key for run in runs)]


def _fit(rows: list[list[str]], width: int, height: int) -> list[str]:
    """Rows as lines with aligned columns, cut to a terminal's size."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(lines) > height:
        lines = [*lines[: height - 1], f"… {len(lines) - height + 1} more methods"]
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]


def grid(plan: Plan, runs: Sequence[Run], cells: dict[str, str], width: int, height: int) -> list[str]:
    """A table of runs, methods by fractions and seeds, cut to a terminal's size.

    Args:
        plan: the study.
        runs: those to show.
        cells: text of each run, by id.
        width, height: columns and lines that there are.
    """
    ids = {run.id for run in runs}
    columns = [
        (fraction, seed)
        for fraction in plan.fractions
        for seed in plan.seeds
        if any(run.fraction == fraction and run.seed == seed for run in runs)
    ]
    rows = [["", *(fraction_name(f) for f, _ in columns)], ["seed", *(str(s) for _, s in columns)]]
    for i in range(len(columns), 1, -1):  # a fraction is named once
        if rows[0][i] == rows[0][i - 1]:
            rows[0][i] = ""
    for key in _row_names(plan, runs):
        names = [f"{key}/{fraction_name(f)}/seed_{s}" for f, s in columns]
        rows.append([key, *(cells.get(name, "·") if name in ids else "" for name in names)])
    return _fit(rows, width, height)


def narrow_grid(plan: Plan, runs: Sequence[Run], states: dict[str, str], width: int, height: int) -> list[str]:
    """A table of methods by fractions, with how many seeds are done of how many, for grids wider than the terminal.

    Args:
        plan, runs, width, height: as in `grid`.
        states: of each run, by id.
    """
    fractions = [f for f in plan.fractions if any(run.fraction == f for run in runs)]
    rows = [["", *map(fraction_name, fractions)]]
    for key in _row_names(plan, runs):
        row = [key]
        for fraction in fractions:
            own = [states[run.id] for run in runs if (run.method.key, run.fraction) == (key, fraction)]
            text = f"{sum(state in ('done', 'trained') for state in own)}/{len(own)}" if own else ""
            row.append(text + " …" * ("running" in own) + " FAILED" * ("failed" in own))
        rows.append(row)
    return _fit(rows, width, height)


class Board:
    """Tells of the runs as they go.

    Args:
        plan: the study.
        stream: where to write.
        jobs: runs at a time, for the estimate of what is left.
    """

    def __init__(self, plan: Plan, stream: TextIO, jobs: int = 1) -> None:
        self.plan, self.stream, self.jobs = plan, stream, jobs
        self.terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self.all: list[Job] = []
        self.took: dict[str, float] = {}
        """Seconds of the runs that are done, by id."""
        self._begun = time.monotonic()
        self._lines = 0
        self._drawn = 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        self._erase()
        stamp = "" if self.terminal else time.strftime("%H:%M:%S ")
        self._write(f"{stamp}{text}\n")
        self._drawn = 0.0

    def begin(self, jobs: Sequence[Job]) -> None:
        """The runs that will be worked through."""
        self.all = list(jobs)
        self._begun = time.monotonic()
        at_a_time = "one at a time" if self.jobs == 1 else f"{self.jobs} at a time"
        self.say(f"{self.plan.name}: {_runs(len(jobs))}, {at_a_time}, in {self.plan.output}")

    def started(self, job: Job) -> None:
        """A run begins."""
        if not self.terminal:
            self.say(f"start {job.run.id} ({job.stage})")

    def stage(self, job: Job) -> None:
        """A run goes over to its next stage."""
        if not self.terminal:
            self.say(f"  {job.run.id}: {job.stage}")

    def elsewhere(self, job: Job) -> None:
        """A run is in the hands of another process."""
        self.say(f"another process has {job.run.id}: left to it")

    def ended(self, job: Job) -> None:
        """A run has come to its end, or was stopped."""
        if job.state in ("done", "trained"):
            # The records do not count the start of the processes; what was seen from begin to end does.
            seen = time.monotonic() - job.begun if job.worked else 0.0
            self.took[job.run.id] = max(state.seconds(self.plan, job.run), seen)
        if job.state in ("failed", "skipped"):
            self.say(f"{job.state.upper()} {job.run.id}: {job.error.removeprefix('skipped: ')}")
        elif not self.terminal and job.worked:
            spent = duration(time.monotonic() - job.begun)
            self.say(f"{job.state} {job.run.id} in {spent}: {job.error or self.summary()}")

    def left(self) -> float | None:
        """Seconds that the study still takes, from the runs that are done; None before there are any."""
        if not self.took:
            return None
        total = 0.0
        for job in self.all:
            if job.state in ("waiting", "running"):
                passed = time.monotonic() - job.begun if job.state == "running" else 0.0
                total += max(self._expected(job.run) - passed, 0.0)
        return total / self.jobs

    def _expected(self, run: Run) -> float:
        """Mean of the finished runs most like it: of its method and fraction, else of one of them, else of all."""
        done = [job.run for job in self.all if job.run.id in self.took]
        for alike in (
            [r for r in done if (r.method.key, r.fraction) == (run.method.key, run.fraction)],
            [r for r in done if r.fraction == run.fraction],
            done,
        ):
            if alike:
                return sum(self.took[r.id] for r in alike) / len(alike)
        return 0.0

    def summary(self) -> str:
        """How many runs are in which state, and what is left."""
        counts = {name: sum(job.state == name for job in self.all) for name in
                  ("done", "trained", "running", "failed", "skipped", "waiting")}  # fmt: skip
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        rest = self.left() if counts["waiting"] or counts["running"] else None
        return ", ".join(parts) + (f", about {duration(rest)} left" if rest else "")

    def draw(self, every: float = 1.0) -> None:
        """Draw the table on a terminal."""
        if not self.terminal or time.monotonic() - self._drawn < every:
            return
        self._drawn = time.monotonic()
        size = shutil.get_terminal_size()
        cells = {job.run.id: self._cell(job) for job in self.all}
        runs = [job.run for job in self.all]
        head = f"{duration(time.monotonic() - self._begun)}: {self.summary()}"[: size.columns - 1]
        width, height = size.columns - 1, size.lines - 4
        table = grid(self.plan, runs, cells, width, height)
        if any(line.endswith("…") and len(line) == width for line in table):
            table = narrow_grid(self.plan, runs, {job.run.id: job.state for job in self.all}, width, height)
        lines = ["", *table, head]
        self._erase()
        self._write("".join(line + "\n" for line in lines))
        self._lines = len(lines)

    def end(self) -> None:
        """The last table, or the last line."""
        self.draw(0.0)
        self._lines = 0
        if not self.terminal:
            self.say(self.summary())

    def _cell(self, job: Job) -> str:
        if job.state in ("done", "trained"):
            return duration(self.took.get(job.run.id, 0.0)) + ("" if job.state == "done" else " (trained)")
        if job.state == "running" and job.stage == "training":
            return f"{state.epoch(self.plan, job.run)}/{job.run.epochs} …"
        return {"failed": "FAILED", "skipped": "skipped", "running": f"{job.stage} …"}.get(job.state, "·")

    def _erase(self) -> None:
        if self._lines:
            self._write(f"\x1b[{self._lines}A\x1b[J")
            self._lines = 0

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
