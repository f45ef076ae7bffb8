"""Beamformed volumes in UFF, the Ultrasound File Format of USTB (Rodriguez-Molares et al., IUS 2017)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers._hdf5 import check_dataset, child, is_hdf5, open_hdf5, read_array
from grn_monai.data.readers.base import CheckedReader, SourceVolume, check_volume, fill_spacing, probe_affine
from grn_monai.errors import InputError, listed

if TYPE_CHECKING:
    import h5py

__all__ = ["UFFReader"]

_CLASS = "uff.beamformed_data"
_TOLERANCE = 0.01
"""How far a pixel may lie from its place on the regular grid, in steps of that grid."""
_MAX_DEPTH = 4


class _Grid(NamedTuple):
    """Pixels on a regular grid: `order` brings the file's pixels into the order of `shape` (None: they are)."""

    shape: tuple[int, ...]
    axes: str
    steps: tuple[float, ...]
    order: npt.NDArray[np.int64] | None


def _class_of(node: Any) -> str:
    value = node.attrs.get("class", b"")
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else b""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _beamformed(group: h5py.Group, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, h5py.Group]]:
    import h5py

    for name in group:
        node = child(group, name)
        if not isinstance(node, h5py.Group):
            continue
        if _class_of(node) == _CLASS:
            yield prefix + name, node
        elif depth < _MAX_DEPTH:
            yield from _beamformed(node, f"{prefix}{name}/", depth + 1)


def _step(path: Path, axis: str, places: npt.NDArray[np.float64]) -> float:
    """The step in mm of rising, evenly spaced places in metres."""
    if places.size < 2:
        raise InputError(path, f"one pixel along {axis}", "two or more", "Beamform a volume.")
    step = float(places[-1] - places[0]) / (places.size - 1)
    even = places[0] + step * np.arange(places.size)
    if not step > 0 or not np.abs(places - even).max() <= _TOLERANCE * step:
        mend = "Beamform or interpolate onto a grid of equal steps."
        raise InputError(path, f"pixels along {axis} with unequal steps", "a regular grid", mend)
    return step * 1e3


