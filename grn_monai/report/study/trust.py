"""Which scores of a run may stand: those of the planned training, finished, and of the weights that lie there now."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from grn_monai.report.study.plan import PlannedMethod, PlannedRun
from grn_monai.study.state import NEUTRAL, cohort_digest
from grn_monai.study.status import read_json

__all__ = ["clean", "evaluation_fault", "other_settings", "training_state"]

_NEUTRAL = NEUTRAL - {"epochs"}
_CONFIG = re.compile(r"([\w.+-]+)\.yaml")


def clean(text: Any, folder: Path) -> str:
    """An error as one line of a report that is passed on: without the disk it happened on, 300 letters at most."""
    line = " ".join(str(text).split()).replace(str(folder.resolve()), "STUDY")
    line = re.sub(r"(?<![\w./])(?:/[\w.+@-]+)+/([\w.+@-]+)", r"\1", line)
    return line if len(line) <= 300 else f"{line[:299]}…"


def training_state(record: Mapping[str, Any], status: Mapping[str, Any], study: Path) -> tuple[str, str]:
    """State of a training and why it is not "done": "running", "failed" or "missing".

    A run that is being trained again is not done, whatever an earlier training left. Results from outside may have
    neither file; then nothing speaks against them.

    Args:
        record: the training's run.json.
        status: the runner's status.json.
        study: the study's folder, for the text of an error.
    """
    stage, trained = str(status.get("stage") or ""), str(record.get("status") or "")
    at = f" at {stage}" if stage else ""
    in_training = stage in ("", "training") or trained not in ("", "completed")
    if status.get("state") == "running" and in_training:
        return "running", f"not finished{at}"
    if status.get("state") == "failed" and in_training:
        return "failed", f"failed{at}: {clean(status.get('error') or 'no reason given', study)}"
    if trained.startswith("failed"):
        return "failed", f"training {clean(trained, study)}"
    if trained not in ("", "completed"):
        return "running", f"not finished{at}"
    return ("done", "") if record else ("missing", "not run")


def _equal(a: Any, b: Any) -> bool:
    """Equal as a bundle takes them: a switch or number may be a text, `@a#b` is recorded as `@a::b`."""
    first, second = (str(value).lower().replace("#", "::") for value in (a, b))
    return a == b or first == second


def _differences(
    run: PlannedRun, method: PlannedMethod, record: Mapping[str, Any], status: Mapping[str, Any], cohort: Path | None
) -> Iterator[str]:
    config = record.get("config")
    if not isinstance(config, dict):
        return
    wanted = {"seed": run.seed, "fraction": run.fraction, **method.options, **run.options}
    for key, value in wanted.items():
        # An id that the bundle got since is not in the record; another device makes no other training.
        if key not in _NEUTRAL and key in config and not _equal(config[key], value):
            yield f"{key} {str(config[key])[:60]}, planned {str(value)[:60]}"
    command = [str(word) for word in record.get("command") or ()]
    if "--config_file" in command[:-1]:
        configs = [Path(name).name for name in _CONFIG.findall(command[command.index("--config_file") + 1])]
        planned = ["train", *method.overlays]
        if configs and configs != planned:
            yield f"configs {', '.join(configs)}, planned {', '.join(planned)}"
    digest = _digest(cohort, str(config.get("split") or "dataset.json")) if cohort else None
    if digest and status.get("cohort") and digest != status["cohort"]:
        yield "another cohort"


@cache
def _digest(cohort: Path, split: str) -> str | None:
    return cohort_digest(cohort, split)


def other_settings(
    run: PlannedRun, method: PlannedMethod, record: Mapping[str, Any], status: Mapping[str, Any], cohort: Path | None
) -> str:
    """How a training differs from the planned one, as far as the plan says; empty where it does not.

    Args:
        run: the planned run.
        method: its method, with overlays and options.
        record: the training's run.json.
        status: the runner's status.json.
        cohort: the cohort's folder.
    """
    return "; ".join(_differences(run, method, record, status, cohort))


def evaluation_fault(folder: Path, training: Path, record: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """Why the scores of an evaluation may not stand; empty where they may.

    Args:
        folder: the evaluation's folder.
        training: the run's folder.
        record: the training's run.json.
        status: the runner's status.json.
    """
    own = read_json(folder / "run.json")
    if status.get("state") in ("running", "failed") and status.get("stage") == folder.name:
        return "not finished" if status["state"] == "running" else "its scoring failed"
    if not own:
        return ""
    if own.get("status") != "completed":
        return "not finished"
    before, after = _time(own.get("started")), _time(record.get("started"))
    if before is None or after is None or before >= after:
        return ""
    # The clocks of two machines may differ: then the weights themselves are compared.
    weights = training / "models" / Path(str((own.get("resolved") or {}).get("ckpt_path"))).name
    if own.get("ckpt_sha256") and weights.is_file():
        with open(weights, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == own["ckpt_sha256"]:
                return ""
    return "its scores are of an earlier training"


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
