"""The tables of muscle health, and the JSON with everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from grn_monai.files import write_whole
from grn_monai.measure.layers import PERCENTILES
from grn_monai.measure.muscle.settings import MuscleSettings
from grn_monai.measure.muscle.sides import muscle_sides
from grn_monai.metrics.files import csv_text, json_text

__all__ = ["FORMAT", "UNITS", "write_muscle_results"]

FORMAT = "grn-monai muscle 1"
"""The ``format`` of ``muscle.json``."""

UNITS = {
    "volume_ml": "ml within the scan: a lower bound where cut_ends names an end of it",
    "lean_volume_ml": "ml, the volume less its share of fat; lean_area_cm2 likewise",
    "area_cm2": "cm² perpendicular to the long axis of the body (S): area in the slice projected on the axial plane",
    "area_mean_cm2": "cm², mean over the slices that hold the muscle; area_max_cm2 the largest",
    "slices_with": "slices that hold the muscle",
    "hu": "HU over all counted voxels of the muscle; SD over voxels (N − 1)",
    "grey": "grey value as stored (after N4 where bias_correction is true); SD over voxels (N − 1)",
    "muscle_density_hu": "HU, mean over the counted voxels in the range of muscle (low and normal attenuation)",
    "fat_percent": "% of the counted voxels: in CT those in the range of fat, in MR those above the threshold",
    "low_percent": "% of the counted voxels with low attenuation; normal_percent and other_percent likewise",
    "low_of_muscle_percent": "low attenuation in % of low and normal attenuation",
    "position_mm": "mm along S (RAS)",
    "slice": "number of the slice from the lower end of the scan up, from 0 (RAS), whatever the order in the file",
    "difference": "right − left in the unit of the row; of shares in percentage points",
    "asymmetry_percent": "100·(right − left) / mean of both; none of densities, as the zero of HU is arbitrary",
    "counted": "all voxels of the muscle, less those within erode_mm of its edge",
}

_KEYS = ("subject", "scan")
_PARTS = {
    "ct": (
        "fat_percent",
        "low_percent",
        "normal_percent",
        "other_percent",
        "low_of_muscle_percent",
        "muscle_density_hu",
    ),
    "mri": ("fat_percent",),
}
_MUSCLE_KEYS = ("volume_ml", "lean_volume_ml", "slices_with", "area_mean_cm2", "area_max_cm2", "cut_ends")
_SPREAD = ("mean", "sd", *PERCENTILES)
_LEVEL_KEYS = ("level", "position_mm", "slice", "slice_position_mm", "slices", "area_cm2", "lean_area_cm2")
_SIDE_KEYS = ("muscle", "level", "measure", "unit", "left", "right", "difference", "asymmetry_percent", "check")


def _grey(modality: str) -> str:
    return "hu" if modality == "ct" else "grey"


def _each(scans: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[Any], Mapping[str, Any]]]:
    for scan in scans:
        for muscle in scan["muscles"]:
            yield [*(scan[key] for key in _KEYS), muscle["label"], muscle["name"]], muscle


def _texts(scans: Sequence[Mapping[str, Any]], modality: str) -> dict[str, str]:
    """File name to CSV."""
    grey, parts = _grey(modality), _PARTS[modality]
    keys = (*_KEYS, "label", "muscle")
    muscles = [
        [*key, *(m[k] for k in _MUSCLE_KEYS), *(m["grey"][k] for k in _SPREAD), *(m[k] for k in parts), m["check"]]
        for key, m in _each(scans)
    ]
    slices = [
        [*key, row["slice"], row["position_mm"], row["area_cm2"], row["mean"], *(row[k] for k in parts)]
        for key, muscle in _each(scans)
        for row in muscle["slices"]
    ]
    levels = [
        [*key, *(row[k] for k in _LEVEL_KEYS), row["mean"], *(row[k] for k in parts), row["check"]]
        for key, muscle in _each(scans)
        for row in muscle["levels"]
    ]
    sides = [
        [*(scan[key] for key in _KEYS), *(row[k] for k in _SIDE_KEYS)] for scan in scans for row in muscle_sides(scan)
    ]
    spread = [f"{grey}_{name}" for name in _SPREAD]
    return {
        "muscles.csv": csv_text((*keys, *_MUSCLE_KEYS, *spread, *parts, "check"), muscles),
        "areas.csv": csv_text((*keys, "slice", "position_mm", "area_cm2", f"{grey}_mean", *parts), slices),
        "levels.csv": csv_text((*keys, *_LEVEL_KEYS, f"{grey}_mean", *parts, "check"), levels),
        "sides.csv": csv_text((*_KEYS, *_SIDE_KEYS), sides),
    }


def write_muscle_results(
    out: Path,
    scans: Sequence[dict[str, Any]],
    failures: Mapping[str, str],
    about: Mapping[str, Any],
    names: Mapping[int, str],
    modality: str,
    settings: MuscleSettings,
) -> tuple[dict[str, Any], list[Path]]:
    """Writes ``muscles.csv``, ``areas.csv``, ``levels.csv``, ``sides.csv`` and, last, ``muscle.json``.

    Args:
        out: folder.
        scans: entries, one for each scan.
        failures: name of the image file to one line.
        about: where the scans came from.
        names: label to name.
        modality: "ct" or "mri".
        settings: options.

    Returns:
        The content of ``muscle.json``, and the files written.
    """
    from grn_monai.handlers import provenance

    written = [write_whole(out / name, text) for name, text in _texts(scans, modality).items()]
    content = {
        "format": FORMAT,
        **about,
        "modality": modality,
        "labels": {str(label): name for label, name in names.items()},
        "settings": asdict(settings),
        "units": UNITS,
        "provenance": provenance(),
        "scans": list(scans),
        "sides": [{**{key: scan[key] for key in _KEYS}, **row} for scan in scans for row in muscle_sides(scan)],
        "failures": dict(failures),
    }
    written.append(write_whole(out / "muscle.json", json_text(content)))
    return content, written
