"""All numbers of one scan, from its label volume and its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_NAMES
from grn_monai.measure.layers import (
    LevelStatistics,
    area_numbers,
    fascia_echo,
    in_decibel,
    level,
    measure_layer,
    slice_areas,
    slice_counts,
)
from grn_monai.measure.quality import quality_flags, view_numbers
from grn_monai.metrics.overlap import PLANE_AXES

__all__ = ["LabelSet", "ScanMeasurement", "measure_scan"]

_ANATOMICAL = {"L": "sagittal", "R": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}


@dataclass(frozen=True)
class LabelSet:
    """What the labels of a cohort mean.

    Attributes:
        names: foreground label to name, superficial to deep for layers.
        layered: the labels are layers in the order of depth, as in an ultrasound scan; otherwise only volumes, areas
            and grey values are measured.
    """

    names: dict[int, str]
    layered: bool

    @classmethod
    def of(cls, labels: Mapping[Any, str] | None, layered: bool | None = None) -> LabelSet:
        """From a cohort's ``labels``; without names for foreground, the layers of the low back.

        Args:
            labels: label to name.
            layered: whether they are layers in the order of depth; None where nothing says so: then the names of
                `grn_monai.labels.LAYER_NAMES` are, and others are not.
        """
        named = {int(value): str(name) for value, name in (labels or {}).items() if int(value) > 0}
        layers = {value: name for value, name in LAYER_NAMES.items() if value > 0}
        if not named:
            return cls(layers, layered is not False)
        if layered is not None:
            return cls(dict(sorted(named.items())), layered)
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
        areas: label and plane to the area of every slice in cm².
        planes: plane to the axis that its slices fix.
    """

    numbers: dict[str, Any]
    maps: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    normal_maps: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)
    areas: dict[int, dict[str, npt.NDArray[np.float64]]] = field(default_factory=dict)
    planes: dict[str, int] = field(default_factory=dict)


def _planes(label_set: LabelSet, affine: npt.ArrayLike, shape: tuple[int, ...]) -> dict[str, int]:
    """Plane names to the axis that their slices fix: planes whose slices are more than one voxel wide and high."""
    planes = PLANE_AXES
    if not label_set.layered:
        import nibabel as nib

        codes = nib.orientations.aff2axcodes(np.asarray(affine, dtype=np.float64))
        planes = {_ANATOMICAL[str(code)]: axis for axis, code in enumerate(codes)}
    return {plane: axis for plane, axis in planes.items() if min(shape[:axis] + shape[axis + 1 :]) > 1}


def _echo_level(grey: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Echo level in percent, and the scale: its rule and the grey values of 0 and 100 %.

    The rule and the clipping of the networks' input. Only with 8 bits the ends of the display's range are known; the
    percentiles are those of the scan, so that what is black or white in one is not so in another.
    """
    import torch

    from grn_monai.transforms.echo import echo_range, scale_echo

    volume = torch.from_numpy(np.asarray(grey))
    black, white = echo_range(volume)
    # 0 and 255 may also be percentiles, of grey values that reach beyond or are no whole numbers.
    eight = (black, white) == (0.0, 255.0)
    if eight and grey.dtype != np.uint8:
        eight = float(grey.min()) >= 0 and float(grey.max()) <= 255 and all((s == np.floor(s)).all() for s in grey)
    percent = scale_echo(volume, black, white).add_(1).mul_(50).numpy()
    return percent, {"rule": "8-bit" if eight else "percentiles", "black": black, "white": white}


def measure_scan(
    labels: npt.NDArray[np.integer],
    grey: npt.NDArray[np.floating] | None,
    affine: npt.ArrayLike,
    label_set: LabelSet,
    limits: Mapping[str, float],
    inference: Mapping[str, float | None] | None = None,
    notes: Mapping[str, str] | None = None,
    normal: bool = True,
    dynamic_range_db: float | None = None,
    predicted: bool = True,
) -> ScanMeasurement:
    """Measures one scan.

    Args:
        labels: (X, Y, Z) labels in the scan frame, Z = depth increasing away from the probe.
        grey: (X, Y, Z) grey values as stored, or None.
        affine: of the scan frame, voxel to RAS in mm; lengths of its columns are the voxel size.
        label_set: what the labels mean.
        limits: of the quality checks, see `grn_monai.measure.quality.check_limits`.
        inference: values of the checks that come from inference.
        notes: check to why its value is not known.
        normal: also measure thickness along the surface normal.
        dynamic_range_db: of the display; gives levels in dB relative to full scale where the scan has 8 bits, so that
            the grey levels of its ends are known.
        predicted: whether the labels are a prediction, for the words of the checks.

    Returns:
        The numbers and maps.

    Raises:
        InputError: the grey values are constant.
    """
    labels = np.asarray(labels)
    spacing = [float(step) for step in np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)]
    statistics = LevelStatistics(labels, grey, label_set.num_classes)
    echo, percent, scale, decibel = None, None, None, None
    if label_set.layered and grey is not None:
        percent, scale = _echo_level(np.asarray(grey))
        echo = LevelStatistics(labels, percent, label_set.num_classes)
        decibel = dynamic_range_db if scale["rule"] == "8-bit" else None
    voxel_ml = spacing[0] * spacing[1] * spacing[2] / 1000
    out = ScanMeasurement({"shape": list(labels.shape), "spacing_mm": spacing, "echo_scale": scale})
    planes = out.planes = _planes(label_set, affine, labels.shape)
    per_slice = slice_counts(labels, label_set.num_classes) if planes and label_set.muscles else ()
    order = list(label_set.names)
    layers: list[dict[str, Any]] = []
    for label, name in label_set.names.items():
        entry: dict[str, Any] = {"label": label, "name": name}
        if label_set.layered:
            numbers, along, across = measure_layer(labels, label, spacing, normal, order)
            entry |= numbers
            out.maps[label] = along
            if across is not None:
                out.normal_maps[label] = across
        entry["volume_ml"] = int(statistics.counts[label]) * voxel_ml
        entry["echo_percent"] = level(echo.of([label])) if echo else None
        entry["echo_db"] = in_decibel(echo.of([label]), decibel) if echo else None
        entry["grey"] = level(statistics.of([label])) if grey is not None else None
        entry["area_cm2"] = None
        if per_slice and label in label_set.muscles:
            out.areas[label] = slice_areas(per_slice, label, spacing, planes)
            entry["area_cm2"] = {plane: area_numbers(areas) for plane, areas in out.areas[label].items()}
        layers.append(entry)
    out.numbers["layers"] = layers
    areas = [entry["area_cm2"] for entry in layers if entry["area_cm2"]]
    out.numbers["muscle_area_cm2"] = areas[-1] if label_set.layered and areas else None
    muscle = label_set.muscles[-1:] if label_set.layered else []
    fascia = fascia_echo(echo, label_set.fasciae, muscle[0], decibel) if echo and muscle else None
    out.numbers["fascia"] = fascia
    if label_set.layered:
        values = view_numbers(labels, percent, order) | dict(inference or {})
    else:
        values = _volume_values(statistics.counts, label_set) | dict(inference or {})
    out.numbers["quality"] = quality_flags(values, limits, label_set.names, notes, label_set.layered, predicted)
    return out


def _volume_values(counts: Sequence[int] | npt.NDArray[np.int64], label_set: LabelSet) -> dict[str, Any]:
    missing = [label for label in label_set.names if not counts[label]]
    return {"layers_missing": len(missing), "missing": missing}
