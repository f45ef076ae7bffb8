"""The DICOM files that a segmentation belongs to, prepared as highdicom wants its source images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers.base import decoding
from grn_monai.data.readers.dicom_frames import Picture, has_preamble, read_header, read_picture
from grn_monai.data.readers.enhanced import ENHANCED_CLASS
from grn_monai.data.readers.ultrasound import ULTRASOUND_CLASSES, sorted_frames
from grn_monai.dicom.lattice import Affine, Labels, labels_in_probe_order, labels_on_frames, labels_on_planes
from grn_monai.errors import InputError

__all__ = ["Source", "read_source"]

# Type 1 and 2 attributes of patient and study that highdicom copies; old and research files lack some.
_COPIED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3.1"
_STAND_IN_REFERENCE = "2.25.1"  # never written
_SUCCESSOR = {"1.2.840.10008.5.1.4.1.1.3": _MULTI_FRAME, "1.2.840.10008.5.1.4.1.1.6": "1.2.840.10008.5.1.4.1.1.6.1"}
_ONE_EXPORT = "Name the files of one exported series."


@dataclass
class Source:
    """Where labels go.

    Attributes:
        images: headers for highdicom, one per plane or one for all planes of a multi-frame file, with geometry.
        planes: labels on those planes, ``(plane, row, column)``.
        frames: of a multi-frame source the frame of each plane, from 1, else None.
        has_geometry: False where the source has no Frame of Reference (plain ultrasound): then the planes' places in
            `images` are stand-ins, and nothing of them may reach the segmentation.
        class_uid: the true SOP class of the source, where `images` name its successor.
        notes: what had to be made up, since anonymised files lack it.
    """

    images: list[Any]
    planes: Labels
    frames: list[int] | None
    has_geometry: bool
    class_uid: str
    notes: tuple[str, ...] = ()


def _completed(headers: Sequence[Any], path: Path) -> tuple[str, ...]:
    """Fills in what highdicom needs and anonymised files lack, and tells which identifiers are new."""
    from pydicom.uid import generate_uid

    notes = []
    first = headers[0]
    for name in ("StudyInstanceUID", "SeriesInstanceUID"):
        if all(header.get(name) for header in headers):
            continue
        # One value for all that share the place in space, so that segmentations of one study stay together.
        origin = str(first.get("FrameOfReferenceUID") or first.SOPInstanceUID or path)
        uid = generate_uid(entropy_srcs=[name, origin])
        for header in headers:
            setattr(header, name, uid)
        notes.append(f"the source has no {name}: a new one was made")
    for header in headers:
        for name in _COPIED:
            if name not in header:
                setattr(header, name, "")
    return tuple(notes)


def _inside(path: Path) -> list[Path]:
    """The DICOM files of a folder, or the file itself."""
    if not path.is_dir():
        return [path]
    files = (file for file in sorted(path.iterdir()) if file.is_file() and file.name.upper() != "DICOMDIR")
    found = [file for file in files if has_preamble(file)]
    if not found:
        raise InputError(path, "no DICOM files", "the files of the scan", _ONE_EXPORT)
    return found


def read_source(
    files: Sequence[str | PathLike[str]],
    labels_path: str | PathLike[str],
    labels: Labels,
    affine: Affine,
    placement: Mapping[str, Any] | None,
) -> Source:
    """Reads the headers of the source files and brings the labels onto their planes.

    Args:
        files: of one series (or its folder), or one multi-frame file.
        labels_path: named in errors.
        labels: ``(X, Y, Z)`` in any voxel order and direction.
        affine: voxel index to RAS in mm.
        placement: as the reader of an ultrasound file gave it.

    Raises:
        InputError: a file is missing, damaged or of another series; labels and source do not fit.
    """
    if not files:
        raise InputError(labels_path, "no source files", "the DICOM files of the scan", _ONE_EXPORT)
    paths = [path for file in files for path in _inside(Path(file))]
    for path in paths:
        if not path.is_file():
            mend = "Put the scan back where it was converted from, or convert it again."
            raise InputError(path, "no such file", "a DICOM file of the scan", mend)
    headers = [read_header(path) for path in paths]
    with decoding(paths[0]):
        kinds = {str(header.SOPClassUID) for header in headers}
        series = {str(header.get("SeriesInstanceUID", "")) for header in headers}
        if len(kinds) > 1 or len(series) > 1:
            raise InputError(paths[0], f"files of {max(len(kinds), len(series))} series", "files of one", _ONE_EXPORT)
        # Also sees to it that no header makes planes larger than its file could hold.
        pictures = [read_picture(header, path) for header, path in zip(headers, paths, strict=True)]
        for path, picture in zip(paths, pictures, strict=True):
            if (picture.rows, picture.columns) != (pictures[0].rows, pictures[0].columns):
                found = f"{picture.columns} × {picture.rows} pixels"
                expected = f"{pictures[0].columns} × {pictures[0].rows} as in {paths[0].name}"
                raise InputError(path, found, expected, _ONE_EXPORT)
        notes = _completed(headers, paths[0])
        kind = kinds.pop()
        if kind == ENHANCED_CLASS:
            source = _enhanced(paths[0], headers[0], pictures[0], labels_path, labels, affine, placement)
        elif kind in ULTRASOUND_CLASSES:
            source = _ultrasound(paths, headers, pictures[0], labels_path, labels, affine, placement)
        else:
            source = _series(paths, headers, pictures[0], labels_path, labels, affine)
        source.notes = notes
        return source


def _series(
    paths: Sequence[Path],
    headers: list[Any],
    picture: Picture,
    labels_path: str | PathLike[str],
    labels: Labels,
    affine: Affine,
) -> Source:
    planes = []
    for path, header in zip(paths, headers, strict=True):
        lacking = [
            name
            for name in ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
            if header.get(name) is None
        ]
        if lacking or int(header.get("NumberOfFrames") or 1) != 1:
            found = f"no {', '.join(lacking)}" if lacking else "a multi-frame file"
            expected = "single-frame slices with their place in the patient"
            raise InputError(path, found, expected, "Name the files of a CT or MR series.")
        planes.append(_plane_affine(header.ImagePositionPatient, header.ImageOrientationPatient, header.PixelSpacing))
    stacked = labels_on_planes(labels_path, labels, affine, planes, picture.rows, picture.columns)
    return Source(headers, stacked, None, True, str(headers[0].SOPClassUID))


def _plane_affine(position: Sequence[float], orientation: Sequence[float], pixel: Sequence[float]) -> Affine:
    """Column and row index to RAS in mm (PS3.3 C.7.6.2.1.1); the third column is the unit normal."""
    cosines = np.array([float(v) for v in orientation])
    row_step, column_step = (float(v) for v in pixel)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = cosines[:3] * column_step, cosines[3:] * row_step
    affine[:3, 2] = np.cross(cosines[:3], cosines[3:])
    affine[:3, 3] = [float(v) for v in position]
    affine[:2] *= -1  # DICOM is LPS
    return affine


def _placed(path: Path, placement: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not placement:
        mend = "Convert the scan again, and use the link file that this writes."
        raise InputError(path, "an ultrasound file and no placement", "where the voxels lie in its frames", mend)
    return placement


def _check_frames(path: Path, frames: Sequence[int], count: int) -> None:
    if max(frames) >= count:
        found = f"{count} frames, and labels for frame {max(frames) + 1}"
        raise InputError(path, found, "the file that was converted", "Check the link file.")


def _ultrasound(
    paths: Sequence[Path],
    headers: list[Any],
    picture: Picture,
    labels_path: str | PathLike[str],
    labels: Labels,
    affine: Affine,
    placement: Mapping[str, Any] | None,
) -> Source:
    path = paths[0]
    order = sorted_frames(list(zip(paths, headers, strict=True)))
    headers = [headers[i] for i in order]
    placement, size = _placed(path, placement), (picture.rows, picture.columns)
    labels, steps = labels_in_probe_order(labels_path, labels, affine, placement, *size)
    planes, frames = labels_on_frames(labels_path, labels, placement, *size)
    _check_frames(path, frames, picture.frames if len(headers) == 1 else len(headers))
    # highdicom writes several planes only with places; these are taken out again after it (`has_geometry`). It sorts
    # planes against their normal, hence the minus: frames stay in their order.
    positions = [np.array([0.0, 0.0, -steps[1] * i]) for i in range(len(frames))]
    cosines = np.array([1.0, 0, 0, 0, 1, 0])
    pixel = (steps[2], steps[0])
    kind = str(headers[0].SOPClassUID)
    if _SUCCESSOR.get(kind, kind) == _MULTI_FRAME or picture.frames > 1:
        image = _stand_in(headers[0], _MULTI_FRAME, positions, cosines, pixel, steps[1], "")
        return Source([image], planes, [frame + 1 for frame in frames], False, kind)
    from pydicom.valuerep import DS

    images = []
    for frame, position in zip(frames, positions, strict=True):
        image = headers[frame]
        image.SOPClassUID = _SUCCESSOR.get(kind, kind)
        image.FrameOfReferenceUID = _STAND_IN_REFERENCE
        image.ImagePositionPatient = [DS(float(v), auto_format=True) for v in position]
        image.ImageOrientationPatient = list(cosines)
        image.PixelSpacing = [DS(float(v), auto_format=True) for v in pixel]
        image.SliceThickness = DS(steps[1], auto_format=True)
        images.append(image)
    return Source(images, planes, None, False, kind)


def _enhanced(
    path: Path,
    header: Any,
    picture: Picture,
    labels_path: str | PathLike[str],
    labels: Labels,
    affine: Affine,
    placement: Mapping[str, Any] | None,
) -> Source:
    placement, size = _placed(path, placement), (picture.rows, picture.columns)
    frames = [int(frame) for frame in placement.get("frames", ())]
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    if not frames or min(frames) < 0:
        raise InputError(path, f"a placement with the frames {frames}", "the frames of a volume", "Convert it again.")
    _check_frames(path, frames, min(picture.frames, len(own)))
    shared = header.SharedFunctionalGroupsSequence[0]

    def macro(frame: int, sequence: str, name: str) -> npt.NDArray[np.float64] | None:
        for place in (own[frame], shared):
            if place.get(sequence) and place.get(sequence)[0].get(name) is not None:
                return np.array([float(v) for v in place.get(sequence)[0].get(name)])
        return None

    positions = [macro(frame, "PlanePositionSequence", "ImagePositionPatient") for frame in frames]
    cosines = macro(frames[0], "PlaneOrientationSequence", "ImageOrientationPatient")
    reference = str(header.get("FrameOfReferenceUID", ""))
    in_patient = cosines is not None and all(position is not None for position in positions)
    if not in_patient:
        # The segmentation is given in the volume's own frame of reference.
        positions = [macro(frame, "PlanePositionVolumeSequence", "ImagePositionVolume") for frame in frames]
        cosines = macro(frames[0], "PlaneOrientationVolumeSequence", "ImageOrientationVolume")
        reference = str(header.get("VolumeFrameOfReferenceUID", ""))
    pixel = macro(frames[0], "PixelMeasuresSequence", "PixelSpacing")
    places = [position for position in positions if position is not None]
    if cosines is None or pixel is None or not reference or len(places) < len(frames):
        expected = "an Enhanced US Volume with a frame of reference and plane positions"
        raise InputError(path, "frames without a place", expected, "Export the volume again.")
    if in_patient:
        grids = [_plane_affine(list(place), list(cosines), list(pixel)) for place in places]
        planes = labels_on_planes(labels_path, labels, affine, grids, *size)
    else:
        labels, _ = labels_in_probe_order(labels_path, labels, affine, placement, *size)
        planes, _ = labels_on_frames(labels_path, labels, placement, *size)
    gap = float(np.linalg.norm(places[-1] - places[0])) / max(len(places) - 1, 1)
    image = _stand_in(header, ENHANCED_CLASS, places, cosines, (float(pixel[0]), float(pixel[1])), gap, reference)
    return Source([image], planes, [frame + 1 for frame in frames], True, ENHANCED_CLASS)


def _stand_in(
    header: Any,
    class_uid: str,
    positions: Sequence[npt.NDArray[np.float64]],
    cosines: npt.NDArray[np.float64],
    pixel: tuple[float, float],
    gap: float,
    reference: str,
) -> Any:
    """A multi-frame header with only the planes that carry labels, and with their places where highdicom looks."""
    import highdicom
    from pydicom.dataset import Dataset

    shared = Dataset()
    shared.PixelMeasuresSequence = highdicom.PixelMeasuresSequence(
        pixel_spacing=pixel, slice_thickness=gap, spacing_between_slices=gap
    )
    system = highdicom.CoordinateSystemNames.PATIENT
    shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence(system, list(cosines))
    frames = []
    for position in positions:
        item = Dataset()
        item.PlanePositionSequence = highdicom.PlanePositionSequence(system, list(position))
        frames.append(item)
    header.SOPClassUID = class_uid
    header.FrameOfReferenceUID = reference or _STAND_IN_REFERENCE
    header.NumberOfFrames = len(frames)
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = frames
    return header
