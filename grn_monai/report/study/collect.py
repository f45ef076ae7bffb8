"""A study's folder to one object: the plan, every run with its scores, and what is missing, with reasons.

All evaluations of a section hold the same slices in the same order, so that they pair; one that differs from most
of the others is left out and named. Nothing is dropped in silence: a run that failed or is not there stays in
`StudyResults.runs` with its state and reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.metrics.files import read_rows
from grn_monai.report.study.plan import Plan, PlannedMethod, PlannedRun, find_study, fraction_of, read_plan
from grn_monai.report.study.scores import Evaluation, SliceRows, read_evaluation
from grn_monai.report.study.trust import clean, evaluation_fault, other_settings, training_state
from grn_monai.study.status import read_json

__all__ = ["Run", "StudyResults", "load_study"]


@dataclass
class Run:
    """One training of the grid and its evaluations.

    Attributes:
        method: key of its method.
        fraction: share of labels asked for, in (0, 1].
        seed: its seed.
        folder: its folder.
        state: "done" (all planned evaluations are there), "partial", "running", "failed", "other settings" (a training
            that is not the planned one) or "missing".
        reason: why it is not done; empty if it is.
        record: content of the training's run.json, without the config; empty if there is none.
        evaluations: "SECTION_MODE" to scores; only of the planned training, finished.
        faults: evaluations that were left out, "SECTION_MODE" to reason.
    """

    method: str
    fraction: float
    seed: int
    folder: Path
    state: str = "missing"
    reason: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Method, fraction and seed, for a message."""
        return f"{self.method} at {100 * self.fraction:g} %, seed {self.seed}"

    @property
    def iterations(self) -> int | None:
        """Iterations of the training."""
        return self.record.get("iterations")

    @property
    def epochs(self) -> int | None:
        """Epochs of the training."""
        return self.record.get("epochs")

    @property
    def seconds(self) -> float | None:
        """Wall-clock time of the training, with that of the parts before a resume."""
        parts = [p.get("seconds") for p in (*self.record.get("earlier", ()), self.record)]
        known = [float(seconds) for seconds in parts if seconds is not None]
        return sum(known) if known else None

    @property
    def labelled_scans(self) -> list[str] | None:
        """Names of the labelled scans that it was trained on."""
        return self.record.get("scans")

    @cached_property
    def history(self) -> dict[str, npt.NDArray[np.float64]]:
        """Columns of history.csv, (epochs,) each with NaN gaps; empty if there is none. Read at first use."""
        try:
            rows = read_rows(self.folder / "history.csv")
        except (OSError, ValueError):
            return {}
        return {name: np.array([_number(row[name]) for row in rows]) for name in (rows[0] if rows else {})}


@dataclass
class StudyResults:
    """What `load_study` found.

    Attributes:
        plan: the plan; methods from outside that it does not list are added to `methods`.
        methods: key to method, in the order of the tables.
        runs: every planned run, and those found below `outside/`.
        rows: section to what its slices are; a section without any evaluation is not in it.
        analyses: section to its analysis, once one was asked for.
    """

    plan: Plan
    methods: dict[str, PlannedMethod]
    runs: list[Run]
    rows: dict[str, SliceRows]
    analyses: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.plan.folder

    @property
    def fractions(self) -> tuple[float, ...]:
        """Fractions of labels of all runs, ascending."""
        return tuple(sorted({run.fraction for run in self.runs} | set(self.plan.fractions)))

    def select(self, method: str | None = None, fraction: float | None = None) -> list[Run]:
        """Runs of a method and a fraction, in order of seeds."""
        found = [r for r in self.runs if method in (None, r.method) and fraction in (None, r.fraction)]
        return sorted(found, key=lambda run: (run.fraction, run.seed)) if method else found

    def evaluations(
        self, method: str, fraction: float, section: str = "test", mode: str = "raw"
    ) -> dict[int, Evaluation]:
        """Seed to evaluation of a method at a fraction; empty if none is there."""
        key = f"{section}_{mode}"
        return {r.seed: r.evaluations[key] for r in self.select(method, fraction) if key in r.evaluations}

    def dice(
        self, method: str, fraction: float, section: str = "test", mode: str = "raw"
    ) -> npt.NDArray[np.float32] | None:
        """(seeds, N, 6) slice Dice of a method at a fraction, or None; rows as `rows[section]`."""
        found = self.evaluations(method, fraction, section, mode)
        return np.stack([evaluation.dice for evaluation in found.values()]) if found else None


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _expected(plan: Plan, method: PlannedMethod) -> list[tuple[str, str]]:
    return [(section, mode) for section in plan.sections for mode in method.modes]


