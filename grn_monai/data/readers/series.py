"""CT and MR series: one DICOM file per slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers.base import CheckedReader, SourceVolume, check_claimed_size, decoding
from grn_monai.data.readers.dicom_frames import has_preamble
from grn_monai.errors import InputError, listed

__all__ = ["DicomSeriesReader"]

_TAGS = [
    "SOPClassUID",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
    "BitsAllocated",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ImageType",
    "PhotometricInterpretation",
]
_MODALITIES = ("CR", "CT", "DX", "ES", "MG", "MR", "NM", "OT", "PT", "RF", "US", "XA")
_GAP_TOLERANCE = 0.02
"""Share of the slice distance by which single distances may differ from it."""
_PLANE_TOLERANCE = 1e-3
"""How far components of two direction cosines that are called equal may differ."""
_TILT_DEGREES = 0.5
_MAX_FILES = 20_000
_RESAMPLE = "Resample it onto a regular grid first, for example in 3D Slicer."


@dataclass(frozen=True)
class _Slice:
    """The header of one file: where its pixels lie, in DICOM's LPS mm."""

    path: Path
    uid: str
    number: int | None
    modality: str
    position: npt.NDArray[np.float64]
    along: npt.NDArray[np.float64]
    down: npt.NDArray[np.float64]
    spacing: tuple[float, float]
    rows: int
    columns: int
    hounsfield: bool

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        return np.cross(self.along, self.down)


