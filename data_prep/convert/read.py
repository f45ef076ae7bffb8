"""Read a source with the reader of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_prep.convert.discover import kind_of
from data_prep.convert.source import ReadOptions, Source
from grn_monai.data import readers
from grn_monai.data.readers import CheckedReader, SourceVolume
from grn_monai.data.volume import VolumeHeader, check_same_geometry, read_volume
from grn_monai.errors import InputError, listed
from grn_monai.labels import NUM_CLASSES

__all__ = ["read_image", "read_label"]

_LAYER_VALUES = {str(value): value for value in range(NUM_CLASSES)}


def _reader(kind: str, options: ReadOptions, label: bool = False, size: tuple[int, int] | None = None) -> CheckedReader:
    """The reader of a kind, with those of the options that it knows.

    Args:
        kind: of the file.
        options: of the source.
        label: whether it is a label that is read.
        size: columns and rows that the slices of a stack must have.
    """
    # Volumes are counted from 1 on the command line, frames from 0 in the readers of arrays.
    index = None if options.volume is None else options.volume - 1
    if kind == "verasonics":
        variable = options.label_variable if label else options.variable
        return readers.VerasonicsReader(variable, options.spacing, options.axes, **_given(volume=index))
    if kind == "uff":
        return readers.UFFReader(options.variable, frame_spacing=options.frame_spacing, **_given(volume=index))
    if kind == "raw":
        return readers.RawVolumeReader()
    if kind == "slices":
        role: Literal["image", "label"] = "label" if label else "image"
        return readers.SliceStackReader(options.spacing, role, size=size, **_given(plane=options.plane))
    if kind == "dicom-us":
        pixel = None if options.spacing is None else (options.spacing[0], options.spacing[2])
        step = options.frame_spacing
        if step is None and options.spacing is not None:
            step = options.spacing[1]
        frames = None if options.frames is None else (options.frames[0] - 1, options.frames[1])
        return readers.UltrasoundReader(options.region, pixel, step, frames, options.crop or True)
    if kind == "dicom-enhanced-us":
        return readers.EnhancedUltrasoundReader(options.volume)
    return readers.DicomSeriesReader()


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _stored(path: Path, kind: str) -> SourceVolume:
    """A NIfTI, MHA or NRRD volume in the smallest type that holds its numbers."""
    volume = read_volume(path)
    voxels = volume.as_tensor().numpy()[0]
    return SourceVolume(_smallest(voxels), np.asarray(volume.affine, dtype=np.float64), path)


def _smallest(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if voxels.dtype.kind != "f":
        return voxels
    low, high = float(voxels.min()), float(voxels.max())
    for kind in (np.uint8, np.int16):
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            whole = voxels.astype(kind)
            if np.array_equal(whole, voxels):
                return whole
    return voxels


def read_image(source: Source) -> SourceVolume:
    """The image of a source as its file has it.

    Raises:
        InputError: whatever the reader refuses, or what `Source.problem` says.
    """
    if source.problem is not None:
        raise InputError(source.files[0], source.problem, "a whole scan", "Mend the files, or leave the scan out.")
    if source.kind == "volume":
        volume = _stored(source.files[0], source.kind)
        if source.options.spacing is not None:
            found = f"spacing {source.options.spacing} for a file that has its own"
            mend = "Leave --spacing out for NIfTI, MHA and NRRD files."
            raise InputError(source.files[0], found, "one of the two", mend)
        return volume
    reader = _reader(source.kind, source.options)
    loaded = reader.read([str(path) for path in source.files] if reader.many else str(source.files[0]))
    assert isinstance(loaded, SourceVolume)
    return loaded


def read_label(source: Source, image: SourceVolume) -> npt.NDArray[np.uint8] | None:
    """The label volume of a source, ``(X, Y, Z)`` uint8 on the grid of its image, or None.

    A NIfTI, MHA or NRRD label has to lie where the image lies; where the image's file knows no place in the patient,
    and for all other kinds of label, it has to have the image's shape.

    Raises:
        InputError: the label cannot be read, does not fit the image, or has values that the cohort does not know.
    """
    if not source.labels:
        return None
    if _by_structure(source):
        return _merged(source, image)
    kind = kind_of(source.labels[0])
    if source.kind != "slices" and kind == "volume":
        found = _on_grid(source.labels[0], image)
    else:
        found = _by_reader(source, kind, image)
    values = source.label_values or _LAYER_VALUES
    unique = np.unique(found)
    unknown = [f"{v:g}" for v in unique if v != 0 and f"{v:g}" not in values]
    if unknown:
        known = ", ".join(values)
        mend = "Give --label-values, or renumber the segments in the order of grn_monai/labels.py."
        raise InputError(source.labels[0], f"unknown label values {listed(unknown)}", f"values 0, {known}", mend)
    label = np.zeros(found.shape, np.uint8)
    for value in unique[unique != 0]:
        label[found == value] = values[f"{value:g}"]
    return label


def _by_structure(source: Source) -> bool:
    """Whether each label file is one structure, named after it."""
    return bool(source.label_values) and all(path.name in source.label_values for path in source.labels)


def _merged(source: Source, image: SourceVolume) -> npt.NDArray[np.uint8]:
    label = np.zeros(image.voxels.shape, np.uint8)
    for path in source.labels:
        label[_on_grid(path, image) > 0] = source.label_values[path.name]
    return label


def _on_grid(path: Path, image: SourceVolume) -> npt.NDArray[np.uint8]:
    voxels = read_volume(path, kind="label", num_classes=256)
    if image.oriented:
        check_same_geometry(VolumeHeader(_shape(image.voxels.shape), image.affine), voxels, image.path, path)
    found = voxels.as_tensor().numpy()[0]
    _check_shape(path, found.shape, image)
    return found


def _by_reader(source: Source, kind: str | None, image: SourceVolume) -> npt.NDArray[Any]:
    # A stack of masks may be pictures or NIfTI slices; both go through the reader of stacks.
    kind = "slices" if source.kind == "slices" else kind
    if kind not in ("verasonics", "uff", "raw", "slices"):
        mend = "Export the label as NIfTI, MHA or NRRD."
        raise InputError(source.labels[0], f"a label of kind {kind or 'unknown'}", "a label volume", mend)
    options = replace(source.options, spacing=source.options.spacing or image.spacing)
    x, y, z = image.voxels.shape
    reader = _reader(kind, options, label=True, size=(y if options.plane == "sagittal" else x, z))
    loaded = reader.read([str(p) for p in source.labels] if reader.many else str(source.labels[0]))
    assert isinstance(loaded, SourceVolume)
    _check_shape(source.labels[0], loaded.voxels.shape, image)
    return loaded.voxels


def _check_shape(path: Path, shape: Sequence[int], image: SourceVolume) -> None:
    if tuple(shape) != image.voxels.shape:
        mend = f"Resample the label onto the grid of {image.path.name} with nearest neighbour."
        raise InputError(path, f"shape {tuple(shape)}", f"the shape of its image, {image.voxels.shape}", mend)


def _shape(shape: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = shape
    return x, y, z
