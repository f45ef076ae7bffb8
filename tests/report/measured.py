"""A small folder of measurements with volumes of bands, whose grey value, label and thickness are known everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_NAMES

SHAPE = (24, 20, 48)
SPACING = (0.5, 0.4, 0.25)
BANDS = ((1, 4, 40), (2, 14, 100), (3, 18, 160), (4, 26, 70), (5, 30, 200), (6, 48, 120))
"""Label, first voxel below the band, and grey value."""

HOSTILE = '<img src=x onerror="window.broken=1">'


def volumes(shape: tuple[int, int, int] = SHAPE) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Image and labels: bands along depth. Fat reaches 4 voxels deeper, and is darker, in the far half of X."""
    image, labels = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    top = 0
    for label, end, grey in BANDS:
        image[:, :, top:end], labels[:, :, top:end] = grey, label
        top = end
    half = shape[0] // 2
    labels[half:, :, 14:18], labels[half:, :, 18:22] = 2, 3
    image[half:, :, 4:18] = 20
    image[:, :, :2], labels[:, :, :2] = 255, 0
    image[0, 0, 0] = 0
    return image, labels


def save(path: Path, array: npt.NDArray[Any], spacing: tuple[float, ...] = SPACING) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1])), path)
    return str(path)


def layer(label: int, mean: float | None) -> dict[str, Any]:
    """One layer; `mean` None for one that was not found."""
    stats = dict.fromkeys(("mean", "sd", "p5", "p95"))
    if mean is not None:
        stats = {"mean": mean, "sd": 0.25, "p5": mean - 0.5, "p95": mean + 0.5}
    return {
        "label": label,
        "name": LAYER_NAMES[label],
        "coverage_percent": 0.0 if mean is None else 100.0,
        "volume_ml": 0.0 if mean is None else 2 * mean,
        "thickness_mm": stats,
        "normal_thickness_mm": None,
        "echo_percent": {"mean": 12.5, "sd": 1.0},
        "echo_db": None,
    }


def flag(name: str, level: str, value: float | None) -> dict[str, Any]:
    titles = {"planes": "Planes disagree", "dark": "Dark A-lines", "sge": "S(x) and S(G(x)) disagree"}
    return {
        "name": name,
        "title": titles[name],
        "level": level,
        "value": value,
        "limit": 15.0,
        "unit": "% of A-lines",
        "text": f"{titles[name]} is {level}.",
    }


def scan(name: str, subject: str, fat: float | None, looks: int, **more: Any) -> dict[str, Any]:
    """One scan; `fat` is its superficial fat in mm, `looks` how many of two flags are raised."""
    means = {1: 0.5, 2: fat, 3: 1.0, 4: 1.5, 5: 1.0, 6: 4.5}
    flags = [
        flag("planes", "check" if looks > 0 else "ok", 20.0 if looks > 0 else 3.0),
        flag("dark", "check" if looks > 1 else "ok", 31.25 if looks > 1 else 0.0),
        flag("sge", "unknown", None),
    ]
    return {
        "subject": subject,
        "scan": name,
        **{"side": None, "site": None, "status": None, "repeat": None},
        "shape": list(SHAPE),
        "spacing_mm": list(SPACING),
        "quality": {"status": "check" if looks else "ok", "flags": flags},
        "layers": [layer(label, mean) for label, mean in means.items()],
        "muscle_area_cm2": {"sagittal": {"mean": 3.25, "sd": 0.5, "max": 4.0}},
        "fascia": None,
        "map": None,
        **more,
    }


def write_measured(folder: Path, scans: list[dict[str, Any]] | None = None, **more: Any) -> Path:
    """Write volumes and `measurements.json` of four scans; `more` replaces parts of the JSON."""
    image, labels = volumes()
    paths = {
        "image": save(folder / "data/image.nii.gz", image),
        "segmentation": save(folder / "data/seg.nii.gz", labels),
    }
    if scans is None:
        scans = [
            scan("s9", "ann", 9.0, 0, side="left"),
            scan("s10", "ann", 10.0, 1, side="right"),
            scan("s2", "bob", None, 0, side="left"),
            scan(HOSTILE, "bob", 2.5, 2, side="right"),
        ]
    content = {
        "format": "grn-monai measurements 1",
        "simulated": True,
        "source": {"cohort": "back study", "predictions": "out", "depth_axis": 2, "depth_reversed": False},
        "labels": {str(label): LAYER_NAMES[label] for label in range(1, 7)},
        "provenance": {"versions": {"grn-monai": "0.1.0"}},
        "scans": [{**paths, **entry} for entry in scans],
        "left_right": [],
        "repeatability": [],
        "failures": {},
        **more,
    }
    (folder / "measurements.json").write_text(json.dumps(content))
    return folder
