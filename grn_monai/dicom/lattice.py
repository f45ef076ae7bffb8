"""Labels brought onto the planes of their source: by geometry, or by the placement that a reader noted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers.base import probe_affine
from grn_monai.errors import InputError

__all__ = ["labels_in_probe_order", "labels_on_frames", "labels_on_grid", "labels_on_planes"]

_TOLERANCE = 0.1  # voxels; headers round positions, and slices may lie a little off their grid
_RESAMPLE = "Resample the labels onto the grid of the scan with nearest neighbour."
_FRAME_AXES = ("column", "frame", "row")

Labels = npt.NDArray[np.uint8]
Affine = npt.NDArray[np.float64]


def _integer_map(path: str | PathLike[str], matrix: Affine, shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """A map between indices ``(4, 4)`` rounded to a signed permutation and a shift.

    Raises:
        InputError: it is none, to 0.1 voxels over a grid of that shape.
    """
    whole = np.rint(matrix).astype(np.int64)
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in shape])))
    off = float(np.abs((matrix - whole)[:3] @ np.c_[corners, np.ones(len(corners))].T).max())
    turn = np.abs(whole[:3, :3])
    if not off <= _TOLERANCE or (turn.sum(axis=0) != 1).any() or (turn.sum(axis=1) != 1).any():
        found = f"labels on another grid (up to {off:.3g} voxels off)"
        raise InputError(path, found, "the voxels of the scan, in any order and direction", _RESAMPLE)
    return whole


def _check_nothing_lost(path: str | PathLike[str], labels: Labels, placed: int) -> None:
    lost = int(np.count_nonzero(labels)) - placed
    if lost:
        found = f"{lost} labelled voxels outside the scan"
        raise InputError(path, found, "labels within the scan", "Check that labels and scan belong together.")


def _regrid(path: str | PathLike[str], labels: Labels, affine: Affine, shape: Sequence[int], target: Affine) -> Labels:
    back = _integer_map(path, np.linalg.inv(affine) @ target, shape)
    axes = [int(np.flatnonzero(back[:3, axis])[0]) for axis in range(3)]  # axis of the labels along each of the grid
    result = np.zeros(tuple(shape), dtype=labels.dtype)
    source, into = [slice(0)] * 3, [slice(0)] * 3
    for axis, old in enumerate(axes):
        index = back[old, axis] * np.arange(shape[axis]) + back[old, 3]
        inside = np.flatnonzero((index >= 0) & (index < labels.shape[old]))
        if inside.size == 0:
            return result
        into[axis] = slice(int(inside[0]), int(inside[-1]) + 1)
        first, last = sorted((int(index[inside[0]]), int(index[inside[-1]])))
        source[old] = slice(first, last + 1)
    flips = tuple(axis for axis, old in enumerate(axes) if back[old, axis] < 0)
    result[tuple(into)] = np.flip(labels[tuple(source)].transpose(axes), flips)
    return result


def labels_on_grid(
    path: str | PathLike[str], labels: Labels, affine: Affine, shape: Sequence[int], target: Affine
) -> Labels:
    """Labels in the voxel order of another grid with the same voxels.

    Args:
        path: named in errors.
        labels: ``(X, Y, Z)``.
        affine: voxel index to RAS in mm of the labels.
        shape: voxels of the other grid; it may be larger (0 outside the labels) or smaller.
        target: its affine.

    Returns:
        Labels of `shape`.

    Raises:
        InputError: the voxels do not coincide, or labelled ones lie outside.
    """
    result = _regrid(path, labels, affine, shape, target)
    _check_nothing_lost(path, labels, int(np.count_nonzero(result)))
    return result


def labels_on_planes(
    path: str | PathLike[str], labels: Labels, affine: Affine, planes: Sequence[Affine], rows: int, columns: int
) -> Labels:
    """Labels on the planes of a series, each plane by its own geometry.

    Args:
        path: named in errors.
        labels: ``(X, Y, Z)`` in any voxel order and direction.
        affine: voxel index to RAS in mm.
        planes: for each plane ``(4, 4)``, column and row index to RAS in mm (the third column is not used).
        rows: of each plane.
        columns: of each plane.

    Returns:
        ``(plane, row, column)``.

    Raises:
        InputError: the voxels do not coincide, or labelled ones lie on no plane.
    """
    result = np.zeros((len(planes), rows, columns), dtype=labels.dtype)
    for index, plane in enumerate(planes):
        # Across the planes the step is that of the labels: a plane itself does not know the next.
        within = np.rint((np.linalg.inv(affine) @ plane)[:3, :2])
        across = int(np.abs(within).sum(axis=1).argmin())
        target = plane.copy()
        target[:3, 2] = affine[:3, across]
        result[index] = _regrid(path, labels, affine, (columns, rows, 1), target)[..., 0].T
    _check_nothing_lost(path, labels, int(np.count_nonzero(result)))
    return result


class _Placement(NamedTuple):
    axes: list[int]
    frames: list[int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    flips: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along X, Y, Z."""
        extent = (self.columns[1] - self.columns[0], len(self.frames), self.rows[1] - self.rows[0])
        x, y, z = (extent[axis] for axis in self.axes)
        return x, y, z


