"""Reads one scan or label volume, a file or the folder of a DICOM series, and says what is wrong where it cannot."""

from __future__ import annotations

import gzip
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813  (the field's name for it)
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys, SpaceKeys
from nibabel.openers import ImageOpener

from grn_monai.data.checks import (
    LabelValues,
    check_modality,
    check_modality_name,
    check_spacing_mm,
    label_mapping,
    map_labels,
)
from grn_monai.data.series import is_series, read_series, series_grid
from grn_monai.errors import InputError
from grn_monai.labels import NUM_CLASSES

__all__ = ["EXTENSIONS", "VolumeHeader", "check_same_geometry", "read_header", "read_volume", "scan_name", "voxel_ml"]

EXTENSIONS: tuple[str, ...] = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
"""File names that can be read, compressed or not."""

GEOMETRY_TOLERANCE_MM = 1e-3
"""How far the corners of two grids that are called equal may lie apart, in mm."""

_SERIES = ".dcm"
"""Put behind a folder's name in the meta data: savers cut an extension off, which in 1.2.840.99 would be the 99."""
_EXPORT_AGAIN = "Export or copy the file again."
_CONVERTED = "NIfTI, MHA or NRRD (for example with SimpleITK or 3D Slicer)"


def voxel_ml(affine: npt.ArrayLike) -> float:
    """Volume of a voxel in ml, also of a sheared grid (tilted gantry): |det| of its ``(4, 4)`` affine, / 1000."""
    return abs(float(np.linalg.det(np.asarray(affine, dtype=np.float64)[:3, :3]))) / 1000


class VolumeHeader(NamedTuple):
    """What a file says about its grid, without its voxels.

    Attributes:
        shape: voxels along the three axes of the file, ``(I, J, K)``.
        affine: voxel index to RAS position in mm, ``(4, 4)`` float64.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]


def scan_name(path: str | PathLike[str]) -> str:
    """The file name without folder and volume extension: ``a/s01.nii.gz`` gives ``s01``, as does a folder ``a/s01``."""
    name = Path(path).name or Path(path).absolute().name
    return next((name[: -len(e)] for e in (*EXTENSIONS, _SERIES) if name.lower().endswith(e)), name)


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _check_file(path: Path) -> None:
    readable = ", ".join(EXTENSIONS)
    if path.is_dir():
        mend = "Name the volume file, or the folder that holds the files of one DICOM series."
        raise InputError(path, "a folder without DICOM files", f"one volume file ({readable})", mend)
    if not path.exists():
        mend = "Check the path; paths in a dataset.json are relative to that file."
        raise InputError(path, "no such file", f"a volume ({readable})", mend)
    if not path.name.lower().endswith(EXTENSIONS):
        found = f"the unsupported extension {''.join(path.suffixes[-2:]) or '(none)'!r}"
        mend = f"Convert it first, to {_CONVERTED}; of a DICOM series name the folder."
        raise InputError(path, found, readable, mend)
    if path.stat().st_size == 0:
        raise InputError(path, "an empty file (0 bytes)", "a volume", _EXPORT_AGAIN)
    _check_signature(path)


def _check_signature(path: Path) -> None:
    """ITK goes by the content: under these names it would read any other format, and pass by what its reader checks."""
    name = path.name.lower()
    if _is_nifti(path):
        return
    with path.open("rb") as file:
        head = file.read(4096)
    known = head.startswith(b"NRRD") if name.endswith(".nrrd") else b"NDims" in head
    if not known:
        kind = "an NRRD" if name.endswith(".nrrd") else "a MetaImage"
        mend = "Give the file the ending of its format, or export it again."
        raise InputError(path, f"a file that is not {kind}", f"the header of {kind} file", mend)


def _reason(err: Exception) -> str:
    """The first telling line of a reader's error; ITK writes the source position and pages of plug-ins around it."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("/") and "Exception thrown in" not in line]
    return f"{type(err).__name__}: {(telling or lines or ['no reason given'])[0]}"


def _undecodable(path: Path, err: Exception) -> InputError:
    return InputError(path, f"a file that cannot be decoded ({_reason(err)})", "a whole volume", _EXPORT_AGAIN)


def _nifti_header(path: Path) -> tuple[tuple[int, ...], npt.NDArray[np.float64], np.dtype[Any], int]:
    image = nib.load(path)  # lazy: the voxels stay in the file
    if int(image.header["sform_code"]) == 0:
        with ImageOpener(path) as file:  # nibabel takes 1 mm where the file says 0
            steps = type(image.header).from_fileobj(file, check=False)["pixdim"][1 : 1 + min(len(image.shape), 3)]
        if (steps == 0).any():
            sizes = " × ".join(f"{step:g}" for step in steps)
            mend = "Set the voxel size in the header (mm), for example by exporting again from 3D Slicer."
            raise InputError(path, f"a voxel size of {sizes} mm", "positive spacing", mend)
    affine = np.array(image.affine, dtype=np.float64)
    # The low three bits are the unit of length: 1 metre, 2 mm, 3 micrometre; files in the wild hold other numbers too.
    affine[:3] *= {1: 1e3, 3: 1e-3}.get(int(image.header["xyzt_units"]) & 7, 1.0)
    dtype = image.get_data_dtype()
    return tuple(image.shape), affine, dtype, len(dtype.fields or (1,))


def _itk_header(path: Path) -> tuple[tuple[int, ...], npt.NDArray[np.float64], np.dtype[Any], int]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    shape, rank = tuple(reader.GetSize()), reader.GetDimension()
    affine = np.eye(4)
    if rank >= 3:
        direction = np.array(reader.GetDirection()).reshape(rank, rank)[:3, :3]
        affine[:3, :3] = direction * np.array(reader.GetSpacing()[:3])
        affine[:3, 3] = reader.GetOrigin()[:3]
        affine[:2] *= -1  # ITK positions are LPS, ours RAS
    is_complex = "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID())
    return shape, affine, np.dtype(complex if is_complex else float), reader.GetNumberOfComponents()


def read_header(path: str | PathLike[str], modality: str | None = None) -> VolumeHeader:
    """Reads and checks the grid of a volume without decoding its voxels.

    Args:
        path: a file with one of :data:`EXTENSIONS`, or the folder of one DICOM series (CT or MR).
        modality: ``"CT"`` or ``"MR"`` where it has to be that; None takes any.

    Returns:
        The three-dimensional shape and the affine (RAS, mm).

    Raises:
        InputError: the file is missing, empty, of an unsupported type or damaged; it is not three-dimensional (one
            slice is, as ``(X, 1, Z)`` or ``(1, Y, Z)``), has colour or vector voxels or complex numbers, its affine
            cannot be inverted, or its voxel size cannot be meant (:data:`grn_monai.data.checks.SPACING_MM`); of a
            folder, whatever :func:`grn_monai.data.series.series_grid` refuses.
    """
    check_modality_name(modality)
    path = Path(path)
    if is_series(path):
        return _series_header(path, *series_grid(path, modality), modality)
    _check_file(path)
    try:
        shape, affine, dtype, components = _nifti_header(path) if _is_nifti(path) else _itk_header(path)
    except InputError:
        raise
    except Exception as err:  # the readers raise a dozen unrelated types
        raise _undecodable(path, err) from err
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    grid = " × ".join(map(str, shape))
    if components != 1:
        mend = "Convert it to grey values (a label map: to one value per voxel)."
        raise InputError(path, f"colour or vector voxels ({components} components)", "one value per voxel", mend)
    if dtype.kind == "c":
        raise InputError(path, "complex numbers", "real grey values", "Export the envelope (B-mode) data instead.")
    if len(shape) > 3:
        raise InputError(path, f"{len(shape)}D data ({grid})", "a 3D volume", "Split the series into single volumes.")
    # A single slice has its one voxel along the first or second axis; anything else may be a picture without depth.
    if len(shape) < 3 or min(shape) < 1 or shape[2] < 2 or shape[:2] == (1, 1):
        mend = f"Stack the slices into one volume as {_CONVERTED}; a single slice is (X, 1, Z) or (1, Y, Z)."
        raise InputError(path, f"a 2D image ({grid})", "a 3D volume with at least 2 voxels along each axis", mend)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6 * max(spacing.prod(), 1e-30):
        mend = "Set spacing and orientation in the header, for example by exporting from 3D Slicer."
        raise InputError(path, "an affine that is not invertible", "positive spacing, independent axes", mend)
    check_spacing_mm(path, spacing, modality)
    return VolumeHeader((shape[0], shape[1], shape[2]), affine)


def _series_header(
    path: Path, shape: tuple[int, int, int], affine: npt.NDArray[np.float64], modality: str | None
) -> VolumeHeader:
    check_spacing_mm(path, np.linalg.norm(affine[:3, :3], axis=0), modality)
    return VolumeHeader(shape, affine)


def _gzipped_voxels(path: Path) -> npt.NDArray[Any]:
    """The voxels of a .nii.gz, read to its end: the checksum there is what tells a damaged file from a whole one."""
    kind = type(nib.load(path))  # NIfTI-1 or NIfTI-2
    with gzip.open(path) as file:
        array = np.asanyarray(kind.from_stream(file).dataobj)
        while file.read(1 << 20):
            pass
    return array


def _itk_voxels(path: Path) -> npt.NDArray[Any]:
    # Not through MONAI's ITKReader: it loads all of the package itk first, which takes 20 times as long as this.
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T


def _decode(path: Path, header: VolumeHeader) -> npt.NDArray[Any]:
    try:
        if path.name.lower().endswith(".nii.gz"):
            array = _gzipped_voxels(path)
        else:
            array = np.asanyarray(nib.load(path).dataobj) if _is_nifti(path) else _itk_voxels(path)
        return np.asarray(array).reshape(header.shape)
    except Exception as err:
        raise _undecodable(path, err) from err


def _image(path: Path, array: npt.NDArray[Any], modality: str | None) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        grey = np.ascontiguousarray(array, dtype=np.float32)
    bad = grey.size - int(np.count_nonzero(np.isfinite(grey)))
    if bad:
        mend = "Replace them before the export, for example by the lowest grey value."
        raise InputError(path, f"{bad} voxels that are NaN or infinite", "finite grey values", mend)
    low, high = float(grey.min()), float(grey.max())
    if low == high:
        mend = "Check the export: the volume holds no picture."
        raise InputError(path, f"a constant volume (every voxel is {low:g})", "grey values that vary", mend)
    # DICOM names its modality; a CT may still hold other units than HU (Rescale Type US, say). MR phase goes below 0.
    if modality == "CT" or not path.is_dir():
        check_modality(path, grey, modality)
    return grey


def _label(
    path: Path, array: npt.NDArray[Any], num_classes: int, mapping: dict[int, int] | None
) -> npt.NDArray[np.uint8]:
    expected = f"whole label values 0 to {num_classes - 1}"
    if array.dtype.kind == "f" and not np.array_equal(array, np.round(array)):  # NaN differs from itself
        mend = "Export the segmentation as a label map, and resample it with nearest neighbour only."
        raise InputError(path, "label values that are not whole numbers", expected, mend)
    if mapping is not None:
        if max(mapping.values()) >= num_classes:
            mend = "Correct the option label_values."
            raise InputError("label_values", f"class {max(mapping.values())}", f"classes 0 to {num_classes - 1}", mend)
        return map_labels(array, mapping)
    if array.min() < 0 or array.max() >= num_classes:
        values = np.unique(array)
        unknown = [f"{v:g}" for v in values[(values < 0) | (values >= num_classes)]]
        found = f"unknown label values {', '.join(unknown[:8])}{' …' if len(unknown) > 8 else ''}"
        mend = "Renumber the segments in the order of grn_monai/labels.py, or say with label_values what they are."
        raise InputError(path, found, expected, mend)
    return np.array(array, dtype=np.uint8, order="C")  # a copy: the reader's array may be a map of the file


def read_volume(
    path: str | PathLike[str],
    kind: Literal["image", "label"] = "image",
    num_classes: int = NUM_CLASSES,
    modality: str | None = None,
    label_values: LabelValues = None,
) -> MetaTensor:
    """Reads a volume once, checks it, and returns it with its geometry.

    NIfTI goes through nibabel, MetaImage and NRRD through SimpleITK, DICOM series through
    :class:`grn_monai.data.readers.DicomSeriesReader`. The checksum of a .nii.gz is verified.

    Args:
        path: a file with one of :data:`EXTENSIONS`, or the folder of one DICOM series (CT or MR; images only).
        kind: ``"image"`` gives float32 grey values as stored (CT series: Hounsfield units), ``"label"`` uint8 class
            numbers.
        num_classes: for a label, the number of classes with background.
        modality: ``"CT"`` or ``"MR"`` where an image has to be that; None takes any.
        label_values: for a label, file value to class, all other values being background; a mapping, or a name that
            :func:`grn_monai.data.checks.label_mapping` knows. None: the values are the classes.

    Returns:
        ``(1, X, Y, Z)`` in the voxel order of the file (not yet the scan frame), with affine in RAS and mm. A fourth
        axis of length one is dropped; NIfTI in metres or micrometres is brought to mm.

    Raises:
        InputError: as :func:`read_header`; or the image has NaN or infinite voxels, is constant or has values of
            another modality; or the label has values that are not whole numbers from 0 to ``num_classes - 1``, or is a
            DICOM series.
    """
    if kind not in ("image", "label"):
        raise InputError("kind", repr(kind), '"image" or "label"', "Choose one of the two.")
    path = Path(path)
    mapping = label_mapping(label_values)
    if kind == "label":
        if path.is_dir():
            mend = "Name the label's volume file."
            raise InputError(path, "a folder", f"a label volume ({', '.join(EXTENSIONS)})", mend)
        modality = None  # of the image
    if is_series(path):
        array, affine_ras = read_series(path, modality)
        header = _series_header(path, (array.shape[0], array.shape[1], array.shape[2]), affine_ras, modality)
    else:
        header = read_header(path, modality)
        array = _decode(path, header)
    if kind == "image":
        voxels: npt.NDArray[Any] = _image(path, array, modality)
    else:
        voxels = _label(path, array, num_classes, mapping)
    affine = torch.from_numpy(header.affine)
    # A short meta that is alike for every format, so that scans of mixed formats collate.
    meta = {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.clone(),
        MetaKeys.SPATIAL_SHAPE: np.asarray(header.shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        MetaKeys.SPACE: SpaceKeys.RAS,
        "filename_or_obj": f"{path.absolute()}{_SERIES}" if path.is_dir() else str(path),
    }
    return MetaTensor(torch.from_numpy(voxels)[None], meta=meta)


def check_same_geometry(
    image: MetaTensor | VolumeHeader,
    label: MetaTensor | VolumeHeader,
    image_path: str | PathLike[str],
    label_path: str | PathLike[str],
) -> None:
    """Checks that a label lies on the grid of its image.

    Args:
        image: volume ``(..., X, Y, Z)`` or header of the image.
        label: volume ``(..., X, Y, Z)`` or header of the label.
        image_path: named in the error.
        label_path: named in the error.

    Raises:
        InputError: the shapes differ, or a corner of the grid lies more than 0.001 mm from its partner.
    """
    mend = f"Resample the label onto the grid of {image_path} with nearest neighbour."
    shape, label_shape = tuple(image.shape[-3:]), tuple(label.shape[-3:])
    if shape != label_shape:
        raise InputError(label_path, f"shape {label_shape}", f"the shape of its image, {shape}", mend)
    corners = np.array([[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])])
    change = np.asarray(label.affine, dtype=np.float64) - np.asarray(image.affine, dtype=np.float64)
    distance = float(np.linalg.norm(change[:3] @ corners.T, axis=0).max())
    if not distance <= GEOMETRY_TOLERANCE_MM:
        found = f"an affine that puts the grid's corners up to {distance:.3g} mm elsewhere"
        raise InputError(label_path, found, f"the affine of its image {image_path}", mend)
