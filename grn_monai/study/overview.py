"""The runs of a study and their states, without starting anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from grn_monai.errors import InputError, listed
from grn_monai.study import state
from grn_monai.study.board import duration
from grn_monai.study.commands import simulation_command
from grn_monai.study.job import stage_command
from grn_monai.study.plan import Plan, Run
from grn_monai.study.status import LOCK_FILE, Lock, read_status

__all__ = ["commands", "overview", "table"]


def overview(plan: Plan, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each run with its state now (`waiting`, `running`, `done` or `failed`), as JSON-ready values."""
    digests = state.cohort_digests(plan, runs)
    return [_entry(plan, run, digests[run.split]) for run in runs]


def _entry(plan: Plan, run: Run, digest: str | None) -> dict[str, Any]:
    folder = plan.folder(run)
    status = read_status(folder)
    now, detail = "waiting", ""
    try:
        left = state.todo(plan, run, digest)
        reached = state.epoch(plan, run)
        if not left:
            now = "done"
        elif Lock(folder / LOCK_FILE).is_held():
            now, detail = "running", f"{status.get('stage') or 'training'}, epoch {reached} of {run.epochs}"
        elif missing := run.method.missing():
            detail = f"skipped: needs {listed(missing)}, which is not installed"
        elif status["state"] == "failed":
            now, detail = "failed", str(status.get("error"))
        elif left[0] != "training":
            detail = f"trained; to do: {', '.join(left)}"
        elif reached:
            detail = f"epoch {reached} of {run.epochs}"
    except InputError as error:
        now, detail = "failed", str(error)
    except Exception as error:  # a damaged record of one run is no reason to say nothing of the others
        now, detail = "failed", f"{type(error).__name__}: {error}"
    return {
        "id": run.id,
        "method": run.method.key,
        "fraction": run.fraction,
        "seed": run.seed,
        "folder": str(folder),
        "state": now,
        "detail": detail,
        "seconds": round(state.seconds(plan, run), 1),
    }


def table(plan: Plan, entries: Sequence[dict[str, Any]]) -> str:
    """The states as a text for people."""
    width = max(len(entry["id"]) for entry in entries)
    lines = []
    for entry in entries:
        took = duration(entry["seconds"]) if entry["seconds"] else ""
        lines.append(f"{entry['state']:<8} {entry['id']:<{width}}  {took:>11}  {entry['detail']}".rstrip())
    counts = {
        name: sum(entry["state"] == name for entry in entries) for name in dict.fromkeys(e["state"] for e in entries)
    }
    lines.append(f"{plan.name}: " + ", ".join(f"{n} {name}" for name, n in counts.items()) + f", in {plan.output}")
    return "\n".join(lines)


def commands(plan: Plan, runs: Sequence[Run], train_only: bool) -> Iterator[str]:
    """The commands that are still to run; a run of other settings as a comment that says so."""
    if plan.simulate is not None and not (plan.cohort / "dataset.json").is_file():
        yield str(simulation_command(plan))
    digests = state.cohort_digests(plan, runs)
    for run in runs:
        try:
            left = state.todo(plan, run, digests[run.split])
        except InputError as error:
            yield f"# {run.id}: {error}"
            continue
        for stage in left[:1] if train_only and left[:1] == ["training"] else [] if train_only else left:
            yield str(stage_command(plan, run, stage))
