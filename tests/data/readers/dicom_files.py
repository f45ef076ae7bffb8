"""Small valid DICOM files of every kind that is read, made in memory: ultrasound, Enhanced US Volume, CT series."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from PIL import Image
from pydicom import FileDataset
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"
US_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3.1"
US_MULTI_FRAME_RETIRED = "1.2.840.10008.5.1.4.1.1.3"
ENHANCED_US = "1.2.840.10008.5.1.4.1.1.6.2"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"

STUDY, SERIES, REFERENCE = (generate_uid(entropy_srcs=["grn-monai tests", name]) for name in ("study", "series", "for"))


def region(
    box: Sequence[int],
    delta: Sequence[float] = (0.02, 0.02),
    units: Sequence[int] = (3, 3),
    spatial_format: int = 1,
    data_type: int = 1,
    flags: int = 2,
) -> Dataset:
    """An item of the Sequence of Ultrasound Regions; `delta` in `units` (3: cm) per pixel."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = spatial_format, data_type, flags
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = box
    item.PhysicalUnitsXDirection, item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta
    return item


def _dataset(class_uid: str, modality: str, syntax: str = ExplicitVRLittleEndian) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(class_uid), generate_uid()
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(syntax), generate_uid(entropy_srcs=["grn-monai tests"])
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = class_uid, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = STUDY, SERIES, modality
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "secret-4711"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240102", "030405", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "A1", ""
    dataset.SeriesNumber, dataset.InstanceNumber = 3, 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    return dataset


def _put_pixels(dataset: Any, pixels: np.ndarray, photometric: str, jpeg: bool) -> None:
    """Pixels ``(frame, row, column)`` or ``(frame, row, column, 3)``, uint8 or uint16."""
    bits = pixels.dtype.itemsize * 8
    dataset.Rows, dataset.Columns = pixels.shape[1:3]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    if pixels.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 0
    if not jpeg:
        data = pixels.tobytes()
        dataset.PixelData = data + b"\0" * (len(data) % 2)
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
        return
    frames = []
    for frame in pixels:
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, format="JPEG", quality=95, subsampling=0)
        frames.append(stream.getvalue())
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].VR = "OB"