def _parse(path: str | PathLike[str], placement: Mapping[str, Any], rows: int, columns: int) -> _Placement:
    try:
        axes = [_FRAME_AXES.index(name) for name in placement.get("axes", _FRAME_AXES)]
        numbers = [int(v) for v in placement["frames"]]
        frames = numbers if "axes" in placement else list(range(*numbers))
        (r0, r1), (c0, c1) = ([int(v) for v in placement[name]] for name in ("rows", "columns"))
        flips = tuple(axis for axis, flip in enumerate(placement.get("reversed", ())) if flip)
        good = sorted(axes) == [0, 1, 2] and 0 <= r0 < r1 <= rows and 0 <= c0 < c1 <= columns and min(frames) >= 0
    except (KeyError, TypeError, ValueError):
        good = False
    if not good:
        found = f"the placement {dict(placement)!r:.200}"
        expected = f"frames, rows and columns within frames of {columns} × {rows} pixels"
        raise InputError(path, found, expected, "Convert the scan again, and use the link file that this writes.")
    return _Placement(axes, frames, (r0, r1), (c0, c1), flips)


def labels_in_probe_order(
    path: str | PathLike[str], labels: Labels, affine: Affine, placement: Mapping[str, Any], rows: int, columns: int
) -> tuple[Labels, tuple[float, float, float]]:
    """Labels of a volume that its reader gave the affine of `probe_affine`, back in that reader's voxel order.

    Args:
        path: named in errors.
        labels: ``(X, Y, Z)`` in any voxel order and direction.
        affine: voxel index to RAS in mm.
        placement: as for `labels_on_frames`.
        rows: of a whole frame.
        columns: of a whole frame.

    Returns:
        The labels, and the voxel size along their axes in mm.

    Raises:
        InputError: the placement is faulty, or the labels do not lie on the grid that it tells.
    """
    shape = _parse(path, placement, rows, columns).shape
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    # The reader's X, Y and Z run along R-L, I-S and P-A.
    dx, dy, dz = (float(lengths[np.abs(affine[axis, :3] / lengths).argmax()]) for axis in (0, 2, 1))
    target = probe_affine(shape, (dx, dy, dz))
    return labels_on_grid(path, labels, affine, shape, target), (dx, dy, dz)


def labels_on_frames(
    path: str | PathLike[str], labels: Labels, placement: Mapping[str, Any], rows: int, columns: int
) -> tuple[Labels, list[int]]:
    """Labels of a volume made from picture frames, put back into those frames.

    Args:
        path: named in errors.
        labels: ``(X, Y, Z)``, as the reader ordered the voxels.
        placement: as in `SourceVolume`: ``frames`` ``[first, stop]``, or one index per plane where ``axes`` is given;
            ``rows`` and ``columns`` ``[first, stop]``; ``axes``, the frame axis along each voxel axis (default: column,
            frame, row); ``reversed``, whether that voxel axis runs backwards.
        rows: of a whole frame.
        columns: of a whole frame.

    Returns:
        ``(plane, row, column)`` of whole frames, 0 outside the labels; the index of each plane's frame, from 0.

    Raises:
        InputError: the placement is faulty, or the labels do not have its shape.
    """
    place = _parse(path, placement, rows, columns)
    shape = place.shape
    if labels.shape != shape:
        raise InputError(path, f"labels of shape {labels.shape}", f"the scan's {shape}", _RESAMPLE)
    back = np.flip(labels, place.flips).transpose(np.argsort(place.axes))  # (column, frame, row)
    result = np.zeros((len(place.frames), rows, columns), dtype=labels.dtype)
    result[:, slice(*place.rows), slice(*place.columns)] = back.transpose(1, 2, 0)
    return result, place.frames
