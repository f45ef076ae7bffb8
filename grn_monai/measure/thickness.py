"""Thickness of a layer along the A-lines, in millimetres."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["thickness_map"]


def thickness_map(labels: npt.NDArray[np.integer], label: int, spacing_z: float) -> npt.NDArray[np.float32]:
    """Thickness of one layer along each A-line: the number of its voxels times their depth.

    Voxels are counted wherever they lie on the A-line, so a layer that another one interrupts counts by its own
    tissue only.

    Args:
        labels: (X, Y, Z) label volume, integer, Z = depth.
        label: layer to measure.
        spacing_z: voxel size along depth in mm, > 0.

    Returns:
        (X, Y) float32 map in mm; 0 where the A-line does not meet the layer.

    Raises:
        ValueError: if the volume is not 3D or the spacing is not a positive number.
    """
    if np.ndim(labels) != 3:
        msg = f"labels must be an (X, Y, Z) volume, got shape {np.shape(labels)}"
        raise ValueError(msg)
    if not (np.isfinite(spacing_z) and spacing_z > 0):
        msg = f"spacing_z must be a positive number of mm, got {spacing_z!r}"
        raise ValueError(msg)
    voxels = np.count_nonzero(np.asarray(labels) == label, axis=2)
    thickness: npt.NDArray[np.float32] = (voxels * spacing_z).astype(np.float32)
    return thickness
