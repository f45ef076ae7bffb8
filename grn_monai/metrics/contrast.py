"""Echo levels of layers, and contrast and sharpness of the boundaries between them, in one image of a scan.

Images are (X, Y, Z) with Z = depth, in [−1, 1]; echo levels are given in percent of the dynamic range: 0 % is −1
(black), 100 % is 1 (white). CNR and gCNR as in Rodriguez-Molares et al., "The generalized contrast-to-noise ratio: a
formal definition for lesion detectability", IEEE TUFFC 67 (2020) 745–759.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from grn_monai.labels import LAYER_NAMES, LAYERS, NUM_CLASSES

__all__ = [
    "BINS",
    "BOUNDARIES",
    "BoundaryScores",
    "LayerLevels",
    "boundary_scores",
    "contrast_to_noise",
    "dark_and_bright",
    "l1_percent",
    "layer_levels",
    "mean_percent",
]

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.floating]
Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

BINS = 64
"""Bins of the histograms, of equal width over [−1, 1]."""

BOUNDARIES: tuple[str, ...] = tuple(f"{LAYER_NAMES[label]} | {LAYER_NAMES[label + 1]}" for label in LAYERS[:-1])
"""The five boundaries between vertically adjacent layers, superficial to deep."""

_PERCENT = 50.0  # percent of the dynamic range for a step of 1: the range is 2 wide
# Equal float values can have a variance of 1e-30 instead of 0; one grey level of 8 bits is a step of 8e-3.
_NO_NOISE = 1e-6


class LayerLevels(NamedTuple):
    """Echo levels of the six layers of one image; NaN for a layer without voxels.

    Attributes:
        voxels: (6,) number of voxels.
        mean_percent: (6,) mean.
        sd_percent: (6,) standard deviation (ddof 0).
        tissue_sd_percent: standard deviation over all layers together.
        histograms: (6, 64) voxels in each bin.
    """

    voxels: npt.NDArray[np.int64]
    mean_percent: Floats
    sd_percent: Floats
    tissue_sd_percent: float
    histograms: npt.NDArray[np.int64]


class BoundaryScores(NamedTuple):
    """Scores of the five boundaries of one image; NaN for a boundary that is absent or bands without variance.

    Attributes:
        voxels: (5,) voxel pairs of each boundary.
        cnr: (5,) contrast-to-noise ratio.
        gcnr: (5,) generalised contrast-to-noise ratio, 0–1.
        gradient_percent_per_mm: (5,) mean absolute depth gradient.
        inner_gradient_percent_per_mm: the same over the pairs of neighbours along depth within the layers.
    """

    voxels: npt.NDArray[np.int64]
    cnr: Floats
    gcnr: Floats
    gradient_percent_per_mm: Floats
    inner_gradient_percent_per_mm: float


def _bins(values: Image) -> npt.NDArray[np.intp]:
    """Bin 0 to 63 of each value; what lies outside [−1, 1] counts in the outermost."""
    return np.clip((values + 1) * (BINS / 2), 0, BINS - 1).astype(np.intp)


def _mean(values: Image) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")


def mean_percent(values: Image) -> float:
    """Mean echo level of values in [−1, 1], in percent; NaN for none."""
    return _PERCENT * (_mean(values) + 1)


def l1_percent(first: Image, second: Image) -> float:
    """Mean absolute difference of two images, in percent."""
    return _PERCENT * _mean(np.abs(first - second))


def _moments(sums: Floats) -> tuple[Floats, Floats]:
    """Mean and SD in percent from (3, N) numbers, sums and sums of squares."""
    count = np.where(sums[0] > 0, sums[0], np.nan)
    mean = sums[1] / count
    return _PERCENT * (mean + 1), _PERCENT * np.sqrt(np.maximum(sums[2] / count - mean**2, 0))


def layer_levels(image: Image, labels: Labels) -> LayerLevels:
    """Echo levels of each layer.

    Args:
        image: (X, Y, Z) in [−1, 1].
        labels: (X, Y, Z) labels 0–6.

    Returns:
        The levels of layers 1–6.
    """
    sums, histograms = np.zeros((3, NUM_CLASSES)), np.zeros(NUM_CLASSES * BINS, np.int64)
    # Slab by slab: the 64-bit arrays that bincount needs stay the size of a slice.
    for values, label in zip(image, labels, strict=True):
        flat, index = values.ravel().astype(np.float64), label.ravel().astype(np.intp)
        for power in range(3):
            sums[power] += np.bincount(index, flat**power, NUM_CLASSES)
        histograms += np.bincount(index * BINS + _bins(flat), minlength=histograms.size)
    tissue = sums[:, 1:]
    return LayerLevels(
        tissue[0].astype(np.int64),
        *_moments(tissue),
        tissue_sd_percent=float(_moments(tissue.sum(axis=1, keepdims=True))[1][0]),
        histograms=histograms.reshape(NUM_CLASSES, BINS)[1:],
    )


def dark_and_bright(raw: Image, tissue: Mask, spacing: Sequence[float], region_mm: float) -> tuple[Mask, Mask]:
    """The tissue whose raw local mean lies in the lowest quartile of the scan, and in the highest.

    Regions, not voxels: of single voxels, those dark by chance of the speckle turn brighter under any smoothing
    (regression to the mean), with no region any brighter.

    Args:
        raw: (X, Y, Z) in [−1, 1].
        tissue: (X, Y, Z) where to look.
        spacing: voxel size (X, Y, Z) in mm.
        region_mm: edge of the box over which the local mean is taken, in mm.

    Returns:
        Two masks (X, Y, Z), both empty without tissue.
    """
    if not tissue.any():
        return tissue, tissue
    size = [max(1, round(region_mm / step)) | 1 for step in spacing]  # odd, so that the box is centred
    # Only tissue counts in a mean: the gel beside it would make the skin a dark region.
    share = uniform_filter(tissue.astype(np.float32), size)
    local = uniform_filter(np.where(tissue, raw, 0).astype(np.float32), size) / np.maximum(share, 1e-6)
    low, high = np.quantile(local[tissue], [0.25, 0.75])
    return tissue & (local <= low), tissue & (local >= high)


def contrast_to_noise(above: Image, below: Image) -> tuple[float, float]:
    """CNR and gCNR of two sets of values.

    CNR = |μ₁ − μ₂| / √(σ₁² + σ₂²) is what the field reports, but a non-linear change of the grey scale can raise it
    at will. gCNR = 1 − overlap of the two histograms does not follow such a change: it is the best that a threshold,
    or several, could do to tell the two apart.

    Args:
        above: values of one side, in [−1, 1].
        below: values of the other.

    Returns:
        CNR and gCNR (0–1), both NaN where neither side has variance.
    """
    first, second = above.astype(np.float64), below.astype(np.float64)
    noise = float(np.sqrt(first.var() + second.var()))
    if noise < _NO_NOISE:
        return float("nan"), float("nan")
    one, two = (np.bincount(_bins(values), minlength=BINS) / values.size for values in (first, second))
    return abs(float(first.mean() - second.mean())) / noise, 1 - float(np.minimum(one, two).sum())


def _band(labels: Labels, at: Sequence[npt.NDArray[np.intp]], step: int, count: int) -> tuple[Any, ...]:
    """Indices of up to `count` voxels from `at` on along depth (`step` ±1), as far as the label stays the same."""
    x, y, z = (index[:, None] for index in at)
    depth = z + step * np.arange(count)
    inside = (depth >= 0) & (depth < labels.shape[2])
    depth = depth.clip(0, labels.shape[2] - 1)
    same = np.logical_and.accumulate(inside & (labels[x, y, depth] == labels[x, y, z]), axis=1)
    x, y = np.broadcast_to(x, same.shape), np.broadcast_to(y, same.shape)
    return x[same], y[same], depth[same]


def boundary_scores(images: Sequence[Image], labels: Labels, step_mm: float, band_mm: float) -> list[BoundaryScores]:
    """Contrast and depth gradient at each boundary between vertically adjacent layers.

    A boundary is where layer k + 1 follows on layer k from one voxel to the next along depth. On either side a band
    of `band_mm`, at least two voxels, is taken along depth, clipped to the layer; the bands of all A-lines are pooled.

    Args:
        images: one or more images (X, Y, Z) in [−1, 1] of one scan.
        labels: (X, Y, Z) labels 0–6.
        step_mm: voxel size along depth in mm.
        band_mm: thickness of a band in mm.

    Returns:
        The scores of each image.
    """
    upper, lower = labels[..., :-1], labels[..., 1:]
    at = np.nonzero((upper > 0) & (lower == upper + 1))
    above = upper[at]
    count = max(2, round(band_mm / step_mm))
    scale = _PERCENT / step_mm
    voxels = np.zeros(len(BOUNDARIES), np.int64)
    contrast = np.full((len(images), 2, len(BOUNDARIES)), np.nan)
    gradient = np.full((len(images), len(BOUNDARIES)), np.nan)
    # One boundary at a time: the indices of its bands take more memory than a slice.
    for b, label in enumerate(LAYERS[:-1]):
        x, y, z = (index[above == label] for index in at)
        voxels[b] = x.size
        if not x.size:
            continue
        bands = _band(labels, (x, y, z), -1, count), _band(labels, (x, y, z + 1), 1, count)
        for i, image in enumerate(images):
            contrast[i, :, b] = contrast_to_noise(image[bands[0]], image[bands[1]])
            gradient[i, b] = scale * np.abs(image[x, y, z + 1] - image[x, y, z]).mean(dtype=np.float64)
    within = (upper == lower) & (upper > 0)
    inner = [scale * _mean(np.abs(np.diff(image, axis=2))[within]) for image in images]
    return [BoundaryScores(voxels, c[0], c[1], g, i) for c, g, i in zip(contrast, gradient, inner, strict=True)]
