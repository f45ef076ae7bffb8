"""DICOM segmentations (PS3.3 A.51) read back as a label volume on the grid of their scan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers.base import decoding
from grn_monai.data.readers.dicom_frames import read_header
from grn_monai.data.readers.ultrasound import sorted_frames
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES

__all__ = ["ReadSegmentation", "label_value", "read_dicom_seg"]

_TOLERANCE = 0.1  # voxels, as where segmentations are written
_FRAME_AXES = ("column", "frame", "row")

Affine = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]


class ReadSegmentation(NamedTuple):
    """What `read_dicom_seg` read.

    Attributes:
        labels: ``(X, Y, Z)`` uint8 on the grid of the scan.
        segments: names of the segments that became labels.
        unknown: names of segments that are no known label; they are left out.
    """

    labels: Labels
    segments: tuple[str, ...]
    unknown: tuple[str, ...]


def label_value(name: str, names: Mapping[int, str]) -> int | None:
    """The label value of a name, where case, underscores, hyphens and doubled spaces do not matter; None: unknown.

    Codes do not count: "skin" of another program is more than our dermis, which has the same code.
    """

    def plain(text: str) -> str:
        return " ".join(re.sub(r"[_\-]+", " ", text).lower().split())

    return next((value for value, known in names.items() if value and plain(known) == plain(name)), None)


def read_dicom_seg(
    path: str | PathLike[str],
    shape: Sequence[int],
    affine: Affine,
    placement: Mapping[str, Any] | None = None,
    source_files: Sequence[str | PathLike[str]] = (),
    names: Mapping[int, str] | None = None,
) -> ReadSegmentation:
    """Reads a segmentation onto the voxels of its scan.

    Its planes are put in place by their position in the patient. Where the scan is not placed in the patient, each
    frame goes to the frame of the source that it refers to, as in A.51.5.1.

    Args:
        path: of a binary segmentation, or a fractional one (which is cut at half of its maximum).
        shape: voxels of the scan.
        affine: voxel index to RAS in mm of the scan.
        placement: `SourceVolume.placement` of a scan whose affine is not the patient's, else None.
        source_files: the scan's files; needed with a placement.
        names: label value to name; default: the six layers.

    Raises:
        InputError: the file is damaged or no such segmentation, does not lie on the scan's voxels or frames, or its
            segments overlap.
    """
    import pydicom

    file = Path(path)
    known = dict(names or LAYER_NAMES)
    with decoding(file):
        dataset = pydicom.dcmread(file)
        kind = str(dataset.get("SegmentationType", ""))
        if kind not in ("BINARY", "FRACTIONAL"):
            mend = "Export it as a binary segmentation."
            raise InputError(file, f"the segmentation type {kind or '(none)'}", "BINARY or FRACTIONAL", mend)
        labels_of = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.SegmentSequence}
        values = {number: label_value(name, known) for number, name in labels_of.items()}
        pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
        half = 0.5 if kind == "BINARY" else float(dataset.MaximumFractionalValue) / 2
        frames = [
            (item, value, picture >= half)
            for item, picture in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True)
            if (value := values[_segment(dataset, item)]) is not None
        ]
        if placement:
            labels = _by_reference(file, frames, placement, source_files, (dataset.Rows, dataset.Columns))
            if labels.shape != tuple(shape):
                found = f"frames for a scan of shape {labels.shape}"
                raise InputError(file, found, f"those of a scan of shape {tuple(shape)}", "Read the scan again.")
        else:
            labels = _by_position(file, dataset, frames, shape, affine)
    return ReadSegmentation(
        labels,
        tuple(name for number, name in labels_of.items() if values[number] is not None),
        tuple(name for number, name in labels_of.items() if values[number] is None),
    )


def _macro(dataset: Any, item: Any, sequence: str) -> Any:
    """The first item of a functional group: a frame's own before the shared one."""
    for place in (item, dataset.SharedFunctionalGroupsSequence[0]):
        if place.get(sequence):
            return place.get(sequence)[0]
    raise InputError(str(dataset.filename), f"a frame without {sequence}", "its place", "Export it again.")


def _segment(dataset: Any, item: Any) -> int:
    return int(_macro(dataset, item, "SegmentIdentificationSequence").ReferencedSegmentNumber)


