"""Folders with `muscles.csv` as `grn-monai evaluate` writes them, of scores that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grn_monai.metrics.files import csv_text
from grn_monai.metrics.muscles import MUSCLE_COLUMNS, MUSCLE_MEASURES

MUSCLES = ("psoas left", "psoas right", "multifidus left")


def row(subject: str, muscle: str, dice: float, truth: float = 50.0, **others: Any) -> tuple[Any, ...]:
    """A consistent row of a muscle with that Dice and true volume (ml); `scan` and measures may be set."""
    values: dict[str, Any] = {
        "dice": dice,
        "jaccard": dice / (2 - dice),
        "conformity": (3 * dice - 2) / dice if dice else float("nan"),
        **dict.fromkeys(("tpr", "ppv"), dice),
        "tnr": 0.99,
        "volume_ml": truth * dice,
        "volume_ratio": dice,
        "truth_volume_ml": truth,
        "hd95_mm": 5.0 - dice,
        "asd_mm": 1.0,
        "scan": subject,
        **others,
    }
    return (subject, values["scan"], muscle, *(values[name] for name in MUSCLE_MEASURES))


def write(folder: Path, rows: Sequence[tuple[Any, ...]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "muscles.csv").write_text(csv_text(MUSCLE_COLUMNS, rows))
    return folder


def random_rows(seed: int, subjects: int = 6, shift: float = 0.0, **changes: Mapping[str, Any]) -> list[Any]:
    """Rows of `MUSCLES`; `changes` maps a subject to keywords of `row` for all its muscles."""
    rows = []
    for s in range(subjects):
        for m, muscle in enumerate(MUSCLES):
            rng, same = np.random.default_rng((seed, s, m)), np.random.default_rng((s, m))
            values = {"dice": 0.85 + shift + 0.01 * m + rng.normal(0, 0.02), "truth": same.uniform(20, 60)}
            values["volume_ml"] = values["truth"] * (1 + rng.normal(0, 0.05))
            rows.append(row(f"s{s}", muscle, **{**values, **changes.get(f"s{s}", {})}))
    return rows