def _read_run(plan: Plan, planned: PlannedRun, method: PlannedMethod, known: dict[str, SliceRows]) -> Run:
    """A run with the scores that may stand; why others may not is among its faults."""
    run = Run(planned.method, planned.fraction, planned.seed, planned.folder)
    record, status = read_json(run.folder / "run.json"), read_json(run.folder / "status.json")
    outside = method.group == "outside"
    run.state, run.reason = training_state(record, status, plan.folder)
    if run.state == "missing":
        fault = "" if outside else "no record of a training"
    else:
        fault = run.reason
        if run.state == "done" and not outside:
            fault = clean(other_settings(planned, method, record, status, plan.cohort), plan.folder)
            if fault:
                run.state, run.reason = "other settings", f"a training of other settings: {fault}"
                fault = run.reason
    # The configs of a thousand runs would be most of the memory, and nothing here reads them.
    run.record = {key: value for key, value in record.items() if key not in ("config", "resolved")}
    for section, mode in _expected(plan, method):
        key = f"{section}_{mode}"
        place = run.folder / "evaluation" / key
        if not (place / "slices.csv").is_file():
            continue
        why = fault or evaluation_fault(place, run.folder, record, status)
        try:
            if not why:
                run.evaluations[key] = read_evaluation(place, section, mode, known)
        except (OSError, ValueError) as error:
            why = str(error)
        if why:
            run.faults[key] = why
    return run


def _complete(run: Run, wanted: list[str], study: Path) -> None:
    """Set state and reason of a run whose training is done (or, from outside, unknown) by what was scored."""
    if run.state not in ("done", "missing"):
        return
    status = read_json(run.folder / "status.json")
    lacking = [key for key in wanted if key not in run.evaluations]
    at = f" at {status['stage']}" if status.get("stage") else ""
    if not lacking:
        run.state, run.reason = "done", ""
    elif status.get("state") == "failed":
        run.state, run.reason = "failed", f"failed{at}: {clean(status.get('error') or 'no reason given', study)}"
    elif status.get("state") == "running":
        run.state, run.reason = "running", f"not finished{at}"
    elif run.faults:
        run.state = "partial"
        run.reason = "; ".join(f"{key} is left out: {fault}" for key, fault in run.faults.items())
    elif run.evaluations:
        run.state, run.reason = "partial", f"not scored: {', '.join(lacking)}"
    elif run.record:
        run.state, run.reason = "missing", "trained, not scored"


def _outside(folder: Path) -> Iterator[PlannedRun]:
    """Runs below `outside/NAME/FRACTION/seed_S/`."""
    for place in sorted(folder.glob("outside/*/*/seed_*")):
        fraction, seed = fraction_of(place.parent.name), place.name.removeprefix("seed_")
        if fraction is not None and seed.isdigit():
            yield PlannedRun(place.parent.parent.name, fraction, int(seed), place)


def _drop_unlike(runs: list[Run], sections: tuple[str, ...]) -> dict[str, SliceRows]:
    """Leave out evaluations whose rows are not those of most others of their section; the rows of each section."""
    rows = {}
    for section in sections:
        found = [(run, key, e) for run in runs for key, e in run.evaluations.items() if e.section == section]
        if not found:
            continue
        digests = Counter(evaluation.rows.digest for _, _, evaluation in found)
        usual = next(e.rows for _, _, e in found if e.rows.digest == digests.most_common(1)[0][0])
        rows[section] = usual
        for run, key, evaluation in found:
            if evaluation.rows is not usual:
                del run.evaluations[key]
                theirs, most = len(evaluation.rows.scans), len(usual.scans)
                run.faults[key] = (
                    f"its {theirs} slices are not the {most} of most other runs, so they do not pair with them"
                )
    return rows


def load_study(path: str | PathLike[str]) -> StudyResults:
    """Read a study.

    Args:
        path: the study's folder (with `study.json`), or its YAML file.

    Returns:
        Plan, runs and scores. A study that is running, or half failed, is read as far as it goes.

    Raises:
        InputError: if there is no plan, or nothing at all has been scored.
    """
    folder = find_study(path)
    if folder is None:
        raise InputError(path, "no study", "a study's folder (with study.json) or YAML file", "Check the path.")
    plan = read_plan(folder)
    methods = dict(plan.methods)
    planned = {run.folder.resolve(): run for run in plan.runs}
    for run in _outside(folder):
        planned.setdefault(run.folder.resolve(), run)
        if run.method not in methods:
            methods[run.method] = PlannedMethod(run.method, run.method, "outside", printed=run.method)
    known: dict[str, SliceRows] = {}
    runs = [_read_run(plan, run, methods[run.method], known) for run in planned.values()]
    rows = _drop_unlike(runs, plan.sections)
    for found in runs:
        if found.method not in plan.methods and found.record.get("title"):
            methods[found.method] = replace(methods[found.method], title=str(found.record["title"]))
        wanted = [f"{section}_{mode}" for section, mode in _expected(plan, methods[found.method])]
        if methods[found.method].group == "outside":
            wanted = wanted[:1]
        _complete(found, wanted, folder)
    if not rows:
        raise InputError(
            folder,
            f"no scores in any of {len(runs)} runs",
            "evaluation/SECTION_MODE/slices.csv of at least one run",
            "Wait until `grn-monai study` has scored one.",
        )
    fractions = tuple(sorted({run.fraction for run in runs} | set(plan.fractions)))
    return StudyResults(replace(plan, methods=methods, fractions=fractions), methods, runs, rows)
