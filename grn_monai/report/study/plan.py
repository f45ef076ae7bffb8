"""The plan of a study, as its `study.json` states it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.study.plan import fraction_name, fraction_of
from grn_monai.study.read import read_yaml

__all__ = [
    "PLAN_FILE",
    "Plan",
    "PlannedMethod",
    "PlannedRun",
    "counted",
    "find_study",
    "fraction_name",
    "fraction_of",
    "fraction_text",
    "read_plan",
]

PLAN_FILE = "study.json"


@dataclass(frozen=True)
class PlannedMethod:
    """One method of the grid.

    Attributes:
        key: its name in the plan and of its folder.
        title: what tables call it.
        group: "supervised", "semi-supervised", "grn", "ablation", "network", "control", "outside" or the user's own.
        bundle: folder name of its bundle; empty for results from outside.
        overlays: config names put over the bundle's.
        modes: how it predicts: "raw" S(x), "sge" S(G(x)).
        options: bundle ids that are set for it.
        printed: its key among the papers' printed values.
    """

    key: str
    title: str
    group: str
    bundle: str = ""
    overlays: tuple[str, ...] = ()
    modes: tuple[str, ...] = ("raw",)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    printed: str = ""


@dataclass(frozen=True)
class PlannedRun:
    """One training of the grid: method key, share of labels (0–1], seed, folder (absolute) and the ids set for it."""

    method: str
    fraction: float
    seed: int
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Plan:
    """Everything `study.json` says. `simulated` is None where it does not say; `cohort` is the path it names."""

    folder: Path
    name: str
    title: str
    methods: dict[str, PlannedMethod]
    fractions: tuple[float, ...]
    seeds: tuple[int, ...]
    sections: tuple[str, ...]
    cohort: Path | None
    simulated: bool | None
    runs: tuple[PlannedRun, ...]
    provenance: dict[str, Any]


def fraction_text(fraction: float) -> str:
    """`5 %`, for a reader."""
    return f"{100 * fraction:g} %"


def counted(count: int, thing: str) -> str:
    """`1 subject`, `1,200 slices`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def find_study(path: str | PathLike[str]) -> Path | None:
    """The folder of a study, given that folder or the study's YAML file; None if `path` is neither.

    A YAML file is taken for a study's where it has `methods`; its folder is its `output`, relative to the file, or
    `../runs/NAME`. The study need not have been started.

    Raises:
        InputError: for a YAML file that cannot be read, or is no study.
    """
    place = Path(path)
    if place.is_dir():
        return place if (place / PLAN_FILE).is_file() else None
    if place.suffix not in (".yaml", ".yml") or not place.is_file():
        return None
    content = read_yaml(place)
    if not isinstance(content, dict) or "methods" not in content:
        raise InputError(place, "no `methods`", "a study", "Give a study's YAML file, or the folder of its results.")
    name = content.get("name") or place.stem
    return place.parent / str(content.get("output") or f"../runs/{name}")


def _group(content: Mapping[str, Any]) -> str:
    """The method's group: as the plan says, else what its bundle and overlays tell."""
    if content.get("group"):
        return str(content["group"])
    bundle, overlays = str(content.get("bundle") or ""), content.get("overlays") or ()
    if "_grn_" in bundle:
        return "grn"
    if bundle.endswith("_semi"):
        return "semi-supervised"
    if any(str(overlay).startswith("network_") for overlay in overlays):
        return "network"
    return "supervised" if bundle else "outside"


def _method(key: str, content: Mapping[str, Any]) -> PlannedMethod:
    return PlannedMethod(
        key=key,
        title=str(content.get("title") or key),
        group=_group(content),
        bundle=str(content.get("bundle") or ""),
        overlays=tuple(map(str, content.get("overlays") or ())),
        modes=tuple(map(str, content.get("modes") or ("raw",))),
        options=dict(content.get("options") or {}),
        printed=str(content.get("printed") or key),
    )


def read_plan(folder: str | PathLike[str]) -> Plan:
    """Read `study.json` of a study's folder.

    Raises:
        InputError: if it is missing, no JSON, or lacks methods or runs.
    """
    place = Path(folder)
    file = place / PLAN_FILE
    mend = "Run `grn-monai study` first; it writes this file as it starts."
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(file, "no such file", "the plan of a study", mend) from error
    except (OSError, ValueError) as error:
        raise InputError(file, f"no valid JSON ({error})", "the plan of a study", mend) from error
    try:
        methods = {str(key): _method(str(key), value or {}) for key, value in content["methods"].items()}
        runs = tuple(
            PlannedRun(
                str(r["method"]),
                float(r["fraction"]),
                int(r["seed"]),
                place / str(r["folder"]),
                dict(r.get("options") or {}),
            )
            for r in content["runs"]
        )
        unplanned = sorted({run.method for run in runs} - methods.keys())
        if unplanned:
            raise ValueError(f"runs of {', '.join(unplanned)}, which `methods` lacks")
        simulated = content.get("simulated")
        return Plan(
            folder=place,
            name=str(content.get("name") or place.resolve().name),
            title=str(content.get("title") or content.get("name") or place.resolve().name),
            methods=methods,
            fractions=tuple(sorted({float(f) for f in content.get("fractions") or ()} | {r.fraction for r in runs})),
            seeds=tuple(sorted({int(s) for s in content.get("seeds") or ()} | {r.seed for r in runs})),
            sections=tuple(map(str, content.get("sections") or ("test",))),
            cohort=place / str(content["cohort"]) if content.get("cohort") else None,
            simulated=None if simulated is None else bool(simulated),
            runs=runs,
            provenance=dict(content.get("provenance") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(file, found, "`methods`, and `runs` with method, fraction, seed and folder", mend) from error
