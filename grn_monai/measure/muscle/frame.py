"""Axial slices of a volume: where they lie along the body, and what a pixel of them measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grn_monai.data.volume import voxel_ml

__all__ = ["AxialFrame"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AxialFrame:
    """The grid of a volume whose axes run right, anterior and superior as nearly as its own axes can.

    A slice fixes the last index. **Area** is that perpendicular to S, the long axis of the body: the slice's own area
    projected on the axial plane. A structure that runs along S has this cross-section whatever the tilt of the slice
    (the slice cuts 1/cos of it); for slices that are not tilted the two are equal.

    Attributes:
        affine: (4, 4) voxel to RAS in mm.
        shape: voxels along the axes.
    """

    affine: Floats
    shape: tuple[int, ...]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along each axis in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml, also of a sheared grid (tilted gantry)."""
        return voxel_ml(self.affine)

    @property
    def _normal(self) -> Floats:
        """Of the slices; its length is the area of a pixel in mm²."""
        return np.cross(self.affine[:3, 0], self.affine[:3, 1]).astype(np.float64)

    @property
    def pixel_cm2(self) -> float:
        """Area of a pixel perpendicular to S in cm²."""
        return abs(float(self._normal[2])) / 100

    @property
    def tilt_degrees(self) -> float:
        """Angle between the slices and the axial plane, 0 to 90."""
        cosine = abs(float(self._normal[2])) / float(np.linalg.norm(self._normal))
        return float(np.degrees(np.arccos(min(cosine, 1.0))))

    @property
    def positions_mm(self) -> Floats:
        """(Z,) position of the middle of each slice along S in mm, increasing."""
        middle = np.array([(self.shape[0] - 1) / 2, (self.shape[1] - 1) / 2, 0.0])
        start = self.affine[2, :3] @ middle + self.affine[2, 3]
        found: Floats = start + self.affine[2, 2] * np.arange(self.shape[2])
        return found

    def slice_at(self, position_mm: float) -> int | None:
        """The slice nearest to a position along S; None more than half a step beyond the first or last one."""
        positions = self.positions_mm
        nearest = int(np.abs(positions - position_mm).argmin())
        step = abs(float(self.affine[2, 2]))
        return nearest if abs(float(positions[nearest]) - position_mm) <= step / 2 * (1 + 1e-6) else None

    def to_ras(self, voxel: npt.ArrayLike) -> Floats:
        """(3,) position of a voxel (i, j, k) in mm."""
        found: Floats = self.affine[:3, :3] @ np.asarray(voxel, dtype=np.float64) + self.affine[:3, 3]
        return found
