"""The scores of one evaluation folder as small arrays: a few hundred kB each, so that a thousand of them fit."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grn_monai.metrics.evaluation import SCAN_COLUMNS, SLICE_COLUMNS
from grn_monai.metrics.files import read_rows
from grn_monai.metrics.summary import LAYER_KEYS

__all__ = ["Evaluation", "ScanScores", "SliceRows", "read_evaluation"]

Scores = npt.NDArray[np.float32]

_NUMBERS = len(LAYER_KEYS) + 1  # the layers and their mean, after subject, scan, plane and index
_THICKNESS = ("thickness_error_mm", "mean_thickness_error_mm", "truth_thickness_mm")


@dataclass(frozen=True)
class SliceRows:
    """What the rows of a slice table are: tuples of N names each, and a digest that equal tables share."""

    subjects: tuple[str, ...]
    scans: tuple[str, ...]
    planes: tuple[str, ...]
    indices: tuple[int, ...]
    digest: str


@dataclass(frozen=True)
class ScanScores:
    """Scores of one kind of volume ("volume", "decoded"): M scans, layers superficial to deep.

    Attributes:
        subjects: (M,) subject of each scan.
        scans: (M,) its name.
        dice: (M, 6) fractions.
        thickness_error_mm: (M, 6) mean over A-lines of |predicted − true| thickness.
        mean_thickness_error_mm: (M, 6) predicted − true mean thickness, signed.
        truth_thickness_mm: (M, 6) true mean thickness.
    """

    subjects: tuple[str, ...]
    scans: tuple[str, ...]
    dice: Scores
    thickness_error_mm: Scores
    mean_thickness_error_mm: Scores
    truth_thickness_mm: Scores


@dataclass(frozen=True)
class Evaluation:
    """One section and mode of one run.

    Attributes:
        folder: where it lies, with `predictions/`.
        section: "test", "validation" or "training".
        mode: "raw" or "sge".
        dice: (N, 6) slice Dice, fractions, rows as `rows`.
        rows: what the rows are; one object for all evaluations with the same rows.
        volumes: kind of volume to its scans' scores; empty without `scans.csv`.
    """

    folder: Path
    section: str
    mode: str
    dice: Scores
    rows: SliceRows
    volumes: dict[str, ScanScores]


def _read_slices(file: Path, known: dict[str, SliceRows]) -> tuple[Scores, SliceRows]:
    """Dice and rows. A large study has ten million lines, so each is cut in two and the numbers parsed as one block."""
    head, *lines = file.read_text(encoding="utf-8").splitlines() or [""]
    if tuple(head.split(",")) != SLICE_COLUMNS:
        msg = f"{file.name} has the columns {head or 'none'}, expected {','.join(SLICE_COLUMNS)}"
        raise ValueError(msg)
    if not lines:
        msg = f"{file.name} has no rows"
        raise ValueError(msg)
    # From the right: a quoted name may hold commas, numbers do not.
    cut = [line.rsplit(",", _NUMBERS) for line in lines]
    if any(len(parts) != _NUMBERS + 1 for parts in cut):
        msg = f"{file.name} has a line of fewer than {len(SLICE_COLUMNS)} cells"
        raise ValueError(msg)
    names = [parts[0] for parts in cut]
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    if digest not in known:
        subjects, scans, planes, indices = zip(*csv.reader(names), strict=True)
        known[digest] = SliceRows(subjects, scans, planes, tuple(map(int, indices)), digest)
    numbers = np.loadtxt([",".join(parts[1:]) for parts in cut], dtype=np.float32, delimiter=",", ndmin=2)
    dice = np.ascontiguousarray(numbers[:, : len(LAYER_KEYS)])
    if not ((dice >= 0) & (dice <= 1)).all():
        msg = f"{file.name} holds Dice values that are no fractions between 0 and 1"
        raise ValueError(msg)
    return dice, known[digest]


def _read_volumes(file: Path) -> dict[str, ScanScores]:
    """Scan scores of both fused kinds; scans that lack a layer's row are a fault."""
    found: dict[str, dict[tuple[str, str], dict[str, dict[str, str]]]] = {}
    for row in read_rows(file):
        missing = [name for name in SCAN_COLUMNS if row.get(name) is None]
        if missing:
            msg = f"{file.name} has no column {', '.join(missing)}"
            raise ValueError(msg)
        if row["kind"] in ("volume", "decoded"):
            found.setdefault(row["kind"], {}).setdefault((row["subject"], row["scan"]), {})[row["layer"]] = row
    volumes = {}
    for kind, scans in found.items():
        arrays = {}
        for column in ("dice", *_THICKNESS):
            values = [[layers.get(key, {}).get(column) or "nan" for key in LAYER_KEYS] for layers in scans.values()]
            arrays[column] = np.array(values).astype(np.float32)
        subjects, names = zip(*scans, strict=True)
        volumes[kind] = ScanScores(subjects, names, **arrays)
    return volumes


def read_evaluation(folder: Path, section: str, mode: str, known: dict[str, SliceRows]) -> Evaluation:
    """Read `slices.csv` and, where it is there, `scans.csv`.

    Args:
        folder: the evaluation's folder.
        section: section of the cohort that it scores.
        mode: how the method predicted.
        known: digest to rows seen before, so that equal rows are kept once; new ones are added.

    Raises:
        OSError: slices.csv cannot be read.
        ValueError: a file is no such table.
    """
    dice, rows = _read_slices(folder / "slices.csv", known)
    scans = folder / "scans.csv"
    return Evaluation(folder, section, mode, dice, rows, _read_volumes(scans) if scans.is_file() else {})
