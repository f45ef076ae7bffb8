"""All numbers of the muscles of one scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from grn_monai.measure.layers import distribution
from grn_monai.measure.muscle.ct import HU_OF_MUSCLE, ct_numbers
from grn_monai.measure.muscle.frame import AxialFrame
from grn_monai.measure.muscle.mr import correct_bias, mr_fat_numbers, threshold_region
from grn_monai.measure.muscle.settings import MuscleSettings
from grn_monai.measure.muscle.threshold import FatThreshold, fat_threshold
from grn_monai.measure.sides import paired_labels

__all__ = ["NOTHING", "ScanMuscles", "measure_muscles"]

NOTHING = "nothing found"
"""The check of a muscle, or a level of it, without a voxel; its numbers are then None."""

ONE_PEAK = "grey values have one peak: the share of fat needs a look"
_ERODED = "nothing left after erosion"
_RIM = "reaches the rim of the slices: area and volume are lower bounds"
_CT_EDGES = np.arange(-250.0, 251.0, 5.0)
_MR_BINS = 100

Grey = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]


@dataclass
class ScanMuscles:
    """Outcome of `measure_muscles`.

    Attributes:
        numbers: the part of a scan's entry in ``muscle.json`` that comes from the voxels.
        grey: (X, Y, Z) grey values that were measured: with the bias field taken out, where that was asked for.
        threshold: of fat in MR.
        region: grey values in which it was looked for.
    """

    numbers: dict[str, Any]
    grey: Grey
    threshold: FatThreshold | None = None
    region: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True)
class _Voxels:
    """The voxels of one muscle: the slice of each, its grey value, and whether it counts for density and fat."""

    slices: npt.NDArray[np.intp]
    values: Grey
    counted: npt.NDArray[np.bool_]
    middle: npt.NDArray[np.float64] | None
    at_rim: bool = False


def _voxels(labels: Labels, grey: Grey, label: int, box: Any, frame: AxialFrame, erode_mm: float) -> _Voxels:
    if box is None:
        empty = np.zeros(0, np.intp)
        return _Voxels(empty, np.zeros(0, np.float32), np.zeros(0, bool), None)
    mask = labels[box] == label
    where = np.nonzero(mask)
    kept = np.ones(len(where[0]), bool)
    if erode_mm > 0:
        padded = np.pad(mask, ((1, 1), (1, 1), (0, 0)))
        # The rim of the volume is no edge of the muscle.
        for axis in (0, 1):
            if box[axis].start == 0:
                padded[(slice(None),) * axis + (0,)] = padded[(slice(None),) * axis + (1,)]
            if box[axis].stop == labels.shape[axis]:
                padded[(slice(None),) * axis + (-1,)] = padded[(slice(None),) * axis + (-2,)]
        for k in range(mask.shape[2]):
            distance = ndimage.distance_transform_edt(padded[:, :, k], sampling=frame.spacing_mm[:2])[1:-1, 1:-1]
            here = where[2] == k
            kept[here] = distance[where[0][here], where[1][here]] > erode_mm
    start = np.array([part.start for part in box])
    middle = np.array([axis.mean() for axis in where]) + start
    at_rim = any(box[axis].start == 0 or box[axis].stop == labels.shape[axis] for axis in (0, 1))
    return _Voxels(where[2] + box[2].start, grey[box][mask], kept, middle, at_rim)


class _Measure:
    """What all muscles of a scan share."""

    def __init__(self, modality: str, settings: MuscleSettings, frame: AxialFrame) -> None:
        self.modality, self.settings, self.frame = modality, settings, frame
        self.threshold: FatThreshold | None = None
        self.edges = _CT_EDGES

    def composition(self, values: Grey) -> dict[str, float | None]:
        """Density and fat of some voxels; None of none."""
        if self.modality == "ct":
            return ct_numbers(values, self.settings)
        return mr_fat_numbers(values, self.threshold)

    def part(self, voxels: _Voxels, chosen: npt.NDArray[np.bool_]) -> dict[str, float | None]:
        """Mean grey value, density and fat of some of the voxels of a muscle."""
        values = voxels.values[chosen & voxels.counted]
        mean = float(values.mean(dtype=np.float64)) if values.size else None
        return {"mean": mean, **self.composition(values)}

    def slices(self, voxels: _Voxels) -> list[dict[str, Any]]:
        """The slices that hold the muscle."""
        positions = self.frame.positions_mm
        counts = np.bincount(voxels.slices, minlength=len(positions))
        rows = []
        for k in np.flatnonzero(counts):
            row: dict[str, Any] = {"slice": int(k), "position_mm": float(positions[k])}
            row["area_cm2"] = int(counts[k]) * self.frame.pixel_cm2
            rows.append(row | self.part(voxels, voxels.slices == k))
        return rows

    def level(self, name: str, position: float, voxels: _Voxels) -> dict[str, Any]:
        """The muscle at a level, averaged over the slices around it that lie within the volume."""
        nearest = self.frame.slice_at(position)
        row: dict[str, Any] = {"level": name, "position_mm": position, "slice": nearest, "slice_position_mm": None}
        if nearest is None:
            nothing = dict.fromkeys(("area_cm2", "lean_area_cm2", "mean"))
            return row | {"slices": 0, **nothing, **self.composition(voxels.values[:0]), "check": "outside of the scan"}
        last = self.frame.shape[2] - 1
        first, end = max(0, nearest - self.settings.average), min(last, nearest + self.settings.average)
        chosen = (voxels.slices >= first) & (voxels.slices <= end)
        count, slices = int(np.count_nonzero(chosen)), end - first + 1
        row |= {"slice_position_mm": float(self.frame.positions_mm[nearest]), "slices": slices}
        part = self.part(voxels, chosen)
        area = count * self.frame.pixel_cm2 / slices if count else None
        row |= {"area_cm2": area, "lean_area_cm2": _lean(area, part["fat_percent"])} | part
        checks = [NOTHING] if not count else []
        if slices < 2 * self.settings.average + 1:
            checks.append(f"{slices} slices only: the level is near an end of the scan")
        return row | {"check": "; ".join(checks)}

    def muscle(self, voxels: _Voxels) -> dict[str, Any]:
        """A whole muscle."""
        count = len(voxels.slices)
        values = voxels.values[voxels.counted]
        numbers = distribution(values)
        parts = self.composition(values)
        rows = self.slices(voxels)
        areas = [row["area_cm2"] for row in rows]
        volume = count * self.frame.voxel_ml if count else None
        ends = [
            side
            for side, k in (("lower", 0), ("upper", self.frame.shape[2] - 1))
            if rows and (voxels.slices == k).any()
        ]
        return {
            "volume_ml": volume,
            "lean_volume_ml": _lean(volume, parts["fat_percent"]),
            "slices_with": len(rows) or None,
            "area_mean_cm2": float(np.mean(areas)) if areas else None,
            "area_max_cm2": max(areas) if areas else None,
            "cut_ends": " and ".join(ends),
            "grey": numbers,
            **parts,
            "histogram": np.histogram(np.clip(values, self.edges[0], self.edges[-1]), self.edges)[0].tolist(),
            "slices": rows,
        }

    def checks(self, voxels: _Voxels) -> list[str]:
        """What is odd about a muscle by itself."""
        if not len(voxels.slices):
            return [NOTHING]
        found = [] if voxels.counted.any() else [_ERODED]
        if voxels.at_rim:
            found.append(_RIM)
        if self.modality == "ct" and voxels.counted.any():
            median = float(np.median(voxels.values[voxels.counted]))
            if not HU_OF_MUSCLE[0] <= median <= HU_OF_MUSCLE[1]:
                found.append(f"median of {median:.0f} HU is not that of muscle")
        if self.threshold is not None and not self.threshold.trusted:
            found.append(ONE_PEAK)
        return found


def _lean(whole: float | None, fat_percent: float | None) -> float | None:
    return None if whole is None or fat_percent is None else whole * (1 - fat_percent / 100)


def _swapped(muscles: list[dict[str, Any]], middles: Mapping[int, npt.NDArray[np.float64] | None]) -> None:
    """Notes where a left muscle lies farther to the person's right than the right one of its name."""
    by_label = {int(muscle["label"]): muscle for muscle in muscles}
    pairs: dict[int, dict[str, int]] = {}
    for label, (_, side, left) in paired_labels({"layers": muscles}).items():
        pairs.setdefault(left, {})[side] = label
    for pair in pairs.values():
        at_left, at_right = middles[pair["left"]], middles[pair["right"]]
        if at_left is None or at_right is None or at_left[0] <= at_right[0]:
            continue
        for label, other in ((pair["left"], pair["right"]), (pair["right"], pair["left"])):
            text = f"lies on the wrong side of {by_label[other]['name']}: left and right are swapped"
            by_label[label]["check"] = "; ".join(filter(None, (by_label[label]["check"], text)))


