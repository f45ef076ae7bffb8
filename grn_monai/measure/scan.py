"""All numbers of one scan, from its label volume and its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_NAMES
from grn_monai.measure.layers import LevelStatistics, fascia_echo, in_decibel, level, measure_layer, slice_areas
from grn_monai.measure.quality import quality_flags, view_numbers

__all__ = ["LabelSet", "ScanMeasurement", "measure_scan"]

SCAN_PLANES = {"sagittal": 0, "transverse": 1}
_ANATOMICAL = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}


@dataclass(frozen=True)
class LabelSet:
    """What the labels of a cohort mean.

    Attributes:
        names: foreground label to name, superficial to deep for layers.
        layered: the labels are the layers of an ultrasound scan; otherwise only volumes, areas and grey values are
            measured.
    """

    names: dict[int, str]
    layered: bool

    @classmethod
    def of(cls, labels: Mapping[Any, str] | None) -> LabelSet:
        """From a cohort's ``labels``; without names for foreground, the layers of the low back."""
        named = {int(value): str(name) for value, name in (labels or {}).items() if int(value) > 0}
        layers = {value: name for value, name in LAYER_NAMES.items() if value > 0}
        if not named:
            return cls(layers, True)
        same = {value: name.strip().lower() for value, name in named.items()} == layers
        return cls(dict(sorted(named.items())), same)

    @property
    def num_classes(self) -> int:
        """Labels up to the largest, background included."""
        return max(self.names) + 1

    @property
    def muscles(self) -> list[int]:
        """Labels whose cross-sectional area is measured: what is called a muscle, in a set without layers all."""
        return [label for label, name in self.names.items() if not self.layered or "muscle" in name.lower()]

    @property
    def fasciae(self) -> list[int]:
        """Labels of the fascial membranes."""
        return [label for label, name in self.names.items() if "fascia" in name.lower()]


@dataclass
class ScanMeasurement:
    """Outcome of `measure_scan`.

    Attributes:
        numbers: the part of a scan's entry in ``measurements.json`` that comes from the voxels.
        maps: label to thickness along the A-line, (X, Y) in mm; empty for labels that are no layers.
        normal_maps: the same along the surface normal.
    """

    numbers: dict[str, Any]
    maps: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    normal_maps: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)


def _planes(label_set: LabelSet, affine: npt.ArrayLike) -> dict[str, int]:
    """Plane names to the axis that their slices fix."""
    if label_set.layered:
        return SCAN_PLANES
    import nibabel as nib

    codes = nib.orientations.aff2axcodes(np.asarray(affine, dtype=np.float64))
    return {_ANATOMICAL[str(code)]: axis for axis, code in enumerate(codes)}


def measure_scan(
    labels: npt.NDArray[np.integer],
    grey: npt.NDArray[np.floating] | None,
    affine: npt.ArrayLike,
    label_set: LabelSet,
    limits: Mapping[str, float],
    inference: Mapping[str, float | None] | None = None,
    note: str | None = None,
    normal: bool = True,
    dynamic_range_db: float | None = None,
) -> ScanMeasurement:
    """Measures one scan.

    Args:
        labels: (X, Y, Z) labels in the scan frame, Z = depth increasing away from the probe.
        grey: (X, Y, Z) grey values as stored, or None.
        affine: of the scan frame, voxel to RAS in mm; lengths of its columns are the voxel size.
        label_set: what the labels mean.
        limits: of the quality checks, see `grn_monai.measure.quality.check_limits`.
        inference: values of the checks that come from inference.
        note: why those are not known.
        normal: also measure thickness along the surface normal.
        dynamic_range_db: of the display; gives levels in dB relative to full scale.

    Returns:
        The numbers and maps.

    Raises:
        InputError: the grey values are constant.
    """
    import torch

    from grn_monai.transforms.echo import echo_range, scale_echo

    labels = np.asarray(labels)
    spacing = [float(step) for step in np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)]
    statistics = LevelStatistics(labels, grey, label_set.num_classes)
    echo, percent, decibel = None, None, None
    if label_set.layered and grey is not None:
        volume = torch.from_numpy(np.asarray(grey))
        # The rule and the clipping of the networks' input, so that a level means the same everywhere.
        percent = scale_echo(volume, *echo_range(volume)).add_(1).mul_(50).numpy()
        echo, decibel = LevelStatistics(labels, percent, label_set.num_classes), dynamic_range_db
    voxel_ml = spacing[0] * spacing[1] * spacing[2] / 1000
    out = ScanMeasurement({"shape": list(labels.shape), "spacing_mm": spacing})
    planes = _planes(label_set, affine)
    layers: list[dict[str, Any]] = []
    for label, name in label_set.names.items():
        entry: dict[str, Any] = {"label": label, "name": name}
        if label_set.layered:
            numbers, along, across = measure_layer(labels, label, spacing, normal)
            entry |= numbers
            out.maps[label] = along
            if across is not None:
                out.normal_maps[label] = across
        entry["volume_ml"] = int(statistics.counts[label]) * voxel_ml
        entry["echo_percent"] = level(echo.of([label])) if echo else None
        entry["echo_db"] = in_decibel(echo.of([label]), decibel) if echo else None
        entry["grey"] = level(statistics.of([label])) if grey is not None else None
        entry["area_cm2"] = slice_areas(labels, label, spacing, planes) if label in label_set.muscles else None
        layers.append(entry)
    out.numbers["layers"] = layers
    areas = [entry["area_cm2"] for entry in layers if entry["area_cm2"]]
    out.numbers["muscle_area_cm2"] = areas[-1] if label_set.layered and areas else None
    muscle = label_set.muscles[-1:] if label_set.layered else []
    fascia = fascia_echo(echo, label_set.fasciae, muscle[0], decibel) if echo and muscle else None
    out.numbers["fascia"] = fascia
    if label_set.layered:
        values = view_numbers(labels, percent, list(label_set.names)) | dict(inference or {})
    else:
        values = _volume_values(statistics.counts, label_set) | dict(inference or {})
    out.numbers["quality"] = quality_flags(values, limits, label_set.names, note, layered=label_set.layered)
    return out


def _volume_values(counts: Sequence[int] | npt.NDArray[np.int64], label_set: LabelSet) -> dict[str, Any]:
    missing = [label for label in label_set.names if not counts[label]]
    return {"layers_missing": len(missing), "missing": missing}
