"""DICOM ultrasound pictures as volumes: one multi-frame file, or single frames of one sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from grn_monai.data.readers.base import CheckedReader, SourceVolume, check_spacing, fill_spacing, probe_affine
from grn_monai.data.readers.dicom_frames import Picture, grey_frames, read_header, read_picture
from grn_monai.data.readers.regions import (
    UltrasoundRegion,
    check_region,
    choose_region,
    clip_region,
    frame_regions,
    is_same_scale,
)
from grn_monai.errors import InputError

__all__ = ["ULTRASOUND_CLASSES", "UltrasoundReader", "sorted_frames"]

ULTRASOUND_CLASSES: Mapping[str, str] = {
    "1.2.840.10008.5.1.4.1.1.6.1": "Ultrasound Image Storage",
    "1.2.840.10008.5.1.4.1.1.3.1": "Ultrasound Multi-frame Image Storage",
    "1.2.840.10008.5.1.4.1.1.6": "Ultrasound Image Storage (Retired)",
    "1.2.840.10008.5.1.4.1.1.3": "Ultrasound Multi-frame Image Storage (Retired)",
}
"""SOP Class UID to name of what `UltrasoundReader` takes."""

Box = tuple[int, int, int, int]


class _File(NamedTuple):
    path: Path
    dataset: Any
    picture: Picture


def sorted_frames(files: Sequence[tuple[Path, Any]]) -> list[int]:
    """The order of single-frame files in the sweep: by Instance Number where all have one of their own, else as given.

    Args:
        files: path and header of each.

    Returns:
        Indices into `files`.
    """
    numbers = [dataset.get("InstanceNumber") for _, dataset in files]
    if any(number is None for number in numbers) or len(set(numbers)) < len(numbers):
        return list(range(len(files)))
    return sorted(range(len(files)), key=lambda i: int(numbers[i]))


class UltrasoundReader(CheckedReader):
    """Reads a sweep of DICOM B-mode frames as a grey volume ``(column, frame, row)``; rows are depth.

    The picture is the B-mode region of the Sequence of Ultrasound Regions; nothing outside it reaches the volume, so
    burned-in names and dates in the margins stay behind. Inside, pixels of other regions (wave forms, bars, graphics,
    a picture of another scale) are set to 0, unless the flags give the B-mode region priority; not those of a 2D
    region of the same scale, such as a colour box.
    A file without regions, or with one that does not lie in its frame, is taken whole unless `crop` is a box:
    ``facts["picture_from"]`` is then ``"frame"`` (else ``"region"`` or ``"crop"``). Look at such pictures: banners with
    names may be burned in. What the scanner or the operator wrote inside the picture stays there.

    Lengths come from that region alone. Pixel Spacing (0028,0030) is no attribute of an ultrasound image and not used;
    a file that has only this is asked about. A cine loop is frames over time: it is read only with `frame_spacing`,
    which says that it is a sweep with a known step. A single frame needs it too, as its slice thickness.

    Args:
        region: number of the region, from 1; default: the only B-mode region.
        spacing: width and height of a pixel in mm, for a file without a valid calibration. It has to agree with a
            valid one within 1 %.
        frame_spacing: distance between frames in mm.
        frames: ``(first, stop)`` from 0, to read only some.
        crop: True cuts to the region; False keeps the size of the frame, with 0 outside the region; a box
            ``(x0, y0, x1, y1)`` of pixels (last ones included) cuts to that, within the region.
        mask: whether other regions that overlap are set to 0.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".dcm", ".dicom", ".ima", "")
    many: ClassVar[bool] = True

    def __init__(
        self,
        region: int | None = None,
        spacing: Sequence[float] | None = None,
        frame_spacing: float | None = None,
        frames: Sequence[int] | None = None,
        crop: bool | Sequence[int] = True,
        mask: bool = True,
    ) -> None:
        super().__init__()
        self.region = region
        self.spacing = spacing
        self.frame_spacing = frame_spacing
        self.frames = frames
        self.crop = crop
        self.mask = mask

    def _read(self, paths: Sequence[Path]) -> SourceVolume:
        files = _open(paths)
        first = files[0]
        indices = self._indices(files)
        region, others = self._region(files, indices)
        spacing, spacing_from = self._pixel_size(first, region)
        step = self._step(first.path, len(indices))
        window, keep = self._window(first, region)
        x0, y0, x1, y1 = window
        steps = check_spacing(first.path, (spacing[0], step, spacing[1]), "Give spacing=(X, Z) and frame_spacing=Y.")
        voxels, coloured = _decode(files, indices, window)
        blank = [box for box in others if self.mask and _overlap(box, window)]
        for bx0, by0, bx1, by1 in blank:
            voxels[max(bx0 - x0, 0) : max(bx1 + 1 - x0, 0), :, max(by0 - y0, 0) : max(by1 + 1 - y0, 0)] = 0
        if keep != window:
            inside = np.zeros((voxels.shape[0], 1, voxels.shape[2]), dtype=bool)
            inside[keep[0] : keep[2] + 1, :, keep[1] : keep[3] + 1] = True
            voxels *= inside
        if blank and not voxels.any():
            found = f"a B-mode region that other regions cover (region {region})"
            mend = "Read it with mask=False, if those hold no text."
            raise InputError(first.path, found, "a picture of its own", mend)
        facts = _facts(first, region, window, keep)
        facts |= {"frames": len(indices), "coloured_share": round(coloured / voxels.size, 6)}
        facts["masked_boxes"] = [list(box) for box in blank]
        if blank:
            facts["removed"] = "; ".join(filter(None, (facts["removed"], f"other regions blanked: {len(blank)}")))
        facts["spacing_from"] = spacing_from
        valid = region is not None and _contains((0, 0, first.picture.columns - 1, first.picture.rows - 1), region.box)
        facts["picture_from"] = "region" if valid else "frame" if isinstance(self.crop, bool) else "crop"
        placement = {
            "frames": [indices[0], indices[-1] + 1],
            "rows": [y0, y1 + 1],
            "columns": [x0, x1 + 1],
        }
        affine = probe_affine(voxels.shape, steps)
        return SourceVolume(voxels, affine, first.path, oriented=False, facts=facts, placement=placement)

    def _indices(self, files: Sequence[_File]) -> list[int]:
        total = files[0].picture.frames if len(files) == 1 else len(files)
        first, stop = (0, total) if self.frames is None else (int(self.frames[0]), int(self.frames[1]))
        if not 0 <= first < stop <= total:
            found = f"frames {first + 1} to {stop}, counted from 1"
            raise InputError(files[0].path, found, f"some within the {total} frames", "Change the option frames.")
        return list(range(first, stop))

    def _region(self, files: Sequence[_File], indices: Sequence[int]) -> tuple[UltrasoundRegion | None, list[Box]]:
        """The region of all frames, and the boxes of others to blank."""
        chosen: UltrasoundRegion | None = None
        boxes: dict[Box, None] = {}
        per_frame = bool(files[0].dataset.get("PerFrameFunctionalGroupsSequence"))
        for count, index in enumerate(indices):
            if len(files) == 1 and count and not per_frame:
                break  # one sequence for all frames
            file, frame = (files[0], index) if len(files) == 1 else (files[index], 0)
            size = (file.picture.rows, file.picture.columns)
            regions = [clip_region(region, *size) for region in frame_regions(file.dataset, file.path, frame)]
            region = choose_region(regions, file.path, self.region)
            if count and (region is None) != (chosen is None):
                found = f"ultrasound regions in some frames only (see frame {index + 1}, counted from 1)"
                mend = "Read the parts apart, with the option frames."
                raise InputError(file.path, found, "the same regions in all", mend)
            if count and region is not None and chosen is not None and not _is_same_picture(region, chosen):
                found = (
                    f"a scale or place that changes at frame {index + 1}, counted from 1 ({region}; before {chosen})"
                )
                mend = "Read the parts apart, with the option frames or as scans of their own."
                raise InputError(file.path, found, "one scale and place for all frames of a volume", mend)
            chosen = region if not count else chosen
            boxes |= dict.fromkeys(r.box for r in regions if chosen is not None and _is_foreign(r, chosen))
        return chosen, list(boxes)

    def _pixel_size(self, file: _File, region: UltrasoundRegion | None) -> tuple[tuple[float, float], str]:
        """Width and height of a pixel in mm, and whether the region or the option told them."""
        mend = "Give the size of a pixel in mm by the option spacing=(X, Z)."
        rows, columns = file.picture.rows, file.picture.columns
        if self.spacing is not None:
            given = check_spacing(file.path, (*self.spacing[:1], 1.0, *self.spacing[1:]), mend)
            fits = region is not None and _contains((0, 0, columns - 1, rows - 1), region.box)
            if region is not None and fits and region.is_calibrated:
                own = (region.delta_x_mm, None, region.delta_y_mm)
                x, _, z = fill_spacing(file.path, own, given, mend)
                return (x, z), "ultrasound region"
            return (given[0], given[2]), "option"
        if region is None:
            found = "no Sequence of Ultrasound Regions, so no calibration"
            if "PixelSpacing" in file.dataset:
                found += f" (Pixel Spacing {list(file.dataset.PixelSpacing)} is no calibration of an ultrasound image)"
            raise InputError(file.path, found, "pixel sizes in cm", mend)
        check_region(region, rows, columns, file.path)
        return (region.delta_x_mm, region.delta_y_mm), "ultrasound region"

    def _step(self, path: Path, count: int) -> float:
        if self.frame_spacing is not None:
            return float(self.frame_spacing)
        if count > 1:
            found = f"{count} frames and no distance between them (a cine loop over time is not a volume)"
            mend = "If it is a sweep at a known step, give it in mm by the option frame_spacing."
            raise InputError(path, found, "a sweep with a known step", mend)
        mend = "Give the slice thickness in mm by the option frame_spacing."
        raise InputError(path, "one frame and no slice thickness", "the extent of a voxel across the frame", mend)

    def _window(self, file: _File, region: UltrasoundRegion | None) -> tuple[Box, Box]:
        """The box to decode, and the box in it to keep (both in frame pixels)."""
        rows, columns = file.picture.rows, file.picture.columns
        frame = (0, 0, columns - 1, rows - 1)
        # With a spacing given, a region may be void (resized picture): then it tells nothing of the picture's place.
        fits = region is not None and _contains(frame, region.box)
        picture = region.box if region is not None and fits else frame
        if isinstance(self.crop, bool):
            return (picture, picture) if self.crop else (frame, picture)
        try:
            x0, y0, x1, y1 = (int(v) for v in self.crop)
        except (TypeError, ValueError):
            x0, y0, x1, y1 = 0, 0, -1, -1
        box = (x0, y0, x1, y1)
        if not (x0 <= x1 and y0 <= y1 and _contains(picture, box)):
            expected = f"(x0, y0, x1, y1) within the picture's {picture}"
            raise InputError(file.path, f"crop={self.crop!r}", expected, "Change the option crop.")
        return box, box