def measure_muscles(
    labels: Labels,
    grey: Grey,
    affine: npt.ArrayLike,
    names: Mapping[int, str],
    modality: str,
    settings: MuscleSettings | None = None,
    levels: Mapping[str, float] | None = None,
) -> ScanMuscles:
    """Measures the muscles of one scan.

    Args:
        labels: (X, Y, Z) labels; axes run right, anterior and superior as nearly as they can (RAS). Values without a
            name are left out.
        grey: (X, Y, Z) HU, or grey values of an MR in which fat is bright.
        affine: (4, 4) voxel to RAS in mm.
        names: label to name.
        modality: "ct" or "mri".
        settings: options.
        levels: level to position in mm along S.

    Returns:
        The numbers. A muscle without a voxel has None for all of them and the check "nothing found".

    Raises:
        InputError: the threshold of fat cannot be looked for, see `fat_threshold`.
    """
    settings = settings or MuscleSettings()
    frame = AxialFrame(np.asarray(affine, dtype=np.float64), labels.shape)
    measure = _Measure(modality, settings, frame)
    named = np.where(np.isin(labels, list(names)), labels, 0)
    out = ScanMuscles({}, grey)
    if modality == "mri" and named.any():
        if settings.bias_correction:
            out.grey = correct_bias(grey, frame.spacing_mm)
        out.region = threshold_region(named, out.grey, frame.spacing_mm, settings.margin_mm)
        out.threshold = measure.threshold = fat_threshold(out.region, settings.threshold)
        ends = np.percentile(out.region, [0.1, 99.9])
        measure.edges = np.linspace(float(ends[0]), max(float(ends[1]), float(ends[0]) + 1e-6), _MR_BINS + 1)
    boxes = ndimage.find_objects(named, max_label=max(names))
    muscles: list[dict[str, Any]] = []
    middles: dict[int, npt.NDArray[np.float64] | None] = {}
    for label, name in names.items():
        voxels = _voxels(named, out.grey, label, boxes[label - 1], frame, settings.erode_mm)
        entry = {"label": label, "name": name, **measure.muscle(voxels)}
        entry["levels"] = [measure.level(level, at, voxels) for level, at in (levels or {}).items()]
        entry["check"] = "; ".join(measure.checks(voxels))
        middles[label] = None if voxels.middle is None else frame.to_ras(voxels.middle)
        muscles.append(entry)
    _swapped(muscles, middles)
    out.numbers = {
        "modality": modality,
        "shape": list(labels.shape),
        "spacing_mm": list(frame.spacing_mm),
        "tilt_degrees": frame.tilt_degrees,
        "found": any(muscle["volume_ml"] is not None for muscle in muscles),
        "fat_threshold": _threshold_numbers(out.threshold),
        "histogram_edges": measure.edges.tolist(),
        "muscles": muscles,
    }
    return out


def _threshold_numbers(found: FatThreshold | None) -> dict[str, Any] | None:
    if found is None:
        return None
    mixture = found.mixture
    return {
        "value": found.value,
        "method": found.method,
        "voxels": found.voxels,
        "separation": mixture.separation,
        "trusted": found.trusted,
        "weights": list(mixture.weights),
        "means": list(mixture.means),
        "sd": mixture.sd,
    }
