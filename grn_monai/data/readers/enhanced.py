"""DICOM Enhanced US Volume: frames put in place by their own plane positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers.base import CheckedReader, SourceVolume, check_spacing, probe_affine
from grn_monai.data.readers.dicom_frames import grey_frames, read_header, read_picture
from grn_monai.errors import InputError

__all__ = ["ENHANCED_CLASS", "EnhancedUltrasoundReader"]

ENHANCED_CLASS = "1.2.840.10008.5.1.4.1.1.6.2"
"""SOP Class UID of Enhanced US Volume Storage."""

_AXES = ("column", "frame", "row")
_GAP_TOLERANCE = 0.01  # of the mean distance between planes
_EXPORT_AGAIN = "Export the volume again as a Cartesian one, with parallel planes at one distance."
# Image Data Type (C.7.6.16.2.24), Ultrasound Acquisition Geometry and Patient Frame of Reference Source (C.8.24.2)
_TERMS = (
    *("TISSUE_INTENSITY", "TISSUE_VELOCITY", "FLOW_POWER", "FLOW_VELOCITY", "FLOW_VARIANCE", "ELASTICITY"),
    *("PERFUSION", "SOUND_SPEED", "ATTENUATION", "APEX", "PATIENT", "TABLE", "ESTIMATED", "REGISTRATION"),
)
# Dimension indices that run along the volume; all others tell volumes of one file apart.
_PLACE_POINTERS = {0x00209301, 0x0020930E, 0x00209057, 0x00200032, 0x00209113}


class EnhancedUltrasoundReader(CheckedReader):
    """Reads one volume of an Enhanced US Volume file, in the geometry of its functional groups.

    Planes are sorted by Plane Position (Volume) along the normal of Plane Orientation (Volume) (PS3.3 C.7.6.16.2.21
    and .22). The voxel axes are those of the file, permuted and reversed so that Z runs away from the transducer, X
    along its marker where it can, and X, Y, Z are right-handed.

    Depth is the axis of the transducer's face normal (Y of the Transducer Frame of Reference, C.8.24.2.1.2), brought
    into the volume by the Volume to Transducer Mapping Matrix; without a matrix it is Y of the volume, whose positive
    values the standard puts "in the direction of increasing image depth" (C.8.24.2.1). It points away from the apex
    where there is one outside the volume, else away from the face.

    The Volume Frame of Reference is not the patient's. The affine is the patient's (`oriented`) only where the file
    also has Plane Position and Orientation (Patient); else lengths are true and directions those of `probe_affine`.

    Args:
        volume: number of the volume in the file, from 1 in the order of its dimension indices (time points, tissue and
            flow); default: the only one.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".dcm", ".dicom", ".ima", "")

    def __init__(self, volume: int | None = None) -> None:
        super().__init__()
        self.volume = volume

    def _read(self, paths: Sequence[Path]) -> SourceVolume:
        path = paths[0]
        dataset = read_header(path)
        if str(dataset.SOPClassUID) != ENHANCED_CLASS:
            found = f"the SOP class {dataset.SOPClassUID.name or '(none)'}"
            raise InputError(path, found, "Enhanced US Volume Storage", "Use the reader for its kind.")
        picture = read_picture(dataset, path)
        groups = _Groups(dataset, path, picture.frames)
        frames, which, total, key = self._choose(groups)
        directions, order, gap, origin = _planes(groups, frames)
        frames = [frames[i] for i in order]
        row_mm, column_mm = groups.pixel_spacing(frames)
        extent = (picture.columns, len(frames), picture.rows)
        steps = (column_mm, gap, row_mm)
        check_spacing(path, steps, _EXPORT_AGAIN)
        centre = origin + sum(d * s * (n - 1) / 2 for d, s, n in zip(directions, steps, extent, strict=True))
        axes, reverse = _voxel_axes(directions, *_transducer(dataset, path, centre, directions, steps, extent))
        raw = _decode(path, dataset, picture, frames)
        voxels = np.ascontiguousarray(_arranged(raw, axes, reverse))
        spacing = tuple(steps[axis] for axis in axes)
        patient = groups.patient_affine(frames, steps)
        oriented = patient is not None
        affine = probe_affine(voxels.shape, spacing)
        if patient is not None:
            affine = patient @ _index_map(axes, reverse, extent)
        facts = {
            "volume": which,
            "volumes": total,
            "data_type": _term(key),
            "acquisition_geometry": _term(dataset.get("UltrasoundAcquisitionGeometry")),
            "patient_source": _term(dataset.get("PatientFrameOfReferenceSource")),
            "depth_axis": _AXES[axes[2]],
            "burned_in": "unknown",
        }
        placement = {
            "frames": [int(frame) for frame in frames],
            "rows": [0, picture.rows],
            "columns": [0, picture.columns],
            "axes": [_AXES[axis] for axis in axes],
            "reversed": [bool(flip) for flip in reverse],
        }
        return SourceVolume(voxels, affine, path, oriented, facts, placement)

    def _choose(self, groups: _Groups) -> tuple[list[int], int, int, str]:
        volumes = groups.volumes()
        keys = list(volumes)
        listing = "; ".join(
            f"{number}: {len(volumes[key])} planes{f' of {key[1]}' if key[1] else ''}"
            for number, key in enumerate(keys[:8], start=1)
        )
        listing += "; …" if len(keys) > 8 else ""
        if self.volume is None and len(keys) > 1:
            found = f"{len(keys)} volumes ({listing})"
            raise InputError(groups.path, found, "one, or a choice", "Choose one with the option volume=NUMBER.")
        number = 1 if self.volume is None else self.volume
        if not 1 <= number <= len(keys):
            found = f"no volume {number} among {len(keys)} ({listing})"
            raise InputError(groups.path, found, "the number of a volume", "Change the option volume.")
        key = keys[number - 1]
        return volumes[key], number, len(keys), key[1]


