"""Study folders made by a test: known scores, in the files that the runner and the evaluations leave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grn_monai.metrics.evaluation import SCAN_COLUMNS, SLICE_COLUMNS
from grn_monai.metrics.files import csv_text
from grn_monai.metrics.summary import LAYER_KEYS

SUBJECTS = ("s1", "s2", "s3")
PLANES = ("sagittal", "transverse")
SLICES = 2  # of each plane


def write_evaluation(
    folder: Path, dice: np.ndarray, subjects: Sequence[str] = SUBJECTS, thickness: float = 0.5
) -> None:
    """Write `slices.csv` and `scans.csv` of one scan a subject; dice (subjects · 2 planes · SLICES, 6), fractions."""
    keys = [(s, f"{s}_a", plane, i) for s in subjects for plane in PLANES for i in range(SLICES)]
    rows = [(*key, *values, float(np.mean(values))) for key, values in zip(keys, dice, strict=True)]
    folder.mkdir(parents=True)
    (folder / "slices.csv").write_text(csv_text(SLICE_COLUMNS, rows))
    per_scan = dice.reshape(len(subjects), -1, 6).mean(axis=1)
    scans = [
        (s, f"{s}_a", kind, layer, 1, value, float("nan"), float("nan"), thickness, -thickness / 2, 3.0)
        for s, values in zip(subjects, per_scan, strict=True)
        for kind in ("volume", "decoded")
        for layer, value in zip(LAYER_KEYS, values, strict=True)
    ]
    (folder / "scans.csv").write_text(csv_text(SCAN_COLUMNS, scans))


def write_training(folder: Path, seed: int, **record: Any) -> None:
    """Write `run.json`, `history.csv` and `status.json` of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "seed": seed,
        "status": "completed",
        "epochs": 2,
        "iterations": 96,
        "seconds": 30.0,
        "scans": ["s9_a"],
        "git": {"commit": "0123456789abcdef", "changed_files": 0},
        "versions": {"monai": "1.6.1", "torch": "2.13.0"},
        "command": ["__main__.py", "run", "training", "--output_dir", str(folder.resolve())],
        "config": {"large": "x" * 100},
    }
    (folder / "run.json").write_text(json.dumps(content | record))
    (folder / "history.csv").write_text("epoch,iteration,train_loss,val_dice_loss\n1,48,0.5,\n2,96,0.4,0.45\n")
    (folder / "status.json").write_text(json.dumps({"state": "done", "stage": "test_raw", "error": None}))


def constant(value: float, subjects: Sequence[str] = SUBJECTS) -> np.ndarray:
    """The same Dice for every slice and layer."""
    return np.full((len(subjects) * len(PLANES) * SLICES, 6), value)


def write_study(
    folder: Path,
    methods: Mapping[str, Mapping[str, Any]],
    scores: Mapping[tuple[str, float, int, str], np.ndarray],
    fractions: Sequence[float] = (0.05, 1.0),
    seeds: Sequence[int] = (0,),
    subjects: Sequence[str] = SUBJECTS,
    sections: Sequence[str] = ("test",),
    **plan: Any,
) -> Path:
    """Write a study: `scores` maps (method, fraction, seed, "SECTION_MODE") to slice Dice; other runs are missing.

    A method may have `fractions` of its own.
    """
    runs = []
    for key, method in methods.items():
        for fraction in method.get("fractions", fractions):
            for seed in seeds:
                place = f"runs/{key}/{100 * fraction:g}pct/seed_{seed}"
                runs.append({"method": key, "fraction": fraction, "seed": seed, "folder": place})
                for (name, share, number, mode), dice in scores.items():
                    if (name, share, number) == (key, fraction, seed):
                        write_training(folder / place, seed)
                        write_evaluation(folder / place / "evaluation" / mode, dice, subjects)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "name": "tiny",
        "title": "A tiny study",
        "methods": {k: {n: v for n, v in m.items() if n != "fractions"} for k, m in methods.items()},
        "fractions": list(fractions),
        "seeds": list(seeds),
        "sections": list(sections),
        "cohort": "cohort",
        "simulated": True,
        "runs": runs,
        "provenance": {},
    }
    (folder / "study.json").write_text(json.dumps(content | plan))
    return folder
