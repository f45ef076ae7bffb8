"""Stacks of pictures: the slices of one scan as JPEG, PNG, TIFF or BMP, or as 2D NIfTI masks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers.base import (
    CheckedReader,
    SourceVolume,
    check_claimed_size,
    check_spacing,
    decoding,
    fill_spacing,
    probe_affine,
)
from grn_monai.errors import InputError

__all__ = ["SliceStackReader", "natural_order"]

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_NIFTI = (".nii", ".nii.gz")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
# Left out of the choice of PIL: palettes and CMYK, whose numbers are no grey values.
_GREY_MODES = {"1", "L", "I;16", "I;16L", "I;16B", "I", "F"}
_MAX_PIXELS = 1 << 26
_GREY_TOLERANCE = 8
"""Grey levels by which R, G and B of a grey picture may differ; JPEG's colour conversion alone makes a few."""
_MEND_ORDER = (
    'Give the reader\'s option mask_order: "columns-first" as NIfTI has it, x first, or "rows-first" as the array of '
    "a picture has it; look at a mask on its picture to find out."
)
_MEND_SPACING = "Give the reader's option spacing: mm along X, Y and Z (Z is depth), for example (0.1, 0.5, 0.1)."

P = TypeVar("P", bound="str | PathLike[str]")


def natural_order(paths: Iterable[P]) -> list[P]:
    """File names in the order a person counts: ``slice2.png`` before ``slice10.png``, folder by folder."""

    def key(path: P) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.split(r"([0-9]+)", str(Path(path)).casefold())
        return [(1, int(part), "") if part[0] in "0123456789" else (0, 0, part) for part in parts if part], str(path)

    return sorted(paths, key=key)


