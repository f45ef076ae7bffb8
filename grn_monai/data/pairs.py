"""Open a scan and the label volumes on its grid, all turned to the scan frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.data.volume import VolumeHeader, check_same_geometry, read_volume, voxel_ml
from grn_monai.labels import NUM_CLASSES

__all__ = ["OpenScan", "open_scan"]

Orient = Callable[[Any], Any]


@dataclass(frozen=True)
class OpenScan:
    """One volume in memory, to which others of the same grid can be opened.

    Attributes:
        path: its file.
        values: (X, Y, Z) voxels in the scan frame: grey values as stored, or labels.
        affine: (4, 4) of the scan frame, voxel to RAS in mm.
        header: shape and affine in the file.
        orient: turns a volume to the scan frame, or None.
    """

    path: str | PathLike[str]
    values: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    header: VolumeHeader
    orient: Orient | None = None

    @property
    def spacing_mm(self) -> list[float]:
        """Voxel size along X, Y and Z of the scan frame in mm."""
        return [float(step) for step in np.linalg.norm(self.affine[:3, :3], axis=0)]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml, also of a sheared grid (tilted gantry)."""
        return voxel_ml(self.affine)

    def labels(self, path: str | PathLike[str], num_classes: int = NUM_CLASSES) -> npt.NDArray[Any]:
        """(X, Y, Z) labels of a file on the same grid, in the scan frame.

        Raises:
            InputError: anything `read_volume` or `check_same_geometry` refuses.
        """
        volume = read_volume(path, kind="label", num_classes=num_classes)
        check_same_geometry(self.header, volume, self.path, path)
        return np.asarray((self.orient(volume) if self.orient else volume)[0])


def open_scan(path: str | PathLike[str], orient: Orient | None = None, labels: int | None = None) -> OpenScan:
    """Reads a scan, or a label volume, in the scan frame; `OpenScan.labels` then reads others on its grid.

    Args:
        path: volume file.
        orient: such as `grn_monai.transforms.DepthLast`; None keeps the voxel order of the file.
        labels: None for grey values; for a label volume the number of labels, background included.

    Raises:
        InputError: anything `read_volume` refuses.
    """
    volume = read_volume(path) if labels is None else read_volume(path, kind="label", num_classes=labels)
    header = VolumeHeader(tuple(volume.shape[1:]), np.asarray(volume.affine, dtype=np.float64))
    moved: Any = orient(volume) if orient else volume
    return OpenScan(path, np.asarray(moved[0]), np.asarray(moved.affine, dtype=np.float64), header, orient)
