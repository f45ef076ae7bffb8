"""The commands of a run: what a user would type in the bundle's folder."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grn_monai.study.plan import Plan, Run

__all__ = ["Command", "bundle_command", "evaluation_command", "simulation_command", "training_command"]

TRAINING_ONLY = {"epochs", "patience", "val_interval", "stop_metric", "compile"}
"""Ids that change nothing of what a trained model predicts."""

_PLAIN = re.compile(r"[A-Za-z_./@$~][\w./@$~#:+ -]*")


@dataclass(frozen=True)
class Command:
    """A command line and the folder to run it in."""

    line: tuple[str, ...]
    folder: Path

    def __str__(self) -> str:
        return f"cd {shlex.quote(str(self.folder))} && {shlex.join(self.line)}"


def as_argument(value: Any) -> str:
    """A value as `monai.bundle` reads it from a command line, where `a,b` would be a tuple and `1` a number."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value not in ("None", "True", "False") else json.dumps(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(json.dumps(item) if isinstance(item, str) else as_argument(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(k))}:{_quoted(v)}" for k, v in value.items()) + "}"
    return repr(value)


def _quoted(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else as_argument(value)


def bundle_command(folder: Path, configs: Sequence[str], options: Mapping[str, Any], *entry: str) -> Command:
    """`python -m monai.bundle run` in a bundle's folder.

    Args:
        folder: the bundle.
        configs: names of its configs, the later over the earlier.
        options: ids and their values.
        entry: what to run, where it is not the config's `run`.
    """
    files = ",".join(f"'configs/{name}.yaml'" for name in configs)
    pairs = [part for name, value in options.items() for part in (f"--{name}", as_argument(value))]
    line = (sys.executable, "-m", "monai.bundle", "run", *entry, "--config_file", f"[{files}]", *pairs)
    return Command(line, folder)


def training_command(plan: Plan, run: Run) -> Command:
    """The training of a run. Options that only its evaluation knows are left out."""
    bundle, configs = run.method.bundle, run.method.configs()
    known = bundle.ids(configs)
    options = {
        "dataset_dir": str(plan.cohort),
        "output_dir": str(plan.folder(run)),
        "cache_dir": str(plan.cache),
        "fraction": run.fraction,
        "seed": run.seed,
        **{name: value for name, value in run.options.items() if name in known},
    }
    return bundle_command(bundle.folder, configs, options, "training")


def evaluation_options(run: Run, mode: str) -> dict[str, Any]:
    """Options of a run that its evaluation knows and needs."""
    known = run.method.bundle.ids(run.method.configs(mode)) - TRAINING_ONLY
    return {name: value for name, value in run.options.items() if name in known}


def evaluation_command(plan: Plan, run: Run, section: str, mode: str) -> Command:
    """The evaluation of a run on a section of the cohort: `raw` is S(x), `sge` is S(G(x))."""
    options = {
        "dataset_dir": str(plan.cohort),
        "output_dir": str(plan.folder(run)),
        "seed": run.seed,
        "section": section,
        "eval_dir": str(plan.evaluation(run, section, mode)),
        "surface_distances": False,
        **evaluation_options(run, mode),
    }
    return bundle_command(run.method.bundle.folder, run.method.configs(mode), options)


def simulation_command(plan: Plan) -> Command:
    """Make the cohort, or see that it is the one that the study describes; quick where it is there."""
    root = plan.methods[0].bundle.folder.parents[1]
    line = (sys.executable, "-m", "data_prep", "simulate", "--out", str(plan.cohort), *(plan.simulate or ()))
    return Command(line, root)
