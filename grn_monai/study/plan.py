"""The plan of a study: methods × fractions of the labels × seeds over one cohort."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.study.bundles import Bundle
from grn_monai.study.read import close_names

__all__ = ["Method", "Plan", "Run", "fraction_name", "fraction_of", "select"]


def fraction_name(fraction: float) -> str:
    """A fraction as the name of a folder: 0.05 is `5pct`."""
    return f"{100 * fraction:g}pct"


def fraction_of(name: str) -> float | None:
    """The fraction that a folder's name means; None for any other name."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)pct", name)
    return round(float(found[1]) / 100, 10) if found else None


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except Exception:  # of `a.b` it imports `a`, which may be missing, or fail in any way
        return False


@dataclass(frozen=True)
class Method:
    """A bundle with its overlays and options.

    Args:
        key: name in the plan and of the folder.
        title: name in tables.
        bundle: the bundle.
        overlays: configs that the training has beside `train`.
        eval_overlays: those of them that the evaluation needs too.
        modes: what is predicted: `raw` is S(x), `sge` is S(G(x)).
        group: by which tables group their rows.
        printed: key of the values printed in the papers.
        needs: packages without which its runs are skipped, by the names they are imported by.
        options: ids of the bundle.
    """

    key: str
    title: str
    bundle: Bundle
    overlays: tuple[str, ...] = ()
    eval_overlays: tuple[str, ...] = ()
    modes: tuple[str, ...] = ("raw",)
    group: str = "supervised"
    printed: str = ""
    needs: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """What it needs and is not installed."""
        return [name for name in self.needs if not _installed(name)]

    def configs(self, mode: str | None = None) -> list[str]:
        """Configs of the training, or of the evaluation in a mode."""
        if mode is None:
            return ["train", *self.overlays]
        plain = ["no_sge"] if mode == "raw" and self.bundle.has_sge else []
        return ["train", *self.eval_overlays, "evaluate", *plain]


@dataclass(frozen=True)
class Run:
    """One training with its evaluations.

    Args:
        method: what is trained.
        fraction: share of the labels, in (0, 1].
        seed: of the labelled subjects, the first weights and the order of images.
        options: ids of the bundle with everything that applies to this run.
    """

    method: Method
    fraction: float
    seed: int
    options: dict[str, Any]

    @property
    def id(self) -> str:
        """`METHOD/FRACTION/seed_N`, also its folder below `runs`."""
        return f"{self.method.key}/{fraction_name(self.fraction)}/seed_{self.seed}"

    @property
    def split(self) -> str:
        """The cohort's file that says which scans are trained, validated and tested on."""
        return str(self.options.get("split", "dataset.json"))

    @property
    def epochs(self) -> int:
        """Epochs of the training, the bundle's own where the study gives none."""
        return int(self.options.get("epochs") or self.method.bundle.values(self.method.configs()).get("epochs", 0))


@dataclass(frozen=True)
class Plan:
    """A study, read and checked.

    Args:
        file: the YAML file.
        name, title: of the study.
        output: folder of everything that it leaves.
        cohort: folder of the scans.
        simulate: options of `python -m data_prep simulate`, by which the cohort is made; None where it has to exist.
        sections: sections of the cohort that are scored.
        methods, fractions, seeds: the grid.
        runs: its runs, in the order in which they are started.
    """

    file: Path
    name: str
    title: str
    output: Path
    cohort: Path
    simulate: tuple[str, ...] | None
    sections: tuple[str, ...]
    methods: tuple[Method, ...]
    fractions: tuple[float, ...]
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]

    @property
    def cache(self) -> Path:
        """Where decoded slices are kept, for all runs together."""
        return self.output / "cache"

    def folder(self, run: Run) -> Path:
        """Folder of a run."""
        return self.output / "runs" / run.id

    def evaluations(self, run: Run) -> list[tuple[str, str]]:
        """Section and mode of each evaluation of a run."""
        return [(section, mode) for section in self.sections for mode in run.method.modes]

    def evaluation(self, run: Run, section: str, mode: str) -> Path:
        """Folder of an evaluation."""
        return self.folder(run) / "evaluation" / f"{section}_{mode}"

    def record(self) -> dict[str, Any]:
        """What `study.json` says of the plan, as JSON-ready values."""
        return {
            "name": self.name,
            "title": self.title,
            "methods": {
                m.key: {
                    "title": m.title,
                    "bundle": m.bundle.name,
                    "overlays": list(m.overlays),
                    "modes": list(m.modes),
                    "group": m.group,
                    "printed": m.printed,
                    "options": m.options,
                }
                for m in self.methods
            },
            "fractions": list(self.fractions),
            "seeds": list(self.seeds),
            "sections": list(self.sections),
            # What lies below the output moves with it.
            "cohort": str(
                self.cohort.relative_to(self.output) if self.cohort.is_relative_to(self.output) else self.cohort
            ),
            "simulated": self.simulate is not None or (self.cohort / "simulation.json").is_file(),
            "runs": [
                {
                    "method": run.method.key,
                    "fraction": run.fraction,
                    "seed": run.seed,
                    "folder": str(self.folder(run).relative_to(self.output)),
                    "options": run.options,
                }
                for run in self.runs
            ],
        }


def select(plan: Plan, patterns: Sequence[str]) -> list[Run]:
    """The runs whose id fits one of the patterns, or all where there is none.

    Args:
        plan: the study.
        patterns: `METHOD`, `METHOD/FRACTION` or `METHOD/FRACTION/seed_N`, each part with `*`, `?` and `[…]`.

    Raises:
        InputError: a pattern fits no run.
    """

    def fits(run: Run, pattern: str) -> bool:
        parts = pattern.strip("/").split("/")
        own = run.id.split("/")
        return len(parts) <= len(own) and all(map(fnmatch.fnmatchcase, own, parts))

    for pattern in patterns:
        if not any(fits(run, pattern) for run in plan.runs):
            # Names as long as the pattern: a method for a method, a whole id for an id.
            parts = pattern.strip("/").count("/") + 1
            known = dict.fromkeys("/".join(run.id.split("/")[:parts]) for run in plan.runs)
            mend = f"{close_names(pattern, known)} `--list` shows all."
            raise InputError(
                f"--only {pattern}", f"no run of {plan.file} that fits", "METHOD[/FRACTION[/seed_N]]", mend
            )
    return [run for run in plan.runs if not patterns or any(fits(run, p) for p in patterns)]
