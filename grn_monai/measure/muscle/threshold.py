"""The grey value between muscle and fat in an MR: Otsu's threshold, or that of a mixture of two Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813  (the field's name for it)
from scipy import ndimage

from grn_monai.errors import InputError

__all__ = ["LEAST_SEPARATION", "FatThreshold", "Mixture", "fat_threshold", "fit_mixture", "otsu"]

Floats = npt.NDArray[np.float64]

LEAST_SEPARATION = 2.0
"""Ashman's D from which two Gaussians are told apart (Ashman et al., Astron J 1994;108:2348)."""

_BINS = 512
_LEAST_VALUES = 50
_VALLEY = 0.9


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians of one standard deviation, the first of the lower mean.

    With an SD of its own the brighter one takes in what is half muscle and half fat, and the crossing moves down to
    the edge of the muscle's peak; a voxel that holds a quarter of fat would then count as fat.

    Attributes:
        weights: shares, sum 1.
        means: in grey values.
        sd: standard deviation of both.
    """

    weights: tuple[float, float]
    means: tuple[float, float]
    sd: float

    def densities(self, values: npt.ArrayLike) -> Floats:
        """(2, …) weighted density of each component at the values."""
        x = np.asarray(values, dtype=np.float64)
        parts = [w * np.exp(-0.5 * ((x - m) / self.sd) ** 2) for w, m in zip(self.weights, self.means, strict=True)]
        return np.stack(parts) / (self.sd * math.sqrt(2 * math.pi))

    @property
    def separation(self) -> float:
        """Ashman's D: distance of the means in standard deviations."""
        return (self.means[1] - self.means[0]) / self.sd

    @property
    def crossing(self) -> float:
        """Grey value at which both components are as likely, within the means."""
        (w1, w2), (m1, m2) = self.weights, self.means
        if m2 == m1:
            return m1
        return min(max((m1 + m2) / 2 + self.sd**2 * math.log(w1 / w2) / (m2 - m1), m1), m2)


@dataclass(frozen=True)
class FatThreshold:
    """What was found in the grey values of a scan.

    Attributes:
        value: voxels above it are fat.
        method: "otsu", "gaussian" or "given".
        mixture: two Gaussians fitted to the same values, whatever the method.
        voxels: number of values.
        two_peaks: whether the smoothed histogram has a valley between the means of the mixture.
    """

    value: float
    method: str
    mixture: Mixture
    voxels: int
    two_peaks: bool

    @property
    def trusted(self) -> bool:
        """Whether there are two peaks, far enough apart (`LEAST_SEPARATION`)."""
        return self.two_peaks and self.mixture.separation >= LEAST_SEPARATION


def _valley(values: Floats, mixture: Mixture) -> bool:
    """Whether the histogram, smoothed by half the mixture's SD, falls below 90 % of the peaks on both sides."""
    counts, edges = np.histogram(values, bins=_BINS)
    width = float(edges[1] - edges[0])
    smooth = ndimage.gaussian_filter1d(counts.astype(np.float64), mixture.sd / 2 / width, mode="constant")
    first, last = (min(int((mean - edges[0]) / width), _BINS - 1) for mean in mixture.means)
    lowest = first + int(smooth[first : last + 1].argmin())
    return bool(smooth[lowest] < _VALLEY * min(smooth[: lowest + 1].max(), smooth[lowest:].max()))


def otsu(values: npt.ArrayLike, bins: int = _BINS) -> float:
    """Otsu's threshold (IEEE Trans SMC 1979;9:62) by SimpleITK: values above it are the brighter class.

    Args:
        values: grey values, of any shape.
        bins: of the histogram.
    """
    line = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32).reshape(1, -1))
    otsu_filter = sitk.OtsuThresholdImageFilter()
    otsu_filter.SetNumberOfHistogramBins(bins)
    otsu_filter.Execute(line)
    return float(otsu_filter.GetThreshold())


def fit_mixture(values: npt.ArrayLike, tolerance: float = 1e-9, iterations: int = 2000) -> Mixture:
    """Two Gaussians by expectation maximisation on a histogram, begun at Otsu's two classes; no chance in it.

    Args:
        values: grey values, not all alike.
        tolerance: ends when the mean log likelihood rises by less.
        iterations: at most.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    split = otsu(flat)
    counts, edges = np.histogram(flat, bins=_BINS)
    kept = counts > 0
    share = counts[kept] / flat.size
    centre = ((edges[:-1] + edges[1:]) / 2)[kept]
    floor = (edges[1] - edges[0]) / math.sqrt(12)  # what the width of a bin alone spreads
    upper = (centre > split).astype(np.float64)
    responsible = np.stack([1 - upper, upper])
    before = -math.inf
    while True:
        weights = np.maximum(responsible @ share, 1e-12)
        means = (responsible @ (share * centre)) / weights
        variance = float((responsible * (centre - means[:, None]) ** 2).sum(axis=0) @ share)
        low, high = np.argsort(means)
        mixture = Mixture(
            (float(weights[low]), float(weights[high])),
            (float(means[low]), float(means[high])),
            max(math.sqrt(variance), floor),
        )
        densities = np.maximum(mixture.densities(centre), 1e-300)
        likelihood = float(share @ np.log(densities.sum(axis=0)))
        iterations -= 1
        if likelihood - before < tolerance or iterations <= 0:
            return mixture
        before = likelihood
        responsible = densities / densities.sum(axis=0)


def fat_threshold(values: npt.ArrayLike, method: str | float) -> FatThreshold:
    """The threshold above which a voxel is fat.

    Args:
        values: grey values of a region with muscle and fat. The brightest and darkest 0.1 % are set to the limits of
            the rest, so that a vessel or a spike does not stretch the histogram.
        method: "otsu", "gaussian", or the threshold itself.

    Raises:
        InputError: fewer than 50 values, or all alike.
    """
    flat = np.asarray(values, dtype=np.float64).ravel()
    if flat.size < _LEAST_VALUES or flat.min() == flat.max():
        found = f"{flat.size} voxels" if flat.size < _LEAST_VALUES else f"the grey value {flat.min():g} alone"
        mend = "Give --threshold a grey value, or leave the scan out."
        raise InputError("muscles and their surroundings", found, f"{_LEAST_VALUES} or more that differ", mend)
    flat = np.clip(flat, *np.percentile(flat, [0.1, 99.9]))
    if flat.min() == flat.max():
        mend = "Give --threshold a grey value, or leave the scan out."
        raise InputError("muscles and their surroundings", f"almost only {flat[0]:g}", "muscle and fat", mend)
    mixture = fit_mixture(flat)
    if not isinstance(method, str):
        value, method = float(method), "given"
    else:
        value = otsu(flat) if method == "otsu" else mixture.crossing
    return FatThreshold(value, method, mixture, flat.size, _valley(flat, mixture))
