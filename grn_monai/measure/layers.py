"""Numbers of each layer of one scan: thickness, volume, area, echo level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.measure.normal import normal_thickness_map
from grn_monai.measure.thickness import thickness_map

__all__ = [
    "LevelStatistics",
    "distribution",
    "fascia_echo",
    "in_decibel",
    "level",
    "measure_layer",
    "slice_areas",
]

Labels = npt.NDArray[np.integer]
Numbers = dict[str, float | None]

PERCENTILES = {"p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95}


def distribution(values: npt.ArrayLike) -> Numbers:
    """Mean, SD (N − 1; None for one value) and percentiles 5, 25, 50, 75, 95 of the finite values; None of no value."""
    kept = np.asarray(values, dtype=np.float64).ravel()
    kept = kept[np.isfinite(kept)]
    if not kept.size:
        return dict.fromkeys(("mean", "sd", *PERCENTILES))
    spread = float(kept.std(ddof=1)) if kept.size > 1 else None
    points = np.percentile(kept, list(PERCENTILES.values()))
    return {"mean": float(kept.mean()), "sd": spread} | dict(zip(PERCENTILES, map(float, points), strict=True))


class LevelStatistics:
    """Voxel counts, means and SD of grey values under each label, in one pass with small temporaries.

    Args:
        labels: (X, Y, Z) labels below `num_classes`.
        grey: (X, Y, Z) grey values, any unit, or None for counts alone.
        num_classes: number of labels, background included.
    """

    def __init__(self, labels: Labels, grey: npt.NDArray[np.floating] | None, num_classes: int) -> None:
        self.counts = np.zeros(num_classes, np.int64)
        sums, squares = np.zeros(num_classes), np.zeros(num_classes)
        # Deviations from a value near the mean keep the sum of squares exact enough for any offset of the grey scale.
        self._offset = 0.0 if grey is None else float(np.mean(grey[:: max(1, len(grey) // 8)], dtype=np.float64))
        for i, slab in enumerate(labels):
            flat = np.asarray(slab).ravel().astype(np.intp)
            self.counts += np.bincount(flat, minlength=num_classes)
            if grey is not None:
                values = grey[i].ravel().astype(np.float64) - self._offset
                sums += np.bincount(flat, values, num_classes)
                squares += np.bincount(flat, values * values, num_classes)
        self._sums, self._squares = sums, squares

    def of(self, labels: Sequence[int]) -> tuple[float, float] | None:
        """Mean and SD (over voxels, N) of all voxels of the labels together, or None where there are none."""
        chosen = list(labels)
        count = int(self.counts[chosen].sum())
        if not count:
            return None
        mean = float(self._sums[chosen].sum()) / count
        variance = max(float(self._squares[chosen].sum()) / count - mean * mean, 0.0)
        return mean + self._offset, variance**0.5


def level(statistics: tuple[float, float] | None) -> Numbers:
    """A mean and an SD by name; None where the tissue is missing."""
    return dict(zip(("mean", "sd"), statistics or (None, None), strict=True))


def in_decibel(statistics: tuple[float, float] | None, dynamic_range_db: float | None) -> Numbers | None:
    """Percent of the dynamic range to dB relative to full scale: 100 % is 0 dB, 0 % is minus the dynamic range."""
    if dynamic_range_db is None:
        return None
    if statistics is None:
        return level(None)
    mean, sd = statistics
    return {"mean": (mean / 100 - 1) * dynamic_range_db, "sd": sd / 100 * dynamic_range_db}


def slice_areas(
    labels: Labels, label: int, spacing: Sequence[float], planes: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Cross-sectional area of a label in every slice of each plane.

    Args:
        labels: (X, Y, Z) labels.
        label: what to measure, usually a muscle.
        spacing: voxel size (X, Y, Z) in mm.
        planes: name of each plane to the axis that its slices fix.

    Returns:
        For each plane ``mean``, ``sd`` (N − 1) and ``max`` in cm² over the slices that hold the label, ``slices``,
        how many these are, and ``per_slice_mm2``, every slice from the first to the last, 0 where it is absent.
        The first three are None where no slice holds it.
    """
    there = np.asarray(labels) == label
    out: dict[str, dict[str, Any]] = {}
    for plane, axis in planes.items():
        others = tuple(i for i in range(3) if i != axis)
        pixel = float(spacing[others[0]]) * float(spacing[others[1]])
        areas = np.count_nonzero(there, axis=others) * pixel
        spread = distribution(areas[areas > 0] / 100)
        out[plane] = {
            "mean": spread["mean"],
            "sd": spread["sd"],
            "max": float(areas.max()) / 100 if areas.any() else None,
            "slices": int(np.count_nonzero(areas)),
            "per_slice_mm2": [round(float(area), 4) for area in areas],
        }
    return out


def measure_layer(
    labels: Labels, label: int, spacing: Sequence[float], normal: bool = True
) -> tuple[dict[str, Any], npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Thickness of one layer.

    Args:
        labels: (X, Y, Z) labels, Z = depth increasing away from the probe.
        label: the layer.
        spacing: voxel size (X, Y, Z) in mm.
        normal: also measure along the local surface normal.

    Returns:
        ``coverage_percent``, the share of A-lines that meet the layer; ``cut_percent``, the share of those on which
        it reaches the deepest voxel, so that its thickness along the A-line is a lower bound; ``thickness_mm`` and
        ``normal_thickness_mm``, see `distribution`, over the A-lines where each is known. Then the map along the
        A-line, 0 where the layer is absent, and along the normal, NaN where it is not known, both (X, Y) in mm.
    """
    along = thickness_map(labels, label, spacing[2])
    across = normal_thickness_map(labels, label, spacing) if normal else None
    present = along > 0
    lines = int(present.sum())
    cut = int(np.count_nonzero(np.asarray(labels)[:, :, -1] == label))
    numbers = {
        "coverage_percent": 100 * lines / present.size,
        "cut_percent": 100 * cut / lines if lines else None,
        "thickness_mm": distribution(along[present]),
        "normal_thickness_mm": None if across is None else distribution(across),
    }
    return numbers, along, across


def fascia_echo(
    statistics: LevelStatistics, fasciae: Sequence[int], muscle: int, dynamic_range_db: float | None
) -> dict[str, Any]:
    """Echogenicity of the fascial membranes and their contrast to muscle.

    The mean grey level over all voxels of both membranes, in percent of the display's dynamic range, and the same
    less the mean grey level of muscle. B-mode grey is logarithmic, so this difference is one in dB where the dynamic
    range is known. After Langevin et al. (BMC Musculoskelet Disord 2009;10:151), who measured thickness and
    echogenicity of the perimuscular connective tissue of the low back; gain and time-gain compensation shift the
    level but, at similar depth, hardly the contrast.

    Args:
        statistics: of the echo level in percent.
        fasciae: labels of the membranes.
        muscle: label of the muscle.
        dynamic_range_db: of the display, where known.

    Returns:
        ``echo_percent`` and ``echo_db`` (mean and SD), ``contrast_percent`` and ``contrast_db`` to muscle; None
        where a tissue is missing or the dynamic range is not known.
    """
    fascia, deep = statistics.of(fasciae), statistics.of([muscle])
    contrast = None if fascia is None or deep is None else fascia[0] - deep[0]
    return {
        "echo_percent": level(fascia),
        "echo_db": in_decibel(fascia, dynamic_range_db),
        "contrast_percent": contrast,
        "contrast_db": None if contrast is None or dynamic_range_db is None else contrast / 100 * dynamic_range_db,
    }
