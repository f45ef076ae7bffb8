"""Read a source with the reader of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_prep.convert.discover import kind_of
from data_prep.convert.geometry import check_spacing_given, has_voxel_size
from data_prep.convert.source import ReadOptions, Source
from grn_monai.data import readers
from grn_monai.data.readers import CheckedReader, SourceVolume, probe_affine
from grn_monai.data.readers.base import check_spacing
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
    variable = options.label_variable if label else options.variable
    if kind == "verasonics":
        return readers.VerasonicsReader(variable, options.spacing, options.axes, options.volume)
    if kind == "uff":
        return readers.UFFReader(variable, options.volume, _frame_step(options), options.spacing)
    if kind == "raw":
        return readers.RawVolumeReader(options.spacing)
    if kind == "slices":
        role: Literal["image", "label"] = "label" if label else "image"
        told = _given(plane=options.plane, colour=options.colour, mask_order=options.mask_order)
        return readers.SliceStackReader(options.spacing, role, size=size, **told)
    if kind == "dicom-us":
        pixel = None if options.spacing is None else (options.spacing[0], options.spacing[2])
        step = _frame_step(options)
        # Frames are counted from 1 on the command line, from 0 in the reader.
        frames = None if options.frames is None else (options.frames[0] - 1, options.frames[1])
        return readers.UltrasoundReader(options.region, pixel, step, frames, options.crop or True)
    if kind == "dicom-enhanced-us":
        return readers.EnhancedUltrasoundReader(options.volume)
    return readers.DicomSeriesReader()


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _frame_step(options: ReadOptions) -> float | None:
    """Distance between frames, which lie along Y."""
    along_y = None if options.spacing is None else options.spacing[1]
    step = options.frame_spacing
    if step is not None and along_y is not None and abs(step - along_y) > 0.01 * along_y:
        found = f"{step:g} mm, and {along_y:g} mm along Y as --spacing"
        raise InputError("--frame-spacing", found, "one distance between frames", "Give one of the two.")
    return along_y if step is None else step


def _stored(path: Path, options: ReadOptions) -> SourceVolume:
    """A NIfTI, MHA or NRRD volume in the smallest type that holds its numbers."""
    volume = read_volume(path)
    voxels = _smallest(volume.as_tensor().numpy()[0])
    if has_voxel_size(path):
        return SourceVolume(voxels, np.asarray(volume.affine, dtype=np.float64), path)
    if options.spacing is None:
        mend = "Give the option spacing: mm along X, Y and Z (Z is depth), or set it in the header."
        raise InputError(path, "a header without a voxel size", "the voxel size along X, Y and Z in mm", mend)
    spacing = check_spacing(path, options.spacing, "Correct the option spacing.")
    facts = {"spacing_from": "option"}
    return SourceVolume(voxels, probe_affine(voxels.shape, spacing), path, oriented=False, facts=facts)


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
        loaded = _stored(source.files[0], source.options)
        check_spacing_given(loaded, source.options.spacing, None)
        return loaded
    reader = _reader(source.kind, source.options)
    loaded = _read(reader, source.files)
    if source.kind in ("dicom-enhanced-us", "dicom-series"):
        check_spacing_given(loaded, source.options.spacing, source.options.frame_spacing)
    if loaded.facts.get("picture_from") == "frame" and not source.options.whole_frame:
        found = "frames of which nothing tells where the picture is; names may be burned in beside it"
        mend = "Give the option crop, or whole_frame after a look at the frames."
        raise InputError(loaded.path, found, "a valid ultrasound region", mend)
    return loaded


def _read(reader: CheckedReader, paths: Sequence[Path]) -> SourceVolume:
    loaded = reader.read([str(path) for path in paths] if reader.many else str(paths[0]))
    assert isinstance(loaded, SourceVolume)
    return loaded


def read_label(source: Source, image: SourceVolume) -> npt.NDArray[np.uint8] | None:
    """The label volume of a source, ``(X, Y, Z)`` uint8 on the grid of its image, or None.

    A NIfTI, MHA or NRRD label has to lie where the image lies. Where the image's file knows no place in the patient, it
    has to have the voxel order (X, Y, Z) of the cohort's volume, as all other kinds of label; of these, a .mat label of
    a .mat volume is read with the axes of its image.

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
        order = "." if source.label_values else " in the order of grn_monai/labels.py."
        mend = f"Give --label-values, or renumber the segments{order}"
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
    if image.facts.get("y_reversed") and not np.allclose(voxels.affine, image.affine, atol=1e-3):
        expected = "a label with the axes of the file"
        mend = "Save the label as .mat in the axes of its volume, or draw it on the image of the converted cohort."
        raise InputError(path, f"a label of {image.path.name}, whose Y is turned round on reading", expected, mend)
    return found


def _by_reader(source: Source, kind: str | None, image: SourceVolume) -> npt.NDArray[Any]:
    # A stack of masks may be pictures or NIfTI slices; both go through the reader of stacks.
    kind = "slices" if source.kind == "slices" else kind
    if kind not in ("verasonics", "uff", "raw", "slices"):
        mend = "Export the label as NIfTI, MHA or NRRD."
        raise InputError(source.labels[0], f"a label of kind {kind or 'unknown'}", "a label volume", mend)
    options = replace(source.options, spacing=image.spacing, frame_spacing=None)
    if kind == source.kind == "verasonics":
        loaded = _mat_label(source, options, image)
    else:
        if source.files[0].name.lower().endswith((".nii", ".nii.gz")):
            # Images and masks of one format have one order.
            options = replace(options, mask_order=options.mask_order or "columns-first")
        x, y, z = image.voxels.shape
        reader = _reader(kind, options, label=True, size=(y if options.plane == "sagittal" else x, z))
        loaded = _read(reader, source.labels)
    _check_shape(source.labels[0], loaded.voxels.shape, image)
    return loaded.voxels


def _mat_label(source: Source, options: ReadOptions, image: SourceVolume) -> SourceVolume:
    """A .mat label in the axes and the direction of Y in which its image was read."""
    axes, turned = image.facts["axes"], image.facts["y_reversed"]
    # The label of one volume of several may hold that volume alone.
    for order in dict.fromkeys((axes.replace("t", ""), axes)):
        reader = readers.VerasonicsReader(options.label_variable, options.spacing, order, options.volume, turned)
        try:
            return _read(reader, source.labels)
        except InputError:
            if order == axes:
                raise
    raise AssertionError


def _check_shape(path: Path, shape: Sequence[int], image: SourceVolume) -> None:
    if tuple(shape) != image.voxels.shape:
        mend = f"Resample the label onto the grid of {image.path.name} with nearest neighbour."
        raise InputError(path, f"shape {tuple(shape)}", f"the shape of its image, {image.voxels.shape}", mend)


def _shape(shape: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = shape
    return x, y, z
