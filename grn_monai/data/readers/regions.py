"""Calibrated regions of ultrasound pictures (US Region Calibration, DICOM PS3.3 C.8.5.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from grn_monai.errors import InputError

__all__ = ["UltrasoundRegion", "check_region", "choose_region", "clip_region", "frame_regions", "is_same_scale"]

_UNITS = ("none", "percent", "dB", "cm", "s", "Hz", "dB/s", "cm/s", "cm²", "cm²/s", "cm³", "cm³/s", "degrees")
_CM = 3
_FORMATS = ("no format", "2D", "M-mode", "spectral Doppler", "wave form", "graphics")
_DATA_TYPES = {1: "tissue", 2: "colour flow", 3: "PW Doppler", 4: "CW Doppler", 0xD: "grey bar", 0xE: "colour bar"}
_SCALE_TOLERANCE = 1e-4  # relative; the printed digits of a scanner, not a zoom


@dataclass(frozen=True)
class UltrasoundRegion:
    """One item of the Sequence of Ultrasound Regions (0018,6011).

    Attributes:
        index: number of the item, from 1 as DICOM counts items.
        box: ``(x0, y0, x1, y1)`` in pixels from 0; the last column and row belong to it.
        spatial_format: Region Spatial Format; 1 is a 2D picture.
        data_type: Region Data Type; 1 is tissue (B-mode).
        flags: Region Flags.
        units_x: Physical Units X Direction; 3 is cm.
        units_y: Physical Units Y Direction.
        delta_x: Physical Delta X as stored, in `units_x` per pixel; NaN where it is missing.
        delta_y: Physical Delta Y as stored.
    """

    index: int
    box: tuple[int, int, int, int]
    spatial_format: int
    data_type: int
    flags: int
    units_x: int
    units_y: int
    delta_x: float
    delta_y: float

    @property
    def is_tissue(self) -> bool:
        """Whether it is a B-mode picture: 2D and tissue."""
        return self.spatial_format == 1 and self.data_type == 1

    @property
    def delta_x_mm(self) -> float:
        """Width of a pixel in mm; NaN unless the unit is cm.

        Physical Delta is the "increment per positive pixel increment" and so may be negative where an axis counts
        upwards or leftwards; the size of the pixel is its absolute value.
        """
        return abs(self.delta_x) * 10 if self.units_x == _CM else math.nan

    @property
    def delta_y_mm(self) -> float:
        """Height of a pixel in mm; NaN unless the unit is cm."""
        return abs(self.delta_y) * 10 if self.units_y == _CM else math.nan

    @property
    def is_calibrated(self) -> bool:
        """Whether both sizes of a pixel are positive finite lengths."""
        return all(math.isfinite(step) and step > 0 for step in (self.delta_x_mm, self.delta_y_mm))

    def __str__(self) -> str:
        kind = _FORMATS[self.spatial_format] if self.spatial_format < len(_FORMATS) else f"format {self.spatial_format}"
        data = _DATA_TYPES.get(self.data_type, f"data type {self.data_type}")
        x0, y0, x1, y1 = self.box
        if self.is_calibrated:
            scale = f"{self.delta_x_mm:.5g} × {self.delta_y_mm:.5g} mm/pixel"
        else:
            x, y = (_UNITS[u] if u < len(_UNITS) else f"unit {u}" for u in (self.units_x, self.units_y))
            scale = f"no lengths ({self.delta_x:.5g} {x} × {self.delta_y:.5g} {y} per pixel)"
        return f"{self.index}: {kind} {data}, columns {x0}–{x1}, rows {y0}–{y1}, {scale}"


def _region(item: Any, index: int, path: str | PathLike[str]) -> UltrasoundRegion:
    names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    missing = [name for name in names if item.get(name) is None]
    if missing:
        mend = "Export the scan again, or remove that item."
        raise InputError(path, f"ultrasound region {index} without {', '.join(missing)}", "its bounds", mend)
    x0, y0, x1, y1 = (int(item.get(name)) for name in names)

    def number(name: str, default: float = 0) -> float:
        value = item.get(name)
        return default if value is None else float(value)

    return UltrasoundRegion(
        index=index,
        box=(x0, y0, x1, y1),
        spatial_format=int(number("RegionSpatialFormat")),
        data_type=int(number("RegionDataType")),
        flags=int(number("RegionFlags")),
        units_x=int(number("PhysicalUnitsXDirection")),
        units_y=int(number("PhysicalUnitsYDirection")),
        delta_x=number("PhysicalDeltaX", math.nan),
        delta_y=number("PhysicalDeltaY", math.nan),
    )


def frame_regions(dataset: Any, path: str | PathLike[str], frame: int = 0) -> list[UltrasoundRegion]:
    """The regions that hold for one frame.

    The standard has the sequence once per file, for all its frames. Files that carry it in their functional groups
    are read too: a frame's own regions come before shared ones, and those before the file's.

    Args:
        dataset: a `pydicom.Dataset`.
        path: the file, for errors.
        frame: index of the frame, from 0.

    Raises:
        InputError: a region has no bounds.
    """
    places: list[Any] = []
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if per_frame and frame < len(per_frame):
        places.append(per_frame[frame])
    places.extend(dataset.get("SharedFunctionalGroupsSequence") or [])
    places.append(dataset)
    for place in places:
        items = place.get("SequenceOfUltrasoundRegions")
        if items:
            return [_region(item, index, path) for index, item in enumerate(items, start=1)]
    return []


def is_same_scale(one: UltrasoundRegion, other: UltrasoundRegion) -> bool:
    """Whether two calibrated regions have the same pixel size, to 0.01 %."""
    pairs = ((one.delta_x_mm, other.delta_x_mm), (one.delta_y_mm, other.delta_y_mm))
    return all(math.isclose(a, b, rel_tol=_SCALE_TOLERANCE) for a, b in pairs)


def choose_region(
    regions: Sequence[UltrasoundRegion], path: str | PathLike[str], index: int | None = None
) -> UltrasoundRegion | None:
    """The B-mode region to read, or None where the file has no regions at all.

    Args:
        regions: of one frame.
        path: the file, for errors.
        index: the region to take, from 1; default: the only B-mode region.

    Raises:
        InputError: the chosen one does not exist or is no B-mode picture; or none was chosen and there is no B-mode
            region, or there are several that differ in place or scale.
    """
    if not regions:
        if index is None:
            return None
        mend = "Leave the option away, and give the spacing."
        raise InputError(path, f"region {index} asked for, but no regions", "a file with ultrasound regions", mend)
    listing = "; ".join(map(str, regions))
    tissue = [region for region in regions if region.is_tissue]
    if index is not None:
        chosen = next((region for region in regions if region.index == index), None)
        if chosen is None or not chosen.is_tissue:
            found = f"{'no' if chosen is None else 'no B-mode picture in'} region {index} (regions: {listing})"
            raise InputError(path, found, "the number of a B-mode region", "Choose a 2D tissue region of the list.")
        return chosen
    if not tissue:
        mend = "Export the B-mode picture, or crop it to an image format first."
        raise InputError(path, f"no B-mode region (regions: {listing})", "one 2D tissue region", mend)
    first = tissue[0]
    # Some scanners write one picture twice, once for each mode shown in it.
    if any(region.box != first.box or not _alike(region, first) for region in tissue[1:]):
        found = f"{len(tissue)} B-mode regions (regions: {listing})"
        raise InputError(path, found, "one, or a choice", "Choose one with the option region=NUMBER.")
    return first


def _alike(one: UltrasoundRegion, other: UltrasoundRegion) -> bool:
    return is_same_scale(one, other) or not (one.is_calibrated or other.is_calibrated)


def clip_region(region: UltrasoundRegion, rows: int, columns: int) -> UltrasoundRegion:
    """A region whose last column or row is the number of columns or rows, cut by that one pixel.

    The standard counts pixels from 0 with the last one included; some scanners write the end as the first pixel
    outside. An excess of more than one pixel is another fault (`check_region`) and stays.

    Args:
        region: as the file has it.
        rows: rows of the frame.
        columns: columns of the frame.
    """
    x0, y0, x1, y1 = region.box
    if x1 != columns and y1 != rows:
        return region
    return replace(region, box=(x0, y0, x1 - (x1 == columns), y1 - (y1 == rows)))


def check_region(region: UltrasoundRegion, rows: int, columns: int, path: str | PathLike[str]) -> None:
    """Checks that a region lies in its frame and measures lengths.

    Args:
        region: the chosen one.
        rows: rows of the frame.
        columns: columns of the frame.
        path: the file, for errors.

    Raises:
        InputError: it is empty, reaches outside the frame (a picture that was shrunk or cut after the scan keeps the
            old calibration, which is void then), or its pixel sizes are not positive lengths.
    """
    x0, y0, x1, y1 = region.box
    mend = "Export the original picture, or give the spacing of these pixels in mm by the option spacing=(X, Z)."
    if not (0 <= x0 <= x1 < columns and 0 <= y0 <= y1 < rows):
        found = f"a region that does not fit its frame of {columns} columns × {rows} rows (region {region})"
        expected = "a region inside; the picture was resized or cut after the scan, so its calibration is void"
        raise InputError(path, found, expected, mend)
    if not region.is_calibrated:
        expected = "pixel sizes in cm that are finite and not zero"
        raise InputError(path, f"a B-mode region without lengths (region {region})", expected, mend)
