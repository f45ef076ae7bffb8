"""Volumes in MATLAB files, as the Verasonics Vantage and most ultrasound research code save them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers._matlab import MatArray, open_mat
from grn_monai.data.readers.base import CheckedReader, SourceVolume, check_volume, fill_spacing, probe_affine
from grn_monai.errors import InputError, listed

__all__ = ["VerasonicsReader"]

PLANES = "zxy"
"""Axis order of stacked planes: rows are depth, columns lateral, pages elevation."""
VOLUME = "yxz"
"""Axis order of a 3D ``PData``: rows are elevation, columns lateral, sections depth."""

_PAIRS = (("real", "imag"), ("I", "Q"))
_MEND_SPACING = "Give the reader's option spacing: mm along X, Y and Z (Z is depth), for example (0.3, 0.5, 0.1)."


class _Grid(NamedTuple):
    """What a ``PData`` says: axis order of the array, voxel size in mm (None where it says nothing), Y downwards."""

    axes: str
    spacing: tuple[float | None, float | None, float | None]
    y_falls: bool


def _describe(arrays: Sequence[MatArray]) -> str:
    return listed([f"{array.name} ({' × '.join(map(str, array.shape))})" for array in arrays])


def _numbers(arrays: Mapping[str, MatArray], name: str) -> list[float]:
    """The values of a small array, or none."""
    array = arrays.get(name)
    if array is None or array.kind not in "iuf" or math.prod(array.shape) > 16:
        return []
    return [float(value) for value in np.asarray(array.read()).ravel(order="F")]


def _joined_pairs(arrays: Mapping[str, MatArray]) -> dict[str, MatArray]:
    """The arrays, where two real fields of one struct that are parts of a complex number count as one array."""
    joined = dict(arrays)
    for name, array in arrays.items():
        for first, second in _PAIRS:
            stem, dot, field = name.rpartition(".")
            other = arrays.get(f"{stem}.{second}")
            if dot and field == first and other and other.shape == array.shape and len(array.shape) > 2:
                del joined[name], joined[other.name]
                joined[stem] = MatArray(stem, array.shape, "c", partial(_complex, array, other))
    return joined


def _complex(first: MatArray, second: MatArray) -> npt.NDArray[Any]:
    real = first.read()
    single = real.dtype in (np.float32, np.int16, np.int8, np.uint8, np.uint16)
    whole = np.empty(real.shape, np.complex64 if single else np.complex128, order="F")
    whole.real = real
    del real
    whole.imag = second.read()
    return whole


class VerasonicsReader(CheckedReader):
    """Reads a volume from a ``.mat`` file, v5 to v7.3.

    Which array: `variable`, or else the only one of three axes of two or more voxels each (four with frames), looked
    for in structs and cells too.

    Which axis is which: `axes`, or else the file's ``PData`` where its ``Size`` is that of the array. A ``PData`` of
    one section means planes, ``"zxy"``; with several sections its rows are Y, columns X and sections depth, ``"yxz"``.
    With neither, ``"zxy"``, the habit of stacked B-mode planes (``facts["axes_from"]`` says ``"default"`` then).

    Voxel size: ``PData.PDelta`` (x, y, z in wavelengths) times the wavelength ``Resource.Parameters.speedOfSound``
    (m/s) / ``Trans.frequency`` (MHz), where the file holds all three and ``PData.Coord`` is not polar or spherical;
    `spacing` for what that leaves open. It is never invented, and a `spacing` that differs from the file is refused.

    What the variable is called stands in `private`, since a name may be anybody's.

    Nothing of the file is evaluated or unpickled; objects and function handles in it are passed over.

    Args:
        variable: name as typed in MATLAB: ``"vol"``, ``"Scan.volume"``, ``"ImgData{1}"``.
        spacing: mm along X, Y, Z where the file does not give them; None for one of them means that it does.
        axes: the letters x, y, z, and t for frames, in the order of the array in MATLAB.
        volume: which frame of a 4D array, counted from 1; needed where there are several.
        y_reversed: whether Y runs downwards in the array; default: as the file's ``PData`` has it. A label is read with
            what holds for its image.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".mat",)

    def __init__(
        self,
        variable: str | None = None,
        spacing: Sequence[float | None] | None = None,
        axes: str | None = None,
        volume: int | None = None,
        y_reversed: bool | None = None,
    ) -> None:
        if axes is not None and sorted(axes) not in (sorted("xyz"), sorted("xyzt")):
            mend = 'Write for example "zxy", or "zxyt" with frames.'
            raise InputError("axes", repr(axes), "the letters x, y, z once each, t for frames", mend)
        if spacing is not None and len(spacing) != 3:
            raise InputError("spacing", repr(spacing), "three lengths in mm", _MEND_SPACING)
        self.variable, self.spacing, self.axes = variable, spacing, axes
        self.volume, self.y_reversed = volume, y_reversed

    def _candidate(self, shape: tuple[int, ...]) -> bool:
        if len(shape) not in ((3, 4) if self.axes is None else (len(self.axes),)):
            return False
        axes = self.axes or "xyzt"
        return all(length > 1 for axis, length in zip(axes, shape, strict=False) if axis != "t")

    def _choose(self, path: Path, arrays: Mapping[str, MatArray]) -> MatArray:
        numeric = [array for array in arrays.values() if array.kind != "U"]
        if self.variable is not None:
            if chosen := arrays.get(self.variable):
                if chosen in numeric and self._candidate(chosen.shape):
                    return chosen
                found = f"{_describe([chosen])} as the variable"
                mend = 'If one axis holds frames, say so in axes, for example "zxty".'
                raise InputError(path, found, "a numeric array of three axes, or four with frames", mend)
            with open_mat(path) as every:
                numeric = [array for array in every.values() if array.kind != "U"]
            large = [array for array in numeric if len(array.shape) > 2] or numeric
            found = f"no numeric array {self.variable!r}; there are {_describe(large) or 'none'}"
            raise InputError(path, found, "the variable that was asked for", "Name one of those.")
        candidates = [array for array in numeric if self._candidate(array.shape)]
        if len(candidates) == 1:
            return candidates[0]
        expected = "one numeric array of three axes (four with frames)"
        if candidates:
            mend = "Name one with the reader's option variable."
            raise InputError(path, f"{len(candidates)} of them: {_describe(candidates)}", expected, mend)
        large = sorted(numeric, key=lambda array: -math.prod(array.shape))
        found = f"none; the arrays are {_describe(large)}" if large else "none: the file holds no array of numbers"
        mend = 'Save the beamformed volume; planes over frames need axes, for example "zxty".'
        raise InputError(path, found, expected, mend)

    def _read(self, paths: Sequence[Path]) -> SourceVolume:
        path = paths[0]
        top = None
        if self.variable is not None:
            top = frozenset({re.split(r"[.({]", self.variable)[0], "PData", "Trans", "Resource"})
        with open_mat(path, top) as found:
            arrays = _joined_pairs(found)
            chosen = self._choose(path, arrays)
            grid = _grid(arrays, chosen.shape)
            axes = self.axes or ((grid.axes if grid else PLANES) + "t")[: len(chosen.shape)]
            if grid and axes.replace("t", "") != grid.axes:
                grid = None  # the user knows the array to be turned against the PData beside it
            from_file = grid.spacing if grid else (None, None, None)
            spacing = fill_spacing(path, from_file, self.spacing, _MEND_SPACING)
            voxels = chosen.read()
        volume = 1
        if "t" in axes:
            volume = check_volume(path, self.volume, voxels.shape[axes.index("t")])
            voxels = voxels.take(volume - 1, axis=axes.index("t"))
        spatial = axes.replace("t", "")
        voxels = voxels.transpose([spatial.index(axis) for axis in "xyz"])
        y_reversed = bool(grid and grid.y_falls) if self.y_reversed is None else self.y_reversed
        if y_reversed:
            voxels = voxels[:, ::-1]
        facts = {
            "axes": axes,
            "axes_from": "option" if self.axes else "PData" if grid else "default",
            "spacing_from": ("PData", "PData and option", "PData and option", "option")[from_file.count(None)],
            "y_reversed": y_reversed,
            "volume": volume,
        }
        affine, private = probe_affine(voxels.shape, spacing), {"variable": chosen.name}
        return SourceVolume(voxels, affine, path, oriented=False, facts=facts, private=private)