def _open(paths: Sequence[Path]) -> list[_File]:
    """Headers of the files, in the order of the sweep."""
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(path for path in paths[0].iterdir() if path.is_file() and not path.name.startswith("."))
        if not paths:
            raise InputError("ultrasound folder", "an empty folder", "DICOM files", "Check the path.")
    files = []
    for path in paths:
        dataset = read_header(path)
        if str(dataset.SOPClassUID) not in ULTRASOUND_CLASSES:
            found = f"the SOP class {dataset.SOPClassUID.name or '(none)'}"
            raise InputError(path, found, "Ultrasound (Multi-frame) Image Storage", "Use the reader for its kind.")
        files.append(_File(path, dataset, read_picture(dataset, path)))
    files = [files[i] for i in sorted_frames([(file.path, file.dataset) for file in files])]
    for file in files[1:]:
        if file.picture.frames != 1 or files[0].picture.frames != 1:
            found = f"{len(files)} files, {file.path.name} among them with {file.picture.frames} frames"
            mend = "Name each multi-frame file as a scan of its own."
            raise InputError(file.path, found, "one multi-frame file, or several of one frame each", mend)
        if file.picture._replace(syntax="") != files[0].picture._replace(syntax=""):
            expected = f"frames like those of {files[0].path.name}, {files[0].picture}"
            mend = "Take only frames of one sweep."
            raise InputError(file.path, f"another kind of frame, {file.picture}", expected, mend)
    if len({str(file.dataset.get("SeriesInstanceUID", "")) for file in files}) > 1:
        raise InputError(paths[0], "files of several series", "the frames of one series", "Name each series apart.")
    return files


