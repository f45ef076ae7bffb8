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
    "area_numbers",
    "cut_lines",
    "distribution",
    "fascia_echo",
    "in_decibel",
    "last_labels",
    "level",
    "measure_layer",
    "slice_areas",
    "slice_counts",
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


def cut_lines(labels: Labels, label: int, layers: Sequence[int] = ()) -> npt.NDArray[np.bool_]:
    """A-lines on which a layer goes on beyond the field of view, so that its thickness is a lower bound.

    Args:
        labels: (X, Y, Z) labels, Z = depth increasing away from the probe.
        label: the layer.
        layers: all layers, superficial to deep.

    Returns:
        (X, Y) mask: the layer reaches the deepest voxel; or it is not the deepest layer and nothing but background
        follows it (black below the picture); or it is not the first layer and begins at the first voxel.
    """
    labels = np.asarray(labels)
    cut = labels[:, :, -1] == label
    if layers and label != layers[-1]:
        cut |= last_labels(labels) == label
    if layers and label != layers[0]:
        cut |= labels[:, :, 0] == label
    found: npt.NDArray[np.bool_] = cut
    return found


def last_labels(labels: Labels) -> Labels:
    """(X, Y) the deepest label of each A-line that is not background; 0 where there is none."""
    labels = np.asarray(labels)
    out = np.empty(labels.shape[:2], labels.dtype)
    for x, slab in enumerate(labels):
        deepest = slab.shape[1] - 1 - (slab[:, ::-1] > 0).argmax(axis=1)
        out[x] = slab[np.arange(len(slab)), deepest]
    return out


def slice_counts(labels: Labels, num_classes: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Voxels of every label in every slice along each axis, in one pass over the volume.

    Args:
        labels: (X, Y, Z) labels below `num_classes`.
        num_classes: number of labels, background included.

    Returns:
        Three arrays (slices along the axis, num_classes).
    """
    labels = np.asarray(labels)
    counts = tuple(np.zeros((size, num_classes), np.int64) for size in labels.shape)
    rows, columns = (num_classes * np.arange(size) for size in labels.shape[1:])
    for x, slab in enumerate(labels):
        flat = slab.astype(np.intp)
        by_row = np.bincount((flat + rows[:, None]).ravel(), minlength=counts[1].size).reshape(counts[1].shape)
        counts[0][x] = by_row.sum(axis=0)
        counts[1][:] += by_row
        counts[2][:] += np.bincount((flat + columns).ravel(), minlength=counts[2].size).reshape(counts[2].shape)
    return counts


def slice_areas(
    counts: Sequence[npt.NDArray[np.int64]], label: int, spacing: Sequence[float], planes: Mapping[str, int]
) -> dict[str, npt.NDArray[np.float64]]:
    """Cross-sectional area of a label in every slice of each plane, in cm²; 0 where it is absent.

    Args:
        counts: as `slice_counts` gives.
        label: what to measure, usually a muscle.
        spacing: voxel size (X, Y, Z) in mm.
        planes: name of each plane to the axis that its slices fix.
    """
    out: dict[str, npt.NDArray[np.float64]] = {}
    for plane, axis in planes.items():
        a, b = (float(spacing[i]) for i in range(3) if i != axis)
        out[plane] = counts[axis][:, label].astype(np.float64) * (a * b / 100)
    return out


def area_numbers(areas: npt.NDArray[np.float64]) -> dict[str, Any]:
    """``mean``, ``sd`` (N − 1) and ``max`` in cm² over the slices that hold a label, and ``slices``, their number.

    The first three are None where no slice holds it.
    """
    spread = distribution(areas[areas > 0])
    largest = float(areas.max()) if areas.any() else None
    return {"mean": spread["mean"], "sd": spread["sd"], "max": largest, "slices": int(np.count_nonzero(areas))}


def measure_layer(
    labels: Labels, label: int, spacing: Sequence[float], normal: bool = True, layers: Sequence[int] = ()
) -> tuple[dict[str, Any], npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
    """Thickness of one layer.

    Args:
        labels: (X, Y, Z) labels, Z = depth increasing away from the probe.
        label: the layer.
        spacing: voxel size (X, Y, Z) in mm.
        normal: also measure along the local surface normal.
        layers: all layers, superficial to deep, which tell where one is cut, see `cut_lines`.

    Returns:
        ``coverage_percent``, the share of A-lines that meet the layer; ``cut_percent``, the share of those on which
        it goes on beyond the field of view, so that its thickness along the A-line is a lower bound;
        ``normal_coverage_percent``, the share of all A-lines on which its thickness along the normal is known;
        ``thickness_mm`` and ``normal_thickness_mm``, see `distribution`, over the A-lines where each is known. Then
        the map along the A-line, 0 where the layer is absent, and along the normal, NaN where it is not known, both
        (X, Y) in mm.
    """
    cut = cut_lines(labels, label, layers)
    along = thickness_map(labels, label, spacing[2])
    across = normal_thickness_map(labels, label, spacing, seen=~cut) if normal else None
    present = along > 0
    lines = int(present.sum())
    numbers = {
        "coverage_percent": 100 * lines / present.size,
        "cut_percent": 100 * int(cut.sum()) / lines if lines else None,
        "normal_coverage_percent": None if across is None else 100 * float(np.isfinite(across).mean()),
        "thickness_mm": distribution(along[present]),
        "normal_thickness_mm": None if across is None else distribution(across),
    }
    return numbers, along, across


def fascia_echo(
    statistics: LevelStatistics, fasciae: Sequence[int], muscle: int, dynamic_range_db: float | None
) -> dict[str, Any]:
    """Echogenicity of the fascial membranes and their contrast to muscle.

    The mean grey level over all voxels of both membranes, in percent of the grey scale (of the display's dynamic range
    where the scan has 8 bits), and the same less the mean grey level of muscle. B-mode grey is logarithmic, so this
    difference is one in dB where the dynamic range is known. After Langevin et al. (BMC Musculoskelet Disord
    2009;10:151), who measured thickness and echogenicity of the perimuscular connective tissue of the low back; gain
    and time-gain compensation shift the level but, at similar depth, hardly the contrast.

    Args:
        statistics: of the echo level in percent.
        fasciae: labels of the membranes.
        muscle: label of the muscle.
        dynamic_range_db: of the display, where it and the grey levels of its ends are known.

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
