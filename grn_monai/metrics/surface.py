"""Distances between label surfaces in millimetres: 95 % Hausdorff and mean surface distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from grn_monai.labels import LAYERS

__all__ = ["SurfaceScores", "surface_distances", "surface_scores"]

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# A k-d tree answers the few voxels of a good prediction that lie off the other surface about five times faster than
# a distance transform of the crop, but on a noisy one (hundreds of thousands of voxels, many of them far away on a
# regular grid, hence many ties) it takes tens of seconds. Both are exact: this limit decides time only.
_TREE_LIMIT = 100_000


class SurfaceScores(NamedTuple):
    """Surface scores of one label, in mm. NaN: neither array holds the label; inf: one of them does not."""

    hd95_mm: float
    asd_mm: float


def _surface(mask: Mask) -> Mask:
    """The voxels of `mask` with a face neighbour outside; beyond the array counts as outside, as in MONAI."""
    padded = np.pad(mask, 1)
    core = (slice(1, -1),) * mask.ndim
    inner = mask.copy()
    for axis in range(mask.ndim):
        for shifted in (slice(0, -2), slice(2, None)):
            inner &= padded[(*core[:axis], shifted, *core[axis + 1 :])]
    surface: Mask = mask & ~inner
    return surface


def _crop(a: Mask, b: Mask) -> tuple[Mask, Mask]:
    """Both masks cut to the bounding box of their union; a surface never needs a voxel outside it."""
    union = a | b
    box = []
    for axis in range(union.ndim):
        hit = np.flatnonzero(union.any(axis=tuple(i for i in range(union.ndim) if i != axis)))
        box.append(slice(hit[0], hit[-1] + 1))
    return np.ascontiguousarray(a[tuple(box)]), np.ascontiguousarray(b[tuple(box)])


def _distances_to(target: Mask, source: Mask, spacing: Floats) -> Floats:
    """Distance in mm from every voxel of `source` to the nearest voxel of `target` (both surfaces, not empty)."""
    off = source & ~target  # A voxel on both surfaces is at distance 0: only the others are looked up.
    n_off = int(np.count_nonzero(off))
    if n_off > _TREE_LIMIT:
        field = np.asarray(distance_transform_edt(~target, sampling=spacing), dtype=np.float64)
        return field[source]
    distances = np.zeros(int(np.count_nonzero(source)))
    if n_off:
        tree = cKDTree(np.argwhere(target) * spacing, balanced_tree=False, compact_nodes=False)
        distances[~target[source]] = tree.query(np.argwhere(off) * spacing)[0]
    return distances


def surface_distances(pred: Mask, truth: Mask, spacing: Sequence[float]) -> tuple[Floats, Floats]:
    """Directed surface distances of two masks in mm.

    A surface is the set of mask voxels with at least one face neighbour (4 in 2D, 6 in 3D) outside the mask; what
    lies beyond the array counts as outside. Distances are Euclidean between voxel centres. This is MONAI's
    convention (`get_mask_edges`, `get_surface_distance`), so numbers compare.

    Args:
        pred: predicted mask, boolean, 2D or 3D.
        truth: true mask, same shape.
        spacing: voxel size in mm along each axis, all > 0.

    Returns:
        Distances from each voxel of the predicted surface to the true one, and the other way. A voxel whose
        counterpart does not exist has distance inf; an empty mask gives an empty array.

    Raises:
        ValueError: for different shapes or a spacing that does not fit.
    """
    pred, truth = np.asarray(pred, dtype=bool), np.asarray(truth, dtype=bool)
    step = np.asarray(spacing, dtype=np.float64)
    if pred.shape != truth.shape:
        msg = f"prediction and truth must have one shape, got {pred.shape} and {truth.shape}"
        raise ValueError(msg)
    if step.shape != (pred.ndim,) or not np.all(np.isfinite(step) & (step > 0)):
        msg = f"spacing must be {pred.ndim} positive numbers in mm, got {spacing!r}"
        raise ValueError(msg)
    if not (pred.any() or truth.any()):
        return np.empty(0), np.empty(0)
    pred, truth = _crop(pred, truth)
    on_pred, on_truth = _surface(pred), _surface(truth)
    if not (pred.any() and truth.any()):
        return np.full(on_pred.sum(), np.inf), np.full(on_truth.sum(), np.inf)
    return _distances_to(on_truth, on_pred, step), _distances_to(on_pred, on_truth, step)


def surface_scores(
    pred: npt.NDArray[np.integer],
    truth: npt.NDArray[np.integer],
    spacing: Sequence[float],
    labels: Sequence[int] = LAYERS,
) -> dict[int, SurfaceScores]:
    """HD95 and ASD of each label, both from one pair of directed surface distances.

    HD95 is the larger of the two directed 95th percentiles (linear interpolation); ASD is the mean of the pooled
    distances of both directions. These are MONAI's `HausdorffDistanceMetric(percentile=95)` and
    `SurfaceDistanceMetric(symmetric=True)`.

    Args:
        pred: predicted labels, integer, 2D or 3D.
        truth: true labels, same shape.
        spacing: voxel size in mm along each axis.
        labels: labels to score.

    Returns:
        Label to `SurfaceScores`. A label in only one of the arrays scores inf, one in neither scores NaN: a
        caller that averages has to count both.

    Raises:
        ValueError: for different shapes or a spacing that does not fit.
    """
    scores = {}
    for label in labels:
        to_truth, to_pred = surface_distances(np.equal(pred, label), np.equal(truth, label), spacing)
        pooled = np.concatenate([to_truth, to_pred])
        if pooled.size == 0:
            scores[label] = SurfaceScores(np.nan, np.nan)
        elif not np.isfinite(pooled).all():
            scores[label] = SurfaceScores(np.inf, np.inf)
        else:
            hd95 = max(float(np.percentile(to_truth, 95)), float(np.percentile(to_pred, 95)))
            scores[label] = SurfaceScores(hd95, float(pooled.mean()))
    return scores
