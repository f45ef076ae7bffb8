"""Small CT and MR cohorts and options of short trainings, for the tests of this folder and of the zoo's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep.simulate.lumbar import LumbarSettings, simulate_lumbar

CT, MRI = "ct_lumbar_muscle", "mri_paraspinal_muscle"
CT_SMALL: dict[str, Any] = {"slice_size": [32, 32], "device": "cpu", "batch_size": 4, "epochs": 1}
MRI_SMALL: dict[str, Any] = {
    "spacing": [4.0, 4.0, 10.0], "patch_size": [32, 32], "channels": [4, 8, 16], "device": "cpu",
    "iterations": 2, "val_every": 2, "batch_size": 2,
}  # fmt: skip
GRN: dict[str, Any] = {"base_channels": 4}
_SHAPES: dict[str, Any] = {
    "ct": {"shape": (48, 48, 4), "spacing_mm": (7.5, 7.5, 40.0)},
    "mri": {"shape": (56, 56, 6), "spacing_mm": (4.0, 4.0, 10.0)},
}


def small_cohort(folder: Path, modality: str, split: tuple[int, int, int] = (2, 1, 1)) -> Path:
    """A simulated cohort, ``ct`` or ``mri``."""
    settings = LumbarSettings(modality=modality, split=split, seed=1, **_SHAPES[modality])
    simulate_lumbar(folder, settings, workers=1, progress=False)
    return folder