def _is_clipped(file: _File, region: UltrasoundRegion) -> bool:
    """Whether the region's bounds in the file are one pixel beyond the frame (`clip_region`)."""
    stored = frame_regions(file.dataset, file.path)
    return any(other.index == region.index and other.box != region.box for other in stored)


def _is_same_picture(one: UltrasoundRegion, other: UltrasoundRegion) -> bool:
    calibrated = one.is_calibrated and other.is_calibrated
    return one.box == other.box and (
        is_same_scale(one, other) if calibrated else one.is_calibrated == other.is_calibrated
    )


def _is_foreign(region: UltrasoundRegion, chosen: UltrasoundRegion) -> bool:
    """Whether pixels of a region are no part of the chosen picture.

    Bit 0 of the flags tells which of two overlapping regions owns the pixels: 0 is high priority, 1 low.
    """
    if region.index == chosen.index or (region.spatial_format == 1 and is_same_scale(region, chosen)):
        return False
    return not (region.flags & 1 and not chosen.flags & 1)


def _contains(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] <= inner[2] <= outer[2] and outer[1] <= inner[1] <= inner[3] <= outer[3]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _decode(files: Sequence[_File], indices: Sequence[int], window: Box) -> tuple[Any, int]:
    """Voxels ``(column, frame, row)`` and the number of coloured ones."""
    x0, y0, x1, y1 = window
    rows, columns = slice(y0, y1 + 1), slice(x0, x1 + 1)
    shape = (x1 + 1 - x0, len(indices), y1 + 1 - y0)
    voxels = None
    coloured, count = 0, 0
    jobs = [(files[0], indices)] if len(files) == 1 else [(files[index], [0]) for index in indices]
    for file, wanted in jobs:
        for grey, pixels in grey_frames(file.path, file.dataset, file.picture, wanted, rows, columns):
            if voxels is None:
                voxels = np.empty(shape, dtype=grey.dtype)
            if grey.T.shape != (shape[0], shape[2]):
                found = f"a frame of {grey.shape} pixels"
                raise InputError(file.path, found, "frames of the size in the header", "Export the file again.")
            voxels[:, count] = grey.T
            coloured, count = coloured + pixels, count + 1
    return voxels, coloured