class DicomSeriesReader(CheckedReader):
    """Reads one CT or MR series from its folder or its list of files.

    Slices are sorted along their normal by Image Position (Patient) (0020,0032), and the grid follows PS3.3
    C.7.6.2.1.1; file names and instance numbers do not count. Values are float32 after Rescale Slope and Intercept:
    Hounsfield units for CT (``facts["hounsfield"]``). Pixels are decoded by GDCM through SimpleITK, JPEG 2000 and
    JPEG-LS included.

    Refused, with what to do: several series, a missing slice or unequal distances, two slices at one place, slices of
    different size or direction, gantry tilt above half a degree, colour, several frames in one file, fewer than two
    slices, a CT slice without Rescale Slope or Intercept, whose values would not be Hounsfield units.

    Args:
        series: Series Number (0020,0011) of the one to take where there are several.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".dcm", ".ima", ".dicom", "")
    many: ClassVar[bool] = True

    def __init__(self, series: int | None = None) -> None:
        self.series = series

    def grid(self, paths: Sequence[Path]) -> tuple[tuple[int, int, int], npt.NDArray[np.float64], str]:
        """What the headers tell, with all the checks of a reading but no pixels decoded.

        Returns:
            Voxels along (column, row, slice); affine to RAS in mm; the modality.

        Raises:
            InputError: whatever `read` refuses in the headers.
        """
        chosen, affine, facts = self._ordered(paths)
        return (chosen[0].columns, chosen[0].rows, len(chosen)), affine, str(facts["modality"])

    def _read(self, paths: Sequence[Path]) -> SourceVolume:
        chosen, affine, facts = self._ordered(paths)
        return SourceVolume(_pixels(chosen), affine, paths[0], facts=facts)

    def _ordered(self, paths: Sequence[Path]) -> tuple[list[_Slice], npt.NDArray[np.float64], dict[str, Any]]:
        """The slices of the series from low to high, its affine, and its facts."""
        files, others = _files(paths)
        slices = []
        for path in files:
            with decoding(path):
                slices.append(_header(path))
        chosen = self._choose(paths[0], slices)
        chosen, step = _in_order(paths[0], chosen)
        first = chosen[0]
        affine = np.eye(4)
        affine[:3, 0] = first.along * first.spacing[1]
        affine[:3, 1] = first.down * first.spacing[0]
        affine[:3, 2] = step
        affine[:3, 3] = first.position
        affine[:2] *= -1  # DICOM positions are LPS, ours RAS
        facts = {
            "modality": first.modality,
            "files": len(chosen),
            "other_files": others,
            "hounsfield": all(item.hounsfield for item in chosen),
        }
        return chosen, affine, facts

    def _choose(self, where: Path, slices: list[_Slice]) -> list[_Slice]:
        groups: dict[str, list[_Slice]] = {}
        for item in slices:
            groups.setdefault(item.uid, []).append(item)
        wanted = [g for g in groups.values() if self.series is None or g[0].number == self.series]
        if len(wanted) == 1:
            return wanted[0]
        names = [
            f"series {g[0].number if g[0].number is not None else '(no number)'} ({g[0].modality}, {len(g)} files)"
            for g in groups.values()
        ]
        expected = "one series" if self.series is None else f"one series of number {self.series}"
        mend = "Put each series into a folder of its own (a script can give the reader's option series)."
        raise InputError(where, listed(names), expected, mend)


def _files(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """The DICOM files, and how many other files lie in the folders among `paths`."""
    files, others = [], 0
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        if len(inside) > _MAX_FILES:
            raise InputError(path, f"{len(inside)} files", f"up to {_MAX_FILES}", "Give each series its own folder.")
        for file in inside:
            if has_preamble(file) and file.name.upper() != "DICOMDIR":
                files.append(file)
            elif path.is_dir() and not file.name.lower().endswith((".dcm", ".ima")):
                others += 1
            else:
                mend = "Export the series again, or take the file out."
                raise InputError(file, "no DICOM file", "a DICOM slice", mend)
    if not files:
        raise InputError(paths[0], "no DICOM file", "the files of a series", "Name the folder that holds them.")
    return files, others


def _header(path: Path) -> _Slice:
    import pydicom

    with path.open("rb") as file:
        # The file stays where the pixels begin: they are measured, and read once only, by GDCM.
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        stored = _stored_bytes(file, dataset)
    modality = str(dataset.get("Modality", ""))
    mend = "Export the series as one slice per file, with its geometry."
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        found = "several frames in one file (an enhanced or multi-frame object)"
        raise InputError(path, found, "one slice per file", "Use the reader of that object, or export single slices.")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise InputError(path, "a colour picture", "grey values", "Take such files (captures, reports) out.")
    if dataset.get("PhotometricInterpretation", "MONOCHROME2") not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(path, f"{dataset.PhotometricInterpretation} pixels", "MONOCHROME2", mend)
    numbers = {}
    for name, count in (("ImageOrientationPatient", 6), ("ImagePositionPatient", 3), ("PixelSpacing", 2)):
        value = dataset.get(name)
        values = np.array([float(v) for v in value] if value is not None else [], dtype=np.float64)
        if values.size != count or not np.isfinite(values).all():
            raise InputError(path, f"no valid {name}", f"{count} numbers", mend)
        numbers[name] = values
    along, down = numbers["ImageOrientationPatient"][:3], numbers["ImageOrientationPatient"][3:]
    lengths = np.array([along @ along - 1, down @ down - 1, along @ down])
    if np.abs(lengths).max() > 10 * _PLANE_TOLERANCE:
        raise InputError(path, "an ImageOrientationPatient that is no pair of unit vectors", "a direction", mend)
    spacing = numbers["PixelSpacing"]
    if not ((spacing > 0) & (spacing < 1000)).all():
        raise InputError(path, f"PixelSpacing {spacing.tolist()}", "two positive numbers of mm", mend)
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    itemsize = int(dataset.get("BitsAllocated") or 8) // 8 or 1
    check_claimed_size(path, (rows, columns), itemsize)
    if stored is None:
        mend = "Export or copy the file again."
        raise InputError(path, "compressed pixels with broken fragments", "a whole, readable file", mend)
    if not _is_compressed(dataset) and stored < rows * columns * itemsize:
        # GDCM would fill what is missing with zeros.
        expected = f"{rows * columns * itemsize} ({columns} × {rows} pixels)"
        raise InputError(path, f"{stored} bytes of pixels", expected, "Export or copy the file again.")
    if modality == "CT":
        _check_rescale(path, dataset)
    number = dataset.get("SeriesNumber")
    return _Slice(
        path=path,
        uid=str(dataset.get("SeriesInstanceUID", "")),
        number=None if number is None else int(number),
        modality=modality if modality in _MODALITIES else "unknown",
        position=numbers["ImagePositionPatient"],
        along=along,
        down=down,
        spacing=(float(spacing[0]), float(spacing[1])),
        rows=rows,
        columns=columns,
        hounsfield=modality == "CT" and str(dataset.get("RescaleType") or "HU") == "HU",
    )


def _check_rescale(path: Path, dataset: Any) -> None:
    """Both are mandatory in CT (PS3.3 C.8.2.1); read without them, water would be at 1024 or anywhere."""
    names = ("RescaleSlope", "RescaleIntercept")
    missing = [name for name in names if dataset.get(name) in (None, "")]
    if missing:
        found = f"a CT slice without {' and '.join(missing)}"
        mend = "Export the series again with all its attributes; nothing else tells its Hounsfield units."
        raise InputError(path, found, "the rescale to Hounsfield units", mend)
    slope, intercept = (float(dataset.get(name)) for name in names)
    if not (np.isfinite([slope, intercept]).all() and slope != 0):
        found = f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g}"
        raise InputError(path, found, "finite numbers, the slope not 0", "Export the series again.")


def _is_compressed(dataset: Any) -> bool:
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    return bool(syntax and syntax.is_compressed)


def _stored_bytes(file: BinaryIO, dataset: Any) -> int | None:
    """Bytes of Pixel Data that the file holds; None for compressed pixels that are no unbroken row of items.

    GDCM would fill what is missing with zeros, and may search broken fragments (PS3.5 A.4) without end.

    Args:
        file: open, at the start of the element of Pixel Data or at its end.
        dataset: what was read before it.
    """
    import pydicom

    if dataset.file_meta.get("TransferSyntaxUID") == pydicom.uid.DeflatedExplicitVRLittleEndian:
        file.seek(0)  # places in the file are none in its data set
        return len(pydicom.dcmread(file, specific_tags=["PixelData"]).get("PixelData") or b"")
    begin, end = file.tell(), file.seek(0, 2)
    file.seek(begin)
    implicit, little = dataset.original_encoding
    order: Literal["little", "big"] = "little" if little else "big"
    head = file.read(8 if implicit else 12)
    if (int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)) != (0x7FE0, 0x0010):
        return 0
    length = int.from_bytes(head[-4:], order)
    at = file.tell()
    if not _is_compressed(dataset):
        return min(length, end - at)
    start, item = at, file.read(8)
    while item[:4] == b"\xfe\xff\x00\xe0":
        at = file.seek(at + 8 + int.from_bytes(item[4:], "little"))
        item = file.read(8)
    # The row ends with a delimiter, and holds an offset table and one fragment at least.
    whole = item[:4] == b"\xfe\xff\xdd\xe0" and at <= end and at - start >= 16
    return at - start if whole and length == 0xFFFFFFFF else None


def _in_order(where: Path, slices: list[_Slice]) -> tuple[list[_Slice], npt.NDArray[np.float64]]:
    """The slices from low to high along their normal, and the step between them in mm (LPS)."""
    first = slices[0]
    for item in slices[1:]:
        if (item.rows, item.columns) != (first.rows, first.columns):
            found = f"{item.columns} × {item.rows} pixels"
            expected = f"{first.columns} × {first.rows}, as in {first.path.name}"
            raise InputError(item.path, found, expected, "Take localizers and captures out of the series.")
        turn = max(np.abs(item.along - first.along).max(), np.abs(item.down - first.down).max())
        if turn > _PLANE_TOLERANCE:
            expected = f"that of {first.path.name}"
            raise InputError(item.path, "another slice direction", expected, "Take localizers out of the series.")
        if not np.allclose(item.spacing, first.spacing, rtol=1e-3):
            found, expected = f"pixel size {item.spacing}", f"{first.spacing}, as in {first.path.name}"
            raise InputError(item.path, found, expected, "Take other reconstructions out of the series.")
    if len(slices) < 2:
        raise InputError(where, "one slice (a localizer?)", "a series of slices", "Name the folder of the series.")
    ordered = sorted(slices, key=lambda item: float(item.position @ first.normal))
    places = np.array([item.position for item in ordered])
    heights = places @ first.normal
    gaps = np.diff(heights)
    step = float(np.median(gaps))
    for i, gap in enumerate(gaps):
        pair = f"{ordered[i].path.name} and {ordered[i + 1].path.name}"
        if gap < 1e-3:
            mend = "Take doubles and other phases (time, echo, contrast) out of the series."
            raise InputError(where, f"{pair} at one place", "one slice at each place", mend)
        if abs(gap - step) > _GAP_TOLERANCE * step + 1e-3:
            found = f"{gap:.4g} mm between {pair}, {step:.4g} mm between most slices"
            mend = "Copy the missing slices, or resample the series onto equal distances."
            raise InputError(where, found, "equal distances (a slice may be missing)", mend)
    whole = (places[-1] - places[0]) / (len(ordered) - 1)
    tilt = float(np.degrees(np.arccos(np.clip(whole @ first.normal / np.linalg.norm(whole), -1, 1))))
    if tilt > _TILT_DEGREES:
        found = f"slices shifted against each other, a gantry tilt of {tilt:.1f}°"
        raise InputError(where, found, "slices stacked at right angles", _RESAMPLE)
    stray = np.abs(places - places[0] - np.arange(len(ordered))[:, None] * whole).max()
    if stray > max(_GAP_TOLERANCE * step, 0.05 * min(first.spacing)) + 1e-3:
        found = f"slices up to {stray:.3g} mm off one line"
        raise InputError(where, found, "slices in one straight stack", _RESAMPLE)
    return ordered, whole


def _pixels(slices: list[_Slice]) -> npt.NDArray[np.float32]:
    """The rescaled values, (column, row, slice)."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    volume = np.empty((len(slices), slices[0].rows, slices[0].columns), np.float32)
    reader: Any = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    for k, item in enumerate(slices):
        with decoding(item.path):
            reader.SetFileName(str(item.path))
            image = reader.Execute()  # has to outlive the view of its pixels
            picture = sitk.GetArrayViewFromImage(image)
            if picture.size != volume[k].size:
                raise InputError(item.path, f"pixels of shape {picture.shape}", "those of its header", "Copy it again.")
            volume[k] = picture.reshape(volume[k].shape)
    return volume.transpose(2, 1, 0)