class UFFReader(CheckedReader):
    """Reads beamformed data on a regular Cartesian grid from a ``.uff`` file.

    Taken are a ``uff.scan`` whose pixels (x, y, z in metres, in any order) fill a regular 3D grid; and the planes
    ``uff.linear_scan`` and ``uff.linear_3D_scan``, whose frames are then stacked along Y at `frame_spacing`. USTB's
    ``linear_3D_scan`` is, in spite of its name, one plane in space (radial, axial and a roll angle).

    The HDF5 is read directly, in the structure that ``pyuff_ustb`` documents (the tests compare with that package): it
    knows no ``linear_3D_scan``, holds complex data three times in memory, and follows links to other files. The class
    names in a file only choose among the three scans above; no class is built from them.

    Args:
        name: which beamformed data set, such as ``"b_data"``; needed where the file has several.
        volume: which frame of a 3D scan, counted from 1; needed where there are several.
        frame_spacing: mm between the frames of a 2D scan that was swept along Y.
        spacing: mm along X, Y, Z; the file has its own, with which it has to agree.

    What the data set is called stands in `private`, since a name may be anybody's.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".uff",)

    def __init__(
        self,
        name: str | None = None,
        volume: int | None = None,
        frame_spacing: float | None = None,
        spacing: Sequence[float | None] | None = None,
    ) -> None:
        if frame_spacing is not None and not (math.isfinite(frame_spacing) and frame_spacing > 0):
            raise InputError("frame_spacing", repr(frame_spacing), "mm between frames", "Give a positive number.")
        self.name, self.volume, self.frame_spacing, self.spacing = name, volume, frame_spacing, spacing

    def _read(self, paths: Sequence[Path]) -> SourceVolume:
        path = paths[0]
        if not is_hdf5(path):
            raise InputError(path, "no HDF5 file", "a UFF file of USTB", "Write it with USTB's uff.write_object.")
        with open_hdf5(path) as file:
            name, group = self._choose(path, file)
            scan = child(group, "scan")
            if scan is None:
                raise InputError(path, f"{name} without a scan", "the positions of its pixels", "Write it again.")
            kind = _class_of(scan)
            grid = _grid(path, scan, kind)
            data = _stored(path, group, math.prod(grid.shape), name)
            whole = grid.axes == "xyz"
            volume = check_volume(path, self.volume, data.frames) if whole else None
            if not whole and (data.frames < 2 or self.frame_spacing is None):
                found = f"a 2D scan of {data.frames} frames, whose distance the file does not tell"
                mend = "If the probe was swept along Y, give the reader's option frame_spacing in mm."
                raise InputError(path, found, "a 3D scan", mend)
            pixels = data.read(path, None if volume is None else volume - 1)
        if whole:
            voxels = (pixels[0] if grid.order is None else pixels[0][grid.order]).reshape(grid.shape)
            spacing = fill_spacing(path, grid.steps, self.spacing, "Check the scan of the file.")
        else:
            voxels = pixels.reshape(-1, *grid.shape).transpose(1, 0, 2)
            steps = (grid.steps[0], self.frame_spacing, grid.steps[1])
            spacing = fill_spacing(path, steps, self.spacing, "Check frame_spacing and the scan of the file.")
        facts = {"scan": kind, "volume": volume, "frames_stacked": not whole}
        affine, private = probe_affine(voxels.shape, spacing), {"data_set": name}
        return SourceVolume(voxels, affine, path, oriented=False, facts=facts, private=private)

    def _choose(self, path: Path, file: h5py.File) -> tuple[str, h5py.Group]:
        found = dict(_beamformed(file))
        if self.name is not None:
            wanted = self.name.strip("/")
            if wanted in found:
                return wanted, found[wanted]
        elif len(found) == 1:
            return next(iter(found.items()))
        names = f"the beamformed data sets {listed(list(found))}" if found else "no beamformed data"
        expected = f"the data set {self.name!r}" if self.name is not None else "one beamformed data set"
        mend = "Name one with the reader's option name." if found else "Beamform the channel data first, in USTB."
        raise InputError(path, names, expected, mend)


def _axis(path: Path, scan: h5py.Group, name: str) -> npt.NDArray[np.float64]:
    import h5py

    node = child(scan, name)
    if not isinstance(node, h5py.Dataset):
        raise InputError(path, f"a scan without {name}", f"{name} in metres", "Write the scan again with USTB.")
    values = read_array(path, node).ravel()
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise InputError(path, f"{name} of the scan with values that are no numbers", "metres", "Write it again.")
    return values.astype(np.float64)


def _grid(path: Path, scan: Any, kind: str) -> _Grid:
    """Where the pixels lie. MATLAB counts (z, x) column by column: z runs fastest, so that (x, z) is NumPy's order."""
    if kind in ("uff.linear_scan", "uff.linear_3D_scan"):
        names = ("x_axis", "z_axis") if kind == "uff.linear_scan" else ("radial_axis", "axial_axis")
        places = [_axis(path, scan, name) for name in names]
        steps = tuple(_step(path, name, values) for name, values in zip(names, places, strict=True))
        return _Grid((places[0].size, places[1].size), "xz", steps, None)
    if kind == "uff.scan":
        return _scattered(path, _positions(path, scan))
    if kind == "uff.sector_scan":
        mend = "Scan-convert it in USTB (beamformed_data.plot does so, or tools.scan_convert) onto a uff.scan."
        raise InputError(path, "a sector scan (polar pixels)", "a Cartesian grid", mend)
    mend = "Beamform onto a uff.scan of x, y and z, or a uff.linear_scan."
    raise InputError(path, f"a scan of class {kind[:40]!r}", "uff.scan, uff.linear_scan or uff.linear_3D_scan", mend)


def _positions(path: Path, scan: Any) -> list[npt.NDArray[np.float64]]:
    xyz = child(scan, "xyz")  # newer versions of USTB keep one array
    if xyz is not None:
        values = read_array(path, xyz)
        if values.ndim != 2 or 3 not in values.shape:
            raise InputError(path, f"xyz of shape {values.shape}", "three numbers per pixel", "Write the scan again.")
        columns = values if values.shape[0] == 3 else values.T  # MATLAB's (pixels, 3) shows as (3, pixels)
        return [np.asarray(column, np.float64) for column in columns]
    return [_axis(path, scan, name) for name in "xyz"]