def _grid(arrays: Mapping[str, MatArray], shape: tuple[int, ...]) -> _Grid | None:
    """What the first ``PData`` whose size is that of the array says of it; None where there is none."""
    for name in ("PData", *(f"PData({i + 1})" for i in range(16))):
        size = _numbers(arrays, f"{name}.Size")
        if len(size) not in (2, 3) or any(value < 1 or not value.is_integer() for value in size):
            continue
        flat = len(size) == 2 or size[2] == 1
        coord = arrays.get(f"{name}.Coord")
        if coord is not None and coord.kind == "U" and str(coord.read()).lower() not in ("", "rectangular"):
            continue  # angles, not lengths
        if tuple(size[:2]) != shape[:2] or not (flat or size[2] == shape[2]):
            continue
        delta = _numbers(arrays, f"{name}.PDelta")
        speed = _numbers(arrays, "Resource.Parameters.speedOfSound")
        frequency = _numbers(arrays, "Trans.frequency")
        steps: list[float | None] = [None, None, None]
        if len(delta) == 3 and len(speed) == 1 and len(frequency) == 1 and min(speed + frequency) > 0:
            wavelength = speed[0] / frequency[0] / 1e3  # m/s over MHz is micrometres
            steps = [step * wavelength if step > 0 else None for step in delta]
        if flat:
            steps[1] = None  # planes have no thickness
        origin = _numbers(arrays, f"{name}.Origin")
        # Origin is the corner of row 1: where it lies at positive y, rows run downwards, and taking them for a rising Y
        # would mirror the volume.
        falls = not flat and len(origin) == 3 and origin[1] > 0
        return _Grid(PLANES if flat else VOLUME, (steps[0], steps[1], steps[2]), falls)
    return None
