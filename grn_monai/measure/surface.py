"""Boundary surfaces of a layer as heights over the A-lines, and their smooth, subvoxel form with slopes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

__all__ = ["SmoothSurface", "layer_extent", "smooth_surface"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

_RIDGE = 1e-6
"""Relative to the kernel's variance: a lone A-line gets slope 0, and any other slope is changed by a millionth."""


class SmoothSurface(NamedTuple):
    """A surface z(x, y) and its slopes.

    Attributes:
        height: (X, Y) depth in mm.
        slope_x: (X, Y) dz/dx, without unit.
        slope_y: (X, Y) dz/dy.
    """

    height: Floats
    slope_x: Floats
    slope_y: Floats


def layer_extent(labels: npt.NDArray[np.integer], label: int) -> tuple[Ints, Ints]:
    """Where a layer begins and ends on each A-line: its longest unbroken run, the first of equally long ones.

    Stray voxels elsewhere on the A-line, as a plain argmax leaves them, so do not move the boundaries.

    Args:
        labels: (X, Y, Z) label volume, Z = depth.
        label: the layer.

    Returns:
        (X, Y) index of the first voxel, and index of the voxel after the last; both −1 where the layer is absent.
        In units of voxels these are also the depths of the two boundary faces.
    """
    there = np.ascontiguousarray(np.moveaxis(np.asarray(labels) == label, 2, 0))
    run = np.zeros(there.shape[1:], np.int32)
    longest, end = np.zeros_like(run), np.zeros_like(run)
    for z, plane in enumerate(there):
        run += 1
        run *= plane
        longer = run > longest
        longest[longer] = run[longer]
        end[longer] = z + 1
    absent = longest == 0
    start = end - longest
    start[absent] = end[absent] = -1
    return start, end


def _moments(values: Floats, kernels: tuple[list[Floats], list[Floats]], orders: list[tuple[int, int]]) -> list[Floats]:
    """Sums of values·uᵃ·vᵇ under the window, for each (a, b)."""
    along_x = [correlate1d(values, kernel, axis=0, mode="constant") for kernel in kernels[0]]
    return [correlate1d(along_x[a], kernels[1][b], axis=1, mode="constant") for a, b in orders]


def _local_planes(height: Floats, weight: Floats, kernels: tuple[list[Floats], list[Floats]], ridge: float) -> Floats:
    """(X, Y, 3): height and slopes of the weighted least-squares plane around each A-line."""
    orders = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
    s00, s10, s01, s20, s11, s02 = _moments(weight, kernels, orders)
    right = np.stack(_moments(weight * height, kernels, orders[:3]), axis=-1)
    empty = s00 <= 1e-12
    s00 = np.where(empty, 1.0, s00)
    rows = [[s00, s10, s01], [s10, s20 + ridge * s00, s11], [s01, s11, s02 + ridge * s00]]
    matrix = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    planes: Floats = np.linalg.solve(matrix, right[..., None])[..., 0]
    planes[empty] = np.nan
    return planes


def smooth_surface(
    height: Floats, known: npt.NDArray[np.bool_], spacing: tuple[float, float], sigma_mm: float, floor_mm: float
) -> tuple[SmoothSurface, Floats]:
    """Fits a plane to the surface around each A-line, with Gaussian weights; planes are kept exactly, also at rims.

    One bisquare step takes outliers out (locally weighted regression after Cleveland 1979, J Am Stat Assoc 74:829).

    Args:
        height: (X, Y) depths in mm; read only where `known`.
        known: (X, Y) where the surface is there.
        spacing: step in x and y in mm.
        sigma_mm: standard deviation of the window in mm.
        floor_mm: least residual scale; depths on a grid of step d have residuals of about d/2 that mean nothing.

    Returns:
        The smooth surface (defined a little beyond `known` too; NaN far from it), and the final weights, 0 to 1.
    """
    kernels = []
    for step in spacing:
        radius = max(1, int(np.ceil(3 * sigma_mm / step)))
        u = np.arange(-radius, radius + 1) * step
        window = np.exp(-0.5 * (u / sigma_mm) ** 2)
        kernels.append([window, window * u, window * u * u])
    filled = np.where(known, height, 0.0)
    weight = known.astype(np.float64)
    if not known.any():
        nothing = np.full(height.shape, np.nan)
        return SmoothSurface(nothing, nothing, nothing), weight
    # The mean depth is taken off first, so that float64 loses nothing to it.
    offset = float(filled[known].mean())
    filled = np.where(known, filled - offset, 0.0)
    ridge = _RIDGE * sigma_mm**2
    planes = _local_planes(filled, weight, (kernels[0], kernels[1]), ridge)
    residual = np.abs(filled - planes[..., 0])
    scale = max(1.4826 * float(np.median(residual[known])), floor_mm)
    kept = np.clip(1 - (residual / (6 * scale)) ** 2, 0, None) ** 2
    weight = np.where(known, kept, 0.0)
    planes = _local_planes(filled, weight, (kernels[0], kernels[1]), ridge)
    return SmoothSurface(planes[..., 0] + offset, planes[..., 1], planes[..., 2]), weight
