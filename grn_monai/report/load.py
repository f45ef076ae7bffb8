"""Read a run folder: evaluations, training histories, records and the cohort behind them.

Layout::

    RUN_DIR/
      report.yaml                      optional: title, cohort, methods, scans, depth_axis, depth_reversed
      cohort/dataset.json
      METHOD/history.csv, run.json     one folder for each training
      evaluation/NAME/                 metrics.json, scans.csv, slices.csv, predictions/STEM_seg.nii.gz

Whatever is missing becomes a note for the reader, not an error; only a folder without any evaluation is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.metrics.files import read_rows

__all__ = ["Method", "RunFolder", "Training", "read_run"]

Row = dict[str, str]

_JOINT = {"grn_plus": "GRN+", "grn_sel": "GRN-SEL", "grn_ssl": "GRN-SSL"}
_MODES = {"": " (S alone)", "_sge": " with SGE"}
_TITLES = {"unet": "U-Net"} | {n + end: title + mode for n, title in _JOINT.items() for end, mode in _MODES.items()}
_OPTIONS = ("title", "cohort", "methods", "scans", "depth_axis", "depth_reversed")
_SLICE_COLUMNS = {"subject", "scan", "plane", "index", "dice_mean"}
_SCAN_COLUMNS = {"subject", "scan", "kind", "layer", "dice"}


@dataclass
class Method:
    """One evaluation folder.

    Attributes:
        name: the folder's name.
        title: what the report calls it.
        metrics: content of `metrics.json`.
        slices: rows of `slices.csv`.
        scans: rows of `scans.csv`.
        predictions: folder of the label volumes.
    """

    name: str
    title: str
    metrics: dict[str, Any]
    slices: list[Row]
    scans: list[Row]
    predictions: Path


@dataclass
class Training:
    """One training folder: columns of `history.csv` as (epochs,) floats with NaN gaps, and `run.json`."""

    name: str
    title: str
    history: dict[str, npt.NDArray[np.float64]]
    record: dict[str, Any]


@dataclass
class RunFolder:
    """Everything a report is made of.

    Attributes:
        folder: the run folder.
        title: heading of the report.
        methods: evaluations in the order of the tables; differences are against the first.
        trainings: training folders.
        cohort: content of the cohort file; empty if there is none.
        items: (subject, scan) to cohort item with absolute paths.
        simulated: whether the cohort says that it is simulated; None without a cohort.
        scans: scans to show, as report.yaml lists them; empty to let the report choose.
        depth: depth axis and whether it is reversed, see `grn_monai.transforms.DepthLast`.
        notes: what is missing, for the reader.
    """

    folder: Path
    title: str
    methods: list[Method]
    trainings: list[Training]
    cohort: dict[str, Any]
    items: dict[tuple[str, str], dict[str, Any]]
    simulated: bool | None
    scans: list[str] = field(default_factory=list)
    depth: tuple[int | str, bool] = (2, False)
    notes: list[str] = field(default_factory=list)


def _read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append(f"{path.parent.name}/{path.name} is missing.")
        return {}
    except (OSError, ValueError) as error:
        notes.append(f"{path.parent.name}/{path.name} could not be read: {error}.")
        return {}
    return content if isinstance(content, dict) else {}


def _read_options(folder: Path) -> dict[str, Any]:
    path = folder / "report.yaml"
    if not path.is_file():
        return {}
    import yaml

    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise InputError(path, f"no valid YAML ({error})", "a mapping", "Mend the file's syntax.") from error
    unknown = sorted(set(options) - set(_OPTIONS)) if isinstance(options, dict) else [type(options).__name__]
    if unknown:
        raise InputError(path, ", ".join(map(str, unknown)), f"any of {', '.join(_OPTIONS)}", "Remove the others.")
    return dict(options)


def _method_titles(options: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Evaluation names in the order of the tables, with titles: as asked, else the known ones first."""
    asked = options.get("methods")
    if isinstance(asked, Mapping):
        return {str(name): str(title) for name, title in asked.items()}
    if asked:
        return {str(name): _TITLES.get(str(name), str(name)) for name in asked}
    found = sorted(path.name for path in (folder / "evaluation").glob("*") if path.is_dir())
    names = [name for name in _TITLES if name in found] + [name for name in found if name not in _TITLES]
    return {name: _TITLES.get(name, name) for name in names}