class SliceStackReader(CheckedReader):
    """Stacks the slices of one scan, given in order, into a volume.

    A picture's rows are depth and its columns one direction along the skin, so that a pixel (row, column) of slice
    ``k`` becomes voxel ``(column, k, row)`` of a transverse stack, ``(k, column, row)`` of a sagittal one.

    A single picture is a volume of one slice, if its thickness is given with `spacing`.

    A NIfTI slice is ``(column, row)`` or ``(column, row, 1)`` as the format has it; with `size`, an array that fits
    only as ``(row, column)`` is taken as such, the way some scripts save a picture's array. For a square both fit, and
    a label needs `mask_order`. Its in-plane voxel sizes are used where the header sets them; sizes of exactly 1 count
    as not set. A `spacing` that differs from them is refused for images; a label lies on the grid of its image.

    Args:
        spacing: mm along X, Y and Z of the volume; None for one of them means that a NIfTI header gives that one.
        kind: ``"image"``, or ``"label"``, whose values must be whole numbers and are kept.
        plane: ``"transverse"`` stacks along Y, ``"sagittal"`` along X.
        size: columns and rows that every slice must have, such as those of the images that masks belong to.
        colour: ``"refuse"`` pictures whose red, green and blue differ by more than 8 levels, or turn them into
            ``"luminance"`` (ITU-R BT.601). Grey pictures saved as colour are always taken.
        mask_order: axes of NIfTI slices whose shape does not tell them: ``"columns-first"`` or ``"rows-first"``.
    """

    suffixes: ClassVar[tuple[str, ...]] = (*_PICTURES, *_NIFTI)
    many: ClassVar[bool] = True

    def __init__(
        self,
        spacing: Sequence[float | None] | None = None,
        kind: Literal["image", "label"] = "image",
        plane: Literal["transverse", "sagittal"] = "transverse",
        size: tuple[int, int] | None = None,
        colour: Literal["refuse", "luminance"] = "refuse",
        mask_order: Literal["columns-first", "rows-first"] | None = None,
    ) -> None:
        choices = {
            "kind": (kind, ("image", "label")),
            "plane": (plane, ("transverse", "sagittal")),
            "colour": (colour, ("refuse", "luminance")),
            "mask_order": (mask_order or "columns-first", ("columns-first", "rows-first")),
        }
        for option, (value, allowed) in choices.items():
            if value not in allowed:
                raise InputError(option, repr(value), " or ".join(map(repr, allowed)), "Choose one of the two.")
        if spacing is not None and len(spacing) != 3:
            raise InputError("spacing", repr(spacing), "three lengths in mm", _MEND_SPACING)
        self.spacing, self.kind, self.plane, self.size, self.colour = spacing, kind, plane, size, colour
        self.mask_order = mask_order

    def _read(self, paths: Sequence[Path]) -> SourceVolume:
        if len(paths) < 2 and (self.spacing is None or None in self.spacing):
            mend = "Name all its slices, in order; for a single picture, give spacing along X, Y and Z."
            raise InputError(paths[0], "one slice", "the slices of one scan", mend)
        stack: npt.NDArray[Any] | None = None
        zooms: tuple[float, float] | None = None
        for k, path in enumerate(paths):
            with decoding(path):
                picture, own = self._slice(path)
            if self.kind == "label" and picture.dtype.kind == "f":
                picture = _whole(path, picture)
            if stack is None:
                stack, zooms = np.empty((len(paths), *picture.shape), picture.dtype), own
            _check_alike(path, paths[0], picture, stack, own, zooms)
            stack[k] = picture
        assert stack is not None
        # (slice, row, column) to (X, Y, Z)
        voxels = stack.transpose((2, 0, 1) if self.plane == "transverse" else (0, 2, 1))
        spacing = self._spacing(paths[0], zooms)
        facts = {"slices": len(paths), "plane": self.plane}
        return SourceVolume(voxels, probe_affine(voxels.shape, spacing), paths[0], oriented=False, facts=facts)

    def _spacing(self, path: Path, zooms: tuple[float, float] | None) -> tuple[float, float, float]:
        if self.kind == "label" and self.spacing is not None and None not in self.spacing:
            return check_spacing(path, self.spacing, _MEND_SPACING)
        own: list[float | None] = [None, None, None]
        if zooms is not None:
            own[0 if self.plane == "transverse" else 1], own[2] = zooms
        return fill_spacing(path, own, self.spacing, _MEND_SPACING)

    def _slice(self, path: Path) -> tuple[npt.NDArray[Any], tuple[float, float] | None]:
        """The grey values (row, column), and the voxel size along column and row where the file gives it."""
        name = path.name.lower()
        if not name.endswith(self.suffixes):
            raise InputError(path, f"the extension {path.suffix!r}", ", ".join(self.suffixes), "Convert the picture.")
        picture, zooms = self._nifti_slice(path) if name.endswith(_NIFTI) else (self._picture(path), None)
        if self.size is not None and picture.shape[::-1] != tuple(self.size):
            found = f"{picture.shape[1]} × {picture.shape[0]} pixels"
            expected = f"{self.size[0]} × {self.size[1]} (columns × rows)"
            raise InputError(path, found, expected, "Give each slice the mask that was drawn on it.")
        return picture, zooms

    def _nifti_slice(self, path: Path) -> tuple[npt.NDArray[Any], tuple[float, float] | None]:
        array, zooms = _nifti_array(path)
        columns_first = self.mask_order != "rows-first"
        if self.size is not None and array.shape[0] != array.shape[1]:
            columns_first = not (array.shape != tuple(self.size) and array.shape[::-1] == tuple(self.size))
        elif self.size is not None and self.kind == "label" and self.mask_order is None:
            found = f"a square NIfTI mask ({array.shape[0]} × {array.shape[1]}), which fits its picture both ways"
            raise InputError(path, found, "the order of its axes", _MEND_ORDER)
        if columns_first:
            return array.T, zooms
        return array, None if zooms is None else zooms[::-1]

    def _picture(self, path: Path) -> npt.NDArray[Any]:
        from PIL import Image

        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                columns, rows = image.size
                if columns * rows > _MAX_PIXELS:
                    found = f"{columns} × {rows} pixels"
                    raise InputError(path, found, f"up to {_MAX_PIXELS} in a slice", "Check the export.")
                check_claimed_size(path, (rows, columns), 1)
                if (pages := getattr(image, "n_frames", 1)) > 1:
                    mend = "Save its pages as single files, or as one NIfTI or MHA volume."
                    raise InputError(path, f"{pages} pages", "one slice per file", mend)
                if image.mode in _GREY_MODES:
                    grey = np.array(image)
                elif image.mode in ("RGB", "RGBA", "LA", "P"):
                    grey = self._from_colour(path, np.array(image.convert("RGB")))
                else:
                    found = f"a picture of mode {image.mode}"
                    raise InputError(path, found, "grey levels", "Save it as a grey PNG.")
        return (
            grey.astype(np.uint8) if grey.dtype == np.bool_ else grey.astype(grey.dtype.newbyteorder("="), copy=False)
        )

    def _from_colour(self, path: Path, colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        spread = int((colours.max(-1) - colours.min(-1)).max())
        tolerance = 0 if self.kind == "label" else _GREY_TOLERANCE
        if spread > tolerance and (self.colour == "refuse" or self.kind == "label"):
            mend = "Save it as grey levels"
            mend += "." if self.kind == "label" else ', or give the reader\'s option colour="luminance".'
            raise InputError(path, f"a colour picture (channels differ by up to {spread} levels)", "grey levels", mend)
        if spread == 0:
            return np.ascontiguousarray(colours[..., 0])
        return np.rint(colours @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def _whole(path: Path, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not np.array_equal(values, np.round(values)) or np.abs(values).max(initial=0) > 2**31:
        mend = "Export the segmentation as a label map, and resample it with nearest neighbour only."
        raise InputError(path, "label values that are not whole numbers", "whole numbers", mend)
    return values.astype(np.int32)


def _check_alike(
    path: Path,
    first: Path,
    picture: npt.NDArray[Any],
    stack: npt.NDArray[Any],
    zooms: tuple[float, float] | None,
    first_zooms: tuple[float, float] | None,
) -> None:
    if picture.shape != stack.shape[1:]:
        found = f"{picture.shape[1]} × {picture.shape[0]} pixels"
        expected = f"{stack.shape[2]} × {stack.shape[1]}, as in {first.name}"
        raise InputError(path, found, expected, "All slices of a scan need one size; sort out other pictures.")
    if picture.dtype != stack.dtype:
        expected = f"{stack.dtype}, as in {first.name}"
        raise InputError(path, f"pixels of type {picture.dtype}", expected, "Save all slices in one way.")
    if (zooms is None) != (first_zooms is None) or not np.allclose(zooms or (), first_zooms or (), rtol=1e-3):
        expected = f"{first_zooms}, as in {first.name}"
        raise InputError(path, f"voxel size {zooms}", expected, "Give spacing for all slices.")


def _nifti_array(path: Path) -> tuple[npt.NDArray[Any], tuple[float, float] | None]:
    """The array of a NIfTI slice as stored, and the voxel size along its axes where the header sets it."""
    import nibabel as nib

    image = nib.load(path)
    shape = tuple(image.shape)
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 2:
        found = f"an array of {' × '.join(map(str, image.shape))}"
        raise InputError(path, found, "one slice (columns × rows)", "A 3D NIfTI is a volume already.")
    check_claimed_size(path, shape, image.get_data_dtype().itemsize)
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(path, f"pixels of type {image.get_data_dtype()}", "grey values", "Save it as uint8.")
    array = np.asanyarray(image.dataobj).reshape(shape)
    units = {1: 1e3, 3: 1e-3}.get(int(image.header["xyzt_units"]) & 7, 1.0)
    zooms = tuple(float(zoom) * units for zoom in image.header.get_zooms()[:2])
    known = all(np.isfinite(z) and z > 0 for z in zooms) and zooms != (1.0, 1.0)
    return array, (zooms[0], zooms[1]) if known else None
