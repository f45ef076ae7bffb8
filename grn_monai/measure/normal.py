"""Thickness of a layer along the local normal of its upper surface, in millimetres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from grn_monai.measure.surface import SmoothSurface, layer_extent, smooth_surface

__all__ = ["normal_thickness_map"]

Floats = npt.NDArray[np.float64]

_HALVINGS = 26
_LONGEST = 4.0
"""A ray gives up after this many A-line thicknesses: the two surfaces then part, and there is no thickness to tell."""


def normal_thickness_map(
    labels: npt.NDArray[np.integer],
    label: int,
    spacing: Sequence[float],
    sigma_mm: float = 0.75,
    seen: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float32]:
    """Distance from a layer's upper to its lower surface along the upper surface's local normal.

    The thickness along the A-line, T, overestimates that of a layer that lies at an angle θ to the probe: a plane slab
    of thickness t has T = t/cos θ. Here both boundaries of the layer (its longest unbroken run on each A-line) are
    smoothed by local planes over `sigma_mm`, which also brings them below the voxel size; from each point of the upper
    surface a ray goes down along the normal n = (−∂z/∂x, −∂z/∂y, 1)/|·| and ends where it meets the lower surface
    (bilinear between A-lines, found by bisection). So slabs and concentric shells are measured at their true
    thickness; details narrower than the window are averaged.

    Args:
        labels: (X, Y, Z) label volume, Z = depth increasing away from the probe.
        label: the layer.
        spacing: voxel size (X, Y, Z) in mm.
        sigma_mm: standard deviation of the smoothing window in mm; at least one lateral voxel is taken.
        seen: (X, Y) mask of the A-lines on which both surfaces are in view, see `grn_monai.measure.layers.cut_lines`;
            None takes all on which the layer ends above the deepest voxel.

    Returns:
        (X, Y) float32 in mm at the A-line where the ray starts. NaN where the A-line does not meet the layer, where
        the layer goes on beyond the deepest voxel (its lower surface is then out of view) or is not `seen`, and where
        the ray leaves the volume at a side or comes out where the layer is missing.

    Raises:
        ValueError: the volume is not 3D, or a spacing or `sigma_mm` is not a positive number.
    """
    labels = np.asarray(labels)
    if labels.ndim != 3:
        msg = f"labels must be an (X, Y, Z) volume, got shape {labels.shape}"
        raise ValueError(msg)
    if len(spacing) != 3 or not all(np.isfinite(step) and step > 0 for step in (*spacing, sigma_mm)):
        msg = f"spacing must be three positive numbers of mm and sigma_mm positive, got {tuple(spacing)}, {sigma_mm}"
        raise ValueError(msg)
    dx, dy, dz = (float(step) for step in spacing)
    sigma = max(sigma_mm, dx, dy)
    start, end = layer_extent(labels, label)
    known = (start >= 0) & (end < labels.shape[2])
    if seen is not None:
        known &= seen
    out = np.full(labels.shape[:2], np.nan, np.float32)
    if not known.any():
        return out
    top_faces, bottom_faces = (face.astype(np.float64) * dz for face in (start, end))
    top, top_weight = smooth_surface(top_faces, known, (dx, dy), sigma, dz / 2)
    bottom, bottom_weight = smooth_surface(bottom_faces, known, (dx, dy), sigma, dz / 2)
    # An outlier of one surface says nothing about the other, but a negative thickness would: take the same weights.
    if float(np.nanmin((bottom.height - top.height)[known])) < 0:
        both = known & (top_weight > 0) & (bottom_weight > 0)
        top, _ = smooth_surface(top_faces, both, (dx, dy), sigma, dz / 2)
        bottom, _ = smooth_surface(bottom_faces, both, (dx, dy), sigma, dz / 2)
    out[known] = _march(top, bottom, known, (dx, dy), dz)
    return out


def _march(
    top: SmoothSurface, bottom: SmoothSurface, known: npt.NDArray[np.bool_], spacing: tuple[float, float], dz: float
) -> Floats:
    """Lengths of the rays of all known A-lines, in mm."""
    x, y = (index.astype(np.float64) for index in np.nonzero(known))
    z, p, q = (part[known] for part in top)
    down = 1 / np.sqrt(1 + p**2 + q**2)
    step_x, step_y = -p * down / spacing[0], -q * down / spacing[1]  # in A-lines per mm
    # Beside gaps a local plane may not exist; such places cannot be landed on anyway.
    floor = np.nan_to_num(bottom.height, nan=1e9)

    def below(t: Floats) -> Floats:
        """Depth of the ray's end under the lower surface: negative within the layer."""
        landed = map_coordinates(floor, [x + t * step_x, y + t * step_y], order=1, mode="nearest")
        depths: Floats = z + t * down - landed
        return depths

    along = np.maximum(bottom.height[known] - z, 0.0)
    near = np.zeros_like(z)
    far = along * down + 0.25 * dz
    longest = _LONGEST * along + dz
    for _ in range(12):
        inside = (below(far) < 0) & (far < longest)
        if not inside.any():
            break
        near = np.where(inside, far, near)
        far = np.where(inside, 1.3 * far, far)
    met = below(far) >= 0
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        inside = below(middle) < 0
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    length = (near + far) / 2
    # Where the surface could not be smoothed there is no ray: NaN, taken as landing outside.
    ends = (x + length * step_x, y + length * step_y)
    end_x, end_y = (np.rint(np.nan_to_num(end, nan=-1)).astype(int) for end in ends)
    seen = (end_x >= 0) & (end_y >= 0) & (end_x < known.shape[0]) & (end_y < known.shape[1])
    landed = np.zeros(len(x), dtype=bool)
    landed[seen] = known[end_x[seen], end_y[seen]]
    return np.where(met & landed, length, np.nan)
