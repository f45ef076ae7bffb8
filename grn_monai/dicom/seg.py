"""Label volumes written as DICOM segmentations (PS3.3 A.51) that lie on the files the scan came from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.dicom.codes import LUMBAR_REGION, Concept, segment_code
from grn_monai.errors import InputError
from grn_monai.files import replacing
from grn_monai.labels import LAYER_COLOURS, LAYER_NAMES

if TYPE_CHECKING:
    from grn_monai.dicom.sources import Source

__all__ = ["WrittenSegmentation", "write_dicom_seg"]

_SCANS = 'Install it: pip install "grn-monai[scans]".'
_MANUFACTURER = "grn-monai"
_SERIES_OFFSET = 900  # added to the source's series number, so that the result sorts behind it


class WrittenSegmentation(NamedTuple):
    """What `write_dicom_seg` wrote.

    Attributes:
        path: the file.
        segments: names of the segments, in order of their numbers from 1.
        empty: names of the labels that no voxel has; they are left out.
        frames: number of frames stored (a plane without any voxel of a segment is not).
        notes: what the source lacked and was made up, such as the Study Instance UID of an anonymised series.
    """

    path: Path
    segments: tuple[str, ...]
    empty: tuple[str, ...]
    frames: int
    notes: tuple[str, ...] = ()


def write_dicom_seg(
    labels: str | PathLike[str] | npt.NDArray[Any],
    source_files: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    affine: npt.NDArray[np.float64] | None = None,
    placement: Mapping[str, Any] | None = None,
    names: Mapping[int, str] | None = None,
    series_description: str = "Tissue layers of the back (grn-monai)",
    algorithm_name: str = "grn-monai",
    series_number: int | None = None,
) -> WrittenSegmentation:
    """Writes labels as a DICOM segmentation that refers to the files of its scan.

    Labels may come in any voxel order and direction. They find their pixels by geometry; those of an ultrasound file
    that is not placed in the patient by the affine that its reader gave (`probe_affine`) and `placement`. A plain
    ultrasound file has no Frame of Reference, and so its segmentation has none either: each of its pixels belongs to
    the pixel of the frame that it refers to (A.51.5.1). An Enhanced US Volume that is not placed in the patient gives
    its Volume Frame of Reference.

    Patient, study and accession of the source are copied, as they must be for the archive to file the result beside its
    scan: such a file is not de-identified.

    Args:
        labels: label volume ``(X, Y, Z)`` of whole numbers, 0 for background, or its NIfTI, MHA or NRRD file.
        source_files: the scan's DICOM files: a series, single ultrasound frames, or one multi-frame file.
        out: the file to write, whole or not at all.
        affine: voxel index to RAS in mm of an array; a file brings its own.
        placement: `SourceVolume.placement` of an ultrasound scan.
        names: label value to name, by which the codes are found; default: the six layers.
        series_description: of the new series, at most 64 characters.
        algorithm_name: recorded with the version of this package.
        series_number: of the new series; default: 900 more than the source's.

    Returns:
        The path and the segments written.

    Raises:
        InputError: the labels are faulty or all background, a source file is missing or damaged, labels and source do
            not fit, highdicom is not installed, or the file cannot be written.
    """
    from grn_monai.dicom.sources import read_source

    where: str | PathLike[str] = "labels"
    known = dict(names or LAYER_NAMES)
    if isinstance(labels, str | PathLike):
        from grn_monai.data.volume import read_volume

        where = labels
        volume = read_volume(labels, kind="label", num_classes=min(max(known, default=0) + 1, 256))
        array, affine = np.asarray(volume[0]), np.asarray(volume.affine, dtype=np.float64)
    else:
        array = np.asarray(labels)
    if affine is None:
        raise InputError(where, "an array without affine", "voxel index to RAS in mm", "Give the option affine.")
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise InputError(where, f"the affine {matrix.tolist()}", "an invertible 4 × 4 matrix", "Correct the affine.")
    array = _checked(where, array, known)
    segments = [int(value) for value in np.unique(array) if value]
    if not segments:
        raise InputError(where, "background alone", "at least one labelled voxel", "Check the segmentation.")
    if len(series_description) > 64:
        found = f"{len(series_description)} characters"
        raise InputError("series_description", found, "at most 64, as DICOM allows", "Shorten it.")
    _check_highdicom()
    source = read_source(source_files, where, array, matrix, placement)
    named = [known[value] for value in segments]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of patient names against the standard's form: they stay as they are
            dataset = _build(source, segments, named, series_description, algorithm_name, series_number)
            _refer(dataset, source)
            with replacing(out) as temporary:
                dataset.save_as(temporary)
    except InputError:
        raise
    except Exception as error:  # highdicom and pydicom raise many types on faulty patient and study attributes
        found = f"a source that highdicom refuses ({type(error).__name__}: {error})"
        mend = "Export the scan again from the scanner or archive."
        expected = "DICOM images with their patient, study and series"
        raise InputError(source_files[0], found, expected, mend) from error
    empty = tuple(name for value, name in sorted(known.items()) if value and value not in segments)
    return WrittenSegmentation(Path(out), tuple(named), empty, int(dataset.NumberOfFrames), source.notes)


def _check_highdicom() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise InputError("DICOM segmentation", "no highdicom", "that package", _SCANS) from error


def _checked(where: str | PathLike[str], array: npt.NDArray[Any], names: Mapping[int, str]) -> npt.NDArray[np.uint8]:
    if array.ndim != 3 or array.size == 0:
        raise InputError(where, f"labels of shape {array.shape}", "three axes (X, Y, Z)", "Give one label volume.")
    values = np.unique(array)
    unknown = [value for value in values.tolist() if value and (value not in names or not 0 < value < 256)]
    if unknown:
        found = f"label values without a name: {', '.join(f'{value:g}' for value in unknown[:8])}"
        mend = "Give the names of the labels, such as a dataset.json with them."
        raise InputError(where, found, f"values among {sorted(names)}", mend)
    return array.astype(np.uint8)


def _colour(value: int) -> Any:
    from highdicom.color import CIELabColor

    colours = list(LAYER_COLOURS.values())
    return CIELabColor.from_string(LAYER_COLOURS.get(value, colours[(value - 1) % len(colours)]))


def _description(number: int, value: int, name: str, algorithm: Any) -> Any:
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept

    def coded(concept: Concept) -> Any:
        return CodedConcept(concept.value, concept.scheme, concept.meaning)

    code = segment_code(name)
    description = SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=coded(code.category),
        segmented_property_type=coded(code.type),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=[coded(LUMBAR_REGION)],
        display_color=_colour(value),
    )
    if code.modifiers:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(modifier) for modifier in code.modifiers]
    return description


def _build(
    source: Source,
    segments: Sequence[int],
    names: Sequence[str],
    series_description: str,
    algorithm_name: str,
    series_number: int | None,
) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    from grn_monai import __version__

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=algorithm_name[:64], family=codes.DCM.ArtificialIntelligence, version=__version__
    )
    number_of = np.zeros(256, dtype=np.uint8)
    number_of[list(segments)] = np.arange(1, len(segments) + 1)
    first = source.images[0]
    if series_number is None:
        series_number = int(first.get("SeriesNumber") or 0) + _SERIES_OFFSET
    return highdicom.seg.Segmentation(
        source_images=source.images,
        pixel_array=number_of[source.planes],
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, value, name, algorithm)
            for number, (value, name) in enumerate(zip(segments, names, strict=True), start=1)
        ],
        series_instance_uid=highdicom.UID(),
        series_number=series_number,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=_MANUFACTURER,
        manufacturer_model_name=_MANUFACTURER,
        software_versions=__version__,
        device_serial_number="0",
        content_description="Automatic segmentation",
        content_label="SEGMENTATION",
        series_description=series_description,
    )


def _refer(dataset: Any, source: Source) -> None:
    """Puts in the true frame numbers and the true SOP class of the source, and takes stand-in places out."""
    plane_of = {str(image.SOPInstanceUID): plane for plane, image in enumerate(source.images, start=1)}
    done: dict[int, int] = {}  # the frames of several segments share one item, which must be changed once
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        if id(image) not in done:
            done[id(image)] = plane_of[str(image.ReferencedSOPInstanceUID)]
            if source.frames is not None:
                done[id(image)] = int(image.ReferencedFrameNumber)
                image.ReferencedFrameNumber = source.frames[done[id(image)] - 1]
            image.ReferencedSOPClassUID = source.class_uid
        plane = done[id(image)]
        if not source.has_geometry:
            del frame.PlanePositionSequence
            frame.FrameContentSequence[0].StackID = "1"
            frame.FrameContentSequence[0].InStackPositionNumber = plane
    for series in dataset.ReferencedSeriesSequence:
        for instance in series.ReferencedInstanceSequence:
            instance.ReferencedSOPClassUID = source.class_uid
    if not source.has_geometry:
        _without_geometry(dataset)


def _without_geometry(dataset: Any) -> None:
    """Makes the position in a stack (Frame Content) the second dimension, since positions in space are gone.

    Pixels are then placed by the frame they refer to (PS3.3 A.51.5.1).
    """
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    for name in ("FrameOfReferenceUID", "PositionReferenceIndicator", "DimensionOrganizationType"):
        if name in dataset:
            delattr(dataset, name)
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    place = dataset.DimensionIndexSequence[-1]
    place.DimensionIndexPointer = Tag(tag_for_keyword("InStackPositionNumber") or 0)
    place.FunctionalGroupPointer = Tag(tag_for_keyword("FrameContentSequence") or 0)
    place.DimensionDescriptionLabel = "In-Stack Position Number"