def save_ultrasound(
    path: Path,
    pixels: np.ndarray,
    regions: Sequence[Dataset] | None,
    photometric: str | None = None,
    jpeg: bool = False,
    class_uid: str | None = None,
    **attributes: Any,
) -> Path:
    """An Ultrasound (Multi-frame) Image; `pixels` ``(frame, row, column[, 3])``."""
    several = len(pixels) > 1
    kind = class_uid or (US_MULTI_FRAME if several else US_IMAGE)
    dataset = _dataset(kind, "US", JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian)
    if photometric is None:
        photometric = "MONOCHROME2" if pixels.ndim == 3 else ("YBR_FULL_422" if jpeg else "RGB")
    _put_pixels(dataset, pixels, photometric, jpeg)
    if several:
        dataset.NumberOfFrames, dataset.FrameTime, dataset.FrameIncrementPointer = len(pixels), 33.3, 0x00181063
    if regions is not None:
        dataset.SequenceOfUltrasoundRegions = list(regions)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def save_enhanced(
    path: Path,
    pixels: np.ndarray,
    positions: Sequence[Sequence[float]],
    cosines: Sequence[float] = (1, 0, 0, 0, 1, 0),
    spacing: Sequence[float] = (0.3, 0.4),
    matrix: np.ndarray | None = None,
    apex: Sequence[float] | None = None,
    times: Sequence[int] | None = None,
    kinds: Sequence[str] | None = None,
    patient: tuple[Sequence[float], Sequence[Sequence[float]]] | None = None,
    jpeg: bool = False,
) -> Path:
    """An Enhanced US Volume.

    Args:
        path: where to.
        pixels: ``(frame, row, column)``.
        positions: Image Position (Volume) of each frame, mm.
        cosines: Image Orientation (Volume).
        spacing: Pixel Spacing, rows then columns, mm.
        matrix: Volume to Transducer Mapping Matrix; default: the unit matrix.
        apex: Apex Position, mm.
        times: Temporal Position Index of each frame.
        kinds: Data Type of each frame.
        patient: Image Orientation (Patient) and the Image Position (Patient) of each frame.
        jpeg: whether the frames are JPEG baseline.
    """
    dataset = _dataset(ENHANCED_US, "US", JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian)
    _put_pixels(dataset, pixels, "MONOCHROME2", jpeg)
    dataset.NumberOfFrames = len(pixels)
    dataset.FrameOfReferenceUID, dataset.VolumeFrameOfReferenceUID = REFERENCE, generate_uid()
    dataset.PositionReferenceIndicator = ""
    dataset.UltrasoundAcquisitionGeometry = "PATIENT" if patient else "APEX"
    dataset.VolumeToTransducerMappingMatrix = [float(v) for v in (np.eye(4) if matrix is None else matrix).ravel()]
    if apex is not None:
        dataset.ApexPosition = [float(v) for v in apex]
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [float(v) for v in spacing]
    orientation.ImageOrientationVolume = [float(v) for v in cosines]
    shared.PixelMeasuresSequence, shared.PlaneOrientationVolumeSequence = [measures], [orientation]
    if patient:
        dataset.PatientFrameOfReferenceSource = "ESTIMATED"
        item = Dataset()
        item.ImageOrientationPatient = [float(v) for v in patient[0]]
        shared.PlaneOrientationSequence = [item]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dimensions = []
    for pointer, group in ((0x00209128, 0x00209111), (0x00209301, 0x0020930E)):
        item = Dataset()
        item.DimensionIndexPointer, item.FunctionalGroupPointer = pointer, group
        dimensions.append(item)
    dataset.DimensionIndexSequence = dimensions
    frames = []
    for number, position in enumerate(positions):
        frame, place, content, kind = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionVolume = [float(v) for v in position]
        content.TemporalPositionIndex = 1 if times is None else times[number]
        content.DimensionIndexValues = [content.TemporalPositionIndex, number + 1]
        kind.DataType = "TISSUE_INTENSITY" if kinds is None else kinds[number]
        frame.PlanePositionVolumeSequence, frame.FrameContentSequence = [place], [content]
        frame.ImageDataTypeSequence = [kind]
        if patient:
            item = Dataset()
            item.ImagePositionPatient = [float(v) for v in patient[1][number]]
            frame.PlanePositionSequence = [item]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.save_as(path, enforce_file_format=True)
    return path


def save_series(
    folder: Path, pixels: np.ndarray, origin: Sequence[float], cosines: Sequence[float], spacing: Sequence[float]
) -> list[Path]:
    """A CT series; `pixels` ``(slice, row, column)`` int16, `spacing` of slices, rows and columns in mm."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(cosines[:3], cosines[3:])
    paths = []
    for number, slice_ in enumerate(pixels):
        dataset = _dataset(CT_IMAGE, "CT")
        _put_pixels(dataset, slice_[None].astype(np.uint16), "MONOCHROME2", False)
        dataset.PixelRepresentation, dataset.RescaleIntercept, dataset.RescaleSlope = 0, -1024, 1
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = REFERENCE, ""
        dataset.ImagePositionPatient = [float(v) for v in np.asarray(origin) + number * spacing[0] * normal]
        dataset.ImageOrientationPatient = [float(v) for v in cosines]
        dataset.PixelSpacing, dataset.SliceThickness = [float(spacing[1]), float(spacing[2])], float(spacing[0])
        dataset.InstanceNumber = number + 1
        path = folder / f"slice{number:03d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def series_affine(origin: Sequence[float], cosines: Sequence[float], spacing: Sequence[float]) -> np.ndarray:
    """Affine of (column, row, slice) to RAS in mm of what `save_series` writes."""
    affine = np.eye(4)
    affine[:3, 0] = np.array(cosines[:3]) * spacing[2]
    affine[:3, 1] = np.array(cosines[3:]) * spacing[1]
    affine[:3, 2] = np.cross(cosines[:3], cosines[3:]) * spacing[0]
    affine[:3, 3] = origin
    affine[:2] *= -1
    return affine


def read_segments(path: Path) -> Any:
    """A segmentation as highdicom reads it."""
    return highdicom.seg.segread(path)