def _scattered(path: Path, positions: list[npt.NDArray[np.float64]]) -> _Grid:
    """The regular grid that pixels in any order fill, each place once."""
    count = positions[0].size
    expected = "pixels that fill a regular 3D grid along x, y and z"
    mend = "Beamform or interpolate onto such a grid."
    if {places.size for places in positions} != {count} or count < 8:
        raise InputError(path, "x, y and z of different lengths or fewer than 8 pixels", expected, mend)
    if not all(np.isfinite(places).all() for places in positions):
        raise InputError(path, "positions that are no numbers", expected, mend)
    index, shape, steps = np.zeros(count, np.int64), [], []
    for axis, places in zip("xyz", positions, strict=True):
        low, extent = places.min(), np.ptp(places)
        if not extent > 0:
            raise InputError(path, f"all pixels at one {axis} (a plane)", expected, "Write a uff.linear_scan.")
        levels = _levels((places - low) / extent) * extent + low
        if levels.size > count // 4:
            raise InputError(path, f"{levels.size} different {axis} of {count} pixels", expected, mend)
        step = _step(path, axis, levels) / 1e3
        cell = np.rint((places - low) / step).astype(np.int64)
        if np.abs(places - low - cell * step).max() > _TOLERANCE * step:
            raise InputError(path, f"pixels off the grid along {axis}", expected, mend)
        index = index * levels.size + cell
        shape.append(levels.size)
        steps.append(step * 1e3)
    if math.prod(shape) != count or np.bincount(index, minlength=count).max() != 1:
        found = f"{count} pixels on a grid of {' × '.join(map(str, shape))}"
        raise InputError(path, found, expected, mend)
    if np.array_equal(index, np.arange(count)):
        return _Grid(tuple(shape), "xyz", tuple(steps), None)
    return _Grid(tuple(shape), "xyz", tuple(steps), np.argsort(index))


def _levels(places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The different values among places from 0 to 1. Rounding splits one value in two: neighbours are taken as one."""
    parts = 1_000_000
    used = np.flatnonzero(np.bincount(np.rint(places * parts).astype(np.int64), minlength=parts + 1))
    first = np.diff(used, prepend=-2) > 1
    if first.sum() > 1 and not first[-1]:
        used[np.flatnonzero(first)[-1]] = parts  # the last value is 1 exactly
    return used[first] / parts


class _Data(NamedTuple):
    """The stored values: one data set, or the real and the imaginary part; `reversed_axes` as USTB writes them."""

    parts: list[h5py.Dataset]
    reversed_axes: bool
    frames: int

    def read(self, path: Path, frame: int | None = None) -> npt.NDArray[Any]:
        """One frame, or all, as (frame, pixel)."""
        index: Any = ()
        if frame is not None and self.parts[0].ndim == 4:
            index = slice(frame, frame + 1) if self.reversed_axes else (..., slice(frame, frame + 1))
        values = read_array(path, self.parts[0], index)
        if len(self.parts) == 2:
            real = values
            values = np.empty(real.shape, np.complex64 if real.dtype == np.float32 else np.complex128)
            values.real = real
            del real
            values.imag = read_array(path, self.parts[1], index)
        count = self.frames if frame is None else 1
        return (values if self.reversed_axes else values.T).reshape(count, -1)


def _stored(path: Path, group: h5py.Group, count: int, name: str) -> _Data:
    """The data set of a scan of `count` pixels; channels and waves have to be combined already."""
    import h5py

    node = child(group, "data")
    # Complex numbers are a group of two data sets.
    held = [child(node, part) for part in ("real", "imag")] if isinstance(node, h5py.Group) else [node]
    parts = [part for part in held if isinstance(part, h5py.Dataset)]
    if len(parts) != len(held):
        raise InputError(path, f"{name} without data", "one value per pixel", "Write it again with USTB.")
    for part in parts:
        check_dataset(path, part)
    # USTB writes (pixel, channel, wave, frame), which HDF5 shows reversed; pyuff_ustb writes it as it stands.
    shape = tuple(parts[0].shape or (0,))
    reversed_axes = shape[-1] == count
    if len({part.shape for part in parts}) != 1 or len(shape) > 4 or not (reversed_axes or shape[0] == count):
        found = f"data of shape {shape} for a scan of {count} pixels"
        raise InputError(path, found, "pixel, channel, wave, frame", "Write it again with USTB.")
    ordered = shape if reversed_axes else shape[::-1]
    frames = ordered[0] if len(ordered) == 4 else 1
    if math.prod(ordered[:-1]) != frames:
        found = f"data of shape {shape} (channels or waves not yet combined)"
        raise InputError(path, found, "one value per pixel and frame", "Compound them first, in USTB.")
    return _Data(parts, reversed_axes, frames)