def _put(file: Path, labels: Labels, index: Any, value: int) -> None:
    """Writes one segment's voxels."""
    before = labels[index]
    if ((before != 0) & (before != value)).any():
        raise InputError(file, "segments that overlap", "one label for each voxel", "Part the segments and save again.")
    labels[index] = value


def _by_position(
    file: Path, dataset: Any, frames: Sequence[tuple[Any, int, Any]], shape: Sequence[int], affine: Affine
) -> Labels:
    labels = np.zeros(tuple(shape), dtype=np.uint8)
    to_voxel = np.linalg.inv(affine)
    for item, value, mask in frames:
        orientation = _macro(dataset, item, "PlaneOrientationSequence").ImageOrientationPatient
        cosines = np.array([float(v) for v in orientation])
        row_mm, column_mm = (float(v) for v in _macro(dataset, item, "PixelMeasuresSequence").PixelSpacing)
        plane = np.zeros((4, 3))
        plane[:3, 0], plane[:3, 1] = cosines[:3] * column_mm, cosines[3:] * row_mm
        plane[:, 2] = [*(float(v) for v in _macro(dataset, item, "PlanePositionSequence").ImagePositionPatient), 1]
        plane[:2] *= -1  # DICOM is LPS
        rows, columns = np.nonzero(mask)
        if rows.size == 0:
            continue
        places = (to_voxel @ plane)[:3] @ np.stack([columns, rows, np.ones_like(rows)])
        voxels = np.rint(places).astype(np.int64)
        off = float(np.abs(places - voxels).max())
        if not off <= _TOLERANCE:
            found = f"segments on another grid (up to {off:.3g} voxels off)"
            raise InputError(file, found, "the voxels of the scan", "Resample it onto the scan's grid and save again.")
        if (voxels < 0).any() or (voxels >= np.array(shape)[:, None]).any():
            mend = "Check that segmentation and scan belong together."
            raise InputError(file, "labelled voxels outside the scan", "labels within it", mend)
        _put(file, labels, tuple(voxels), value)
    return labels


def _by_reference(
    file: Path,
    frames: Sequence[tuple[Any, int, Any]],
    placement: Mapping[str, Any],
    source_files: Sequence[str | PathLike[str]],
    size: tuple[int, int],
) -> Labels:
    paths = [Path(source) for source in source_files]
    headers = [read_header(source) for source in paths]
    order = [str(headers[i].SOPInstanceUID) for i in sorted_frames(list(zip(paths, headers, strict=True)))]
    first, *_ = headers
    if (int(first.Rows), int(first.Columns)) != size:
        found = f"frames of {size[1]} × {size[0]} pixels"
        mend = "Check that they belong together."
        raise InputError(file, found, f"the {first.Columns} × {first.Rows} of the scan", mend)
    numbers = [int(v) for v in placement["frames"]]
    planes = {frame: i for i, frame in enumerate(numbers if "axes" in placement else range(*numbers))}
    axes = [_FRAME_AXES.index(name) for name in placement.get("axes", _FRAME_AXES)]
    flips = tuple(axis for axis, flip in enumerate(placement.get("reversed", ())) if flip)
    stack = np.zeros((len(planes), *size), dtype=np.uint8)
    for item, value, mask in frames:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        uid = str(source.ReferencedSOPInstanceUID)
        if uid not in order:
            raise InputError(file, "frames of other images", "those of the scan", "Check that they belong together.")
        frame = int(source.get("ReferencedFrameNumber") or 1) - 1 if len(order) == 1 else order.index(uid)
        if frame not in planes:
            raise InputError(file, f"frame {frame + 1} of the source", "frames of the volume", "Read the scan again.")
        _put(file, stack, (planes[frame], *np.nonzero(mask)), value)
    (r0, r1), (c0, c1) = placement["rows"], placement["columns"]
    inside = stack[:, r0:r1, c0:c1]
    if np.count_nonzero(inside) != np.count_nonzero(stack):
        mend = "Check that segmentation and scan belong together."
        raise InputError(file, "labelled pixels outside the ultrasound picture", "labels within it", mend)
    return np.ascontiguousarray(np.flip(inside.transpose(2, 0, 1).transpose(axes), flips))