def _term(value: Any) -> str:
    """A defined term of the standard, or "" for anything else: facts hold no free text of the file."""
    text = str(value or "")
    return text if text in _TERMS else ""


class _Groups:
    """The functional groups of a file: a frame's own before the shared ones."""

    def __init__(self, dataset: Any, path: Path, frames: int) -> None:
        self.dataset, self.path = dataset, path
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        self.shared = shared[0] if shared else {}
        self.own = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
        if len(self.own) != frames:
            found = f"{len(self.own)} per-frame functional groups for {frames} frames"
            raise InputError(path, found, "one for each frame", "Export the volume again.")

    def value(self, frame: int, sequence: str, name: str) -> Any:
        """An attribute of a macro, or None."""
        for place in (self.own[frame], self.shared):
            items = place.get(sequence)
            if items and items[0].get(name) is not None:
                return items[0].get(name)
        return None

    def numbers(self, frame: int, sequence: str, name: str, count: int) -> npt.NDArray[np.float64] | None:
        """Numbers of a macro, or None."""
        value = self.value(frame, sequence, name)
        if value is None:
            return None
        numbers = np.array([float(v) for v in value])
        if numbers.shape != (count,) or not np.isfinite(numbers).all():
            found = f"{name} {list(value)} of frame {frame + 1}"
            raise InputError(self.path, found, f"{count} finite numbers", "Export the volume again.")
        return numbers

    def needed(self, frame: int, sequence: str, name: str, count: int) -> npt.NDArray[np.float64]:
        numbers = self.numbers(frame, sequence, name, count)
        if numbers is None:
            raise InputError(self.path, f"no {name} for frame {frame + 1}", "a plane with its place", _EXPORT_AGAIN)
        return numbers

    def volumes(self) -> dict[tuple[Any, str], list[int]]:
        """Frames of each volume: those alike in all dimension indices but the place, in time and in data type."""
        pointers = [int(item.DimensionIndexPointer) for item in self.dataset.get("DimensionIndexSequence") or []]
        volumes: dict[tuple[Any, str], list[int]] = {}
        for frame in range(len(self.own)):
            indices = self.value(frame, "FrameContentSequence", "DimensionIndexValues")
            values = [] if indices is None else [int(v) for v in np.atleast_1d(indices)]
            apart = [v for v, pointer in zip(values, pointers, strict=False) if pointer not in _PLACE_POINTERS]
            time = self.value(frame, "FrameContentSequence", "TemporalPositionIndex")
            offset = self.value(frame, "TemporalPositionSequence", "TemporalPositionTimeOffset")
            kind = str(self.value(frame, "ImageDataTypeSequence", "DataType") or "")[:16]
            when = (*apart, int(time or 0), float(offset or 0))
            volumes.setdefault((when, kind), []).append(frame)
        return dict(sorted(volumes.items()))

    def pixel_spacing(self, frames: Sequence[int]) -> tuple[float, float]:
        """Distance between rows and between columns in mm."""
        spacings = {tuple(self.needed(f, "PixelMeasuresSequence", "PixelSpacing", 2)) for f in frames}
        if len(spacings) > 1:
            raise InputError(self.path, "planes of different Pixel Spacing", "one for all planes", _EXPORT_AGAIN)
        row, column = spacings.pop()
        return float(row), float(column)

    def patient_affine(self, frames: Sequence[int], steps: Sequence[float]) -> npt.NDArray[np.float64] | None:
        """From (column, plane, row) to RAS in mm where the planes are placed in the patient too, else None."""
        first, last = frames[0], frames[-1]
        cosines = self.numbers(first, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        start = self.numbers(first, "PlanePositionSequence", "ImagePositionPatient", 3)
        end = self.numbers(last, "PlanePositionSequence", "ImagePositionPatient", 3)
        if cosines is None or start is None or end is None:
            return None
        along = (end - start) / (len(frames) - 1)
        column, row = cosines[:3], cosines[3:]
        square = abs(column @ row) < 1e-3 and abs(np.linalg.norm(column) * np.linalg.norm(row) - 1) < 1e-3
        if not square or abs(abs(along @ np.cross(column, row)) - steps[1]) > _GAP_TOLERANCE * steps[1]:
            found = "patient positions of the planes that contradict their positions in the volume"
            raise InputError(self.path, found, "one geometry", _EXPORT_AGAIN)
        affine = np.eye(4)
        affine[:3, :3] = np.stack([column * steps[0], along, row * steps[2]], axis=1)
        affine[:3, 3] = start
        affine[:2] *= -1  # DICOM is LPS
        return affine


def _planes(
    groups: _Groups, frames: Sequence[int]
) -> tuple[list[npt.NDArray[np.float64]], list[int], float, npt.NDArray[np.float64]]:
    """Unit directions of column, plane and row indices; the order of planes, their distance, the first position."""
    path = groups.path
    cosines = [groups.needed(f, "PlaneOrientationVolumeSequence", "ImageOrientationVolume", 6) for f in frames]
    column, row = cosines[0][:3], cosines[0][3:]
    unit = abs(np.linalg.norm(column) - 1) < 1e-3 and abs(np.linalg.norm(row) - 1) < 1e-3
    if not unit or abs(column @ row) > 1e-3 or np.ptp(cosines, axis=0).max() > 1e-3:
        found = f"plane orientations such as {list(cosines[0])}"
        raise InputError(path, found, "two unit vectors at right angles, alike for all planes", _EXPORT_AGAIN)
    normal = np.cross(column, row)
    positions = np.array([groups.needed(f, "PlanePositionVolumeSequence", "ImagePositionVolume", 3) for f in frames])
    if len(frames) < 2:
        raise InputError(path, "a volume of one plane", "at least two parallel planes", _EXPORT_AGAIN)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    gap = float(gaps.mean())
    if not gap > 0 or np.abs(gaps - gap).max() > _GAP_TOLERANCE * gap:
        found = f"planes {gaps.min():.4g} to {gaps.max():.4g} mm apart"
        raise InputError(path, found, "one distance between all planes", _EXPORT_AGAIN)
    aside = positions - heights[:, None] * normal
    if np.abs(aside - aside[0]).max() > _GAP_TOLERANCE * gap:
        raise InputError(path, "planes that are shifted sideways", "planes above each other", _EXPORT_AGAIN)
    return [column, normal, row], [int(i) for i in order], gap, positions[order[0]]


def _transducer(
    dataset: Any,
    path: Path,
    centre: npt.NDArray[np.float64],
    directions: Sequence[npt.NDArray[np.float64]],
    steps: Sequence[float],
    extent: Sequence[int],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Direction of the transducer's marker and of depth, in the Volume Frame of Reference."""
    stored = dataset.get("VolumeToTransducerMappingMatrix")
    matrix = np.eye(4)
    if stored is not None:
        matrix = np.array([float(v) for v in stored]).reshape(4, 4)
        turn = matrix[:3, :3]
        if not np.isfinite(matrix).all() or np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3:
            found = "a Volume to Transducer Mapping Matrix that is not rigid"
            raise InputError(path, found, "a rotation and a shift", _EXPORT_AGAIN)
        if matrix[1] @ [*centre, 1] < 0:  # the volume lies on the other side of the face
            matrix[1] *= -1
    marker, depth = matrix[0, :3], matrix[1, :3]
    apex = dataset.get("ApexPosition")
    if apex is not None:
        offset = centre - np.array([float(v) for v in apex])
        if offset.shape != (3,) or not np.isfinite(offset).all():
            raise InputError(path, "an Apex Position that is no position", "three numbers of mm", _EXPORT_AGAIN)
        half = sum(abs(d @ depth) * s * n / 2 for d, s, n in zip(directions, steps, extent, strict=True))
        if offset @ depth < -half / 2:  # clearly below the middle: the other way round
            depth = -depth
    return marker, depth


def _voxel_axes(
    directions: Sequence[npt.NDArray[np.float64]], marker: npt.NDArray[np.float64], depth: npt.NDArray[np.float64]
) -> tuple[list[int], list[bool]]:
    """Which of (column, plane, row) become X, Y, Z, and which of those are reversed."""
    along = np.array([direction @ depth for direction in directions])
    z = int(np.abs(along).argmax())
    side = np.array([-1 if axis == z else abs(direction @ marker) for axis, direction in enumerate(directions)])
    x = int(side.argmax())
    y = 3 - x - z
    flip_x = bool(directions[x] @ marker < 0)
    flip_z = bool(along[z] < 0)
    signs = (-1 if flip_x else 1) * (-1 if flip_z else 1)
    flip_y = bool(np.cross(directions[z], directions[x]) @ directions[y] * signs < 0)
    return [x, y, z], [flip_x, flip_y, flip_z]


def _arranged(raw: npt.NDArray[Any], axes: Sequence[int], reverse: Sequence[bool]) -> npt.NDArray[Any]:
    """``(column, plane, row)`` to ``(X, Y, Z)``."""
    return np.flip(raw.transpose(axes), tuple(axis for axis, flip in enumerate(reverse) if flip))


def _index_map(axes: Sequence[int], reverse: Sequence[bool], extent: Sequence[int]) -> npt.NDArray[np.float64]:
    """Voxel index (X, Y, Z) to index (column, plane, row), ``(4, 4)``."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for voxel, (axis, flip) in enumerate(zip(axes, reverse, strict=True)):
        matrix[axis, voxel] = -1 if flip else 1
        matrix[axis, 3] = extent[axis] - 1 if flip else 0
    return matrix


def _decode(path: Path, dataset: Any, picture: Any, frames: Sequence[int]) -> npt.NDArray[Any]:
    """Frames in the given order as ``(column, plane, row)``."""
    place = {frame: position for position, frame in enumerate(frames)}
    ascending = sorted(frames)
    raw = None
    whole = slice(None)
    for frame, (grey, _) in zip(ascending, grey_frames(path, dataset, picture, ascending, whole, whole), strict=True):
        if raw is None:
            raw = np.empty((picture.columns, len(frames), picture.rows), dtype=grey.dtype)
        raw[:, place[frame]] = grey.T
    assert raw is not None  # `_planes` saw at least two
    return raw