def _facts(file: _File, region: UltrasoundRegion | None, window: Box, keep: Box) -> dict[str, Any]:
    from pydicom.uid import UID

    rows, columns = file.picture.rows, file.picture.columns
    removed = rows * columns - (keep[2] + 1 - keep[0]) * (keep[3] + 1 - keep[1])
    tag = str(file.dataset.get("BurnedInAnnotation", "")).upper()
    frame = (0, 0, columns - 1, rows - 1)
    # Inside the picture a scanner may write too (depth, marks, what the operator typed): only eyes can tell.
    burned_in = "unknown" if keep == frame else "margins removed, inside not checked"
    margins = {"left": keep[0], "top": keep[1], "right": columns - 1 - keep[2], "bottom": rows - 1 - keep[3]}
    sides = [f"{side} {width} px" for side, width in margins.items()]
    return {
        "region": None if region is None else region.index,
        "region_box": list(region.box) if region is not None else None,
        "region_clipped": region is not None and _is_clipped(file, region),
        "frame_size": [columns, rows],
        "kept_box": list(keep),
        "removed": f"margins removed: {', '.join(sides)}" if removed else "",
        "removed_pixels": removed,
        "burned_in": burned_in,
        "burned_in_tag": tag if tag in ("YES", "NO") else "absent",
        "photometric": file.picture.photometric,
        "transfer_syntax": UID(file.picture.syntax).name,
        "lossy": str(file.dataset.get("LossyImageCompression", "")) == "01",
    }