def _read_method(folder: Path, name: str, title: str, notes: list[str]) -> Method | None:
    place = folder / "evaluation" / name
    content = _read_json(place / "metrics.json", notes)
    metrics: dict[str, Any] = {
        kind: v for kind, v in content.items() if isinstance(v, dict) and {"dice", "mean"} <= v.keys()
    }
    if not metrics:
        notes.append(f"{title} is left out: evaluation/{name}/metrics.json holds no scores.")
        return None
    metrics["conventions"] = content.get("conventions") or {}
    tables: dict[str, list[Row]] = {}
    for table, needed in (("slices", _SLICE_COLUMNS), ("scans", _SCAN_COLUMNS)):
        try:
            tables[table] = read_rows(place / f"{table}.csv")
        except (OSError, ValueError) as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"could not be read ({error})"
            notes.append(f"{title}: evaluation/{name}/{table}.csv {reason}.")
            tables[table] = []
        missing = sorted(needed - set(tables[table][0])) if tables[table] else []
        if missing:
            notes.append(f"{title}: evaluation/{name}/{table}.csv has no column {', '.join(missing)}.")
            tables[table] = []
    return Method(name, title, metrics, tables["slices"], tables["scans"], place / "predictions")


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _read_training(place: Path, title: str, notes: list[str]) -> Training:
    try:
        rows = read_rows(place / "history.csv")
    except OSError:
        notes.append(f"{title}: {place.name}/history.csv is missing, so there are no training curves.")
        rows = []
    columns = list(rows[0]) if rows else []
    history = {name: np.array([_number(row[name]) for row in rows]) for name in columns}
    return Training(place.name, title, history, _read_json(place / "run.json", notes))


def _says_simulated(cohort: Mapping[str, Any]) -> bool:
    if "simulated" in cohort:
        return bool(cohort["simulated"])
    words = [*cohort, str(cohort.get("name", "")), str(cohort.get("description", ""))]
    return any("simulat" in word.lower() for word in words)


def read_run(folder: str | PathLike[str], cohort: str | PathLike[str] | None = None) -> RunFolder:
    """Read a run folder.

    Args:
        folder: RUN_DIR of the layout above.
        cohort: cohort folder or file; default RUN_DIR/cohort, or what report.yaml names (relative to RUN_DIR).

    Returns:
        The parts that exist, and notes on those that do not.

    Raises:
        InputError: if the folder or all evaluations are missing, report.yaml has unknown keys, or a cohort that
            was named cannot be read.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(place, "no folder", "a run folder", "Give the folder that holds evaluation/.")
    options = _read_options(place)
    notes: list[str] = []
    titles = _method_titles(options, place)
    methods = [m for m in (_read_method(place, name, title, notes) for name, title in titles.items()) if m]
    if not methods:
        raise InputError(
            place / "evaluation",
            "no evaluation" if not titles else f"no scores of {', '.join(titles)}",
            "evaluation/NAME/metrics.json",
            "Evaluate first: `grn-monai evaluate`, or a bundle's evaluate.yaml.",
        )
    trainings = [
        _read_training(path, _TITLES.get(path.name, path.name).replace(" (S alone)", ""), notes)
        for path in sorted({file.parent for name in ("history.csv", "run.json") for file in place.glob(f"*/{name}")})
    ]
    trainings.sort(key=lambda run: next((i for i, name in enumerate(titles) if name == run.name), len(titles)))
    run = RunFolder(place, str(options.get("title", place.resolve().name)), methods, trainings, {}, {}, None)
    run.scans = [str(scan) for scan in options.get("scans") or []]
    run.depth = (options.get("depth_axis", 2), bool(options.get("depth_reversed", False)))
    run.notes = notes
    named = cohort if cohort is not None else options.get("cohort") and place / options["cohort"]
    _read_cohort(run, named)
    return run


def _read_cohort(run: RunFolder, named: str | PathLike[str] | None) -> None:
    from grn_monai.data.cohort import SECTIONS, load_cohort
    from grn_monai.data.names import item_names

    try:
        run.cohort, _ = load_cohort(named or run.folder / "cohort")
    except InputError as error:
        if named:
            raise
        run.notes.append(f"No cohort, so no pictures, and whether the data are simulated is not known: {error}")
        return
    for section in SECTIONS:
        for item in run.cohort[section]:
            run.items[item_names(item)] = item
    run.simulated = _says_simulated(run.cohort)
