"""DICOM files to scans, from their headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.convert.source import Source
from grn_monai.data.readers.dicom_frames import fill_class, has_preamble

__all__ = ["DicomHeader", "dicom_headers", "dicom_sources", "is_dicom", "is_still"]

_ENHANCED_US = "1.2.840.10008.5.1.4.1.1.6.2"
# Multi-frame and single-frame ultrasound, each with its retired forerunner.
_US = ("1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.6.1",
       "1.2.840.10008.5.1.4.1.1.6")  # fmt: skip
# CT and MR images, each followed by its enhanced and legacy converted forms (DICOM PS3.4, B.5).
_CT_MR = {
    **dict.fromkeys(("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"), "CT"),
    **dict.fromkeys(("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.3",
                     "1.2.840.10008.5.1.4.1.1.4.4"), "MR"),
}  # fmt: skip
_TAGS = ("SOPClassUID", "SeriesInstanceUID", "PatientID", "PatientName", "NumberOfFrames", "InstanceNumber", "Rows",
         "ImageType")  # fmt: skip
_STILL = "maybe a still; frames of one sweep are taken where SRC, or `image` in a row of a --table, is their folder"
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # floats, doubles, and all others


def is_dicom(path: Path) -> bool:
    """Whether a file can be read and begins as a DICOM file does, whatever its name."""
    try:
        return path.is_file() and has_preamble(path)  # a pipe would wait for ever
    except OSError:
        return False


@dataclass(frozen=True)
class DicomHeader:
    """The few attributes that group files to scans.

    Attributes:
        path: the file.
        kind: of the scan it belongs to, see `data_prep.convert.source.KINDS`; None: it is no picture of a scan.
        modality: "US", "CT" or "MR".
        series: UID of its series; empty: unknown.
        patient: only to tell subjects apart; what the cohort calls them is decided elsewhere.
        frames: number of pictures in it.
        instance: its number in the series.
        problem: why it cannot be read.
    """

    path: Path
    kind: str | None = None
    modality: str = "US"
    series: str = ""
    patient: str = ""
    frames: int = 1
    instance: int = 0
    problem: str | None = None


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0


def dicom_headers(files: Iterable[Path]) -> Iterator[DicomHeader]:
    """Read the header of each file, without its pixels."""
    for path in sorted(files):
        try:
            yield _header(path)
        except Exception as error:  # pydicom raises many unrelated types on damaged files
            yield DicomHeader(path, "dicom-unread", problem=f"{type(error).__name__}: {error}"[:200])


def _header(path: Path) -> DicomHeader:
    import pydicom
    from pydicom.filereader import read_partial
    from pydicom.tag import Tag

    pixels = False

    def at_pixels(tag: object, _vr: str | None, _length: int) -> bool:
        nonlocal pixels
        pixels = tag in _PIXELS
        return pixels

    with path.open("rb") as file:
        tags = [Tag(name) for name in _TAGS]
        data: pydicom.Dataset = read_partial(file, at_pixels, specific_tags=list(tags))
    fill_class(data)
    sop_class = str(data.SOPClassUID)
    frames = max(_number(data.get("NumberOfFrames", 1)), 1)
    kind, modality = None, "US"
    # Reports, presentation states, segmentations, secondary captures: no pictures of a scan.
    if pixels and _number(data.get("Rows", 0)):
        if sop_class == _ENHANCED_US:
            kind = "dicom-enhanced-us"
        elif sop_class in _US:
            kind = "dicom-us"
        elif sop_class in _CT_MR and "LOCALIZER" not in list(data.get("ImageType") or ()):
            kind, modality = "dicom-series", _CT_MR[sop_class]
    return DicomHeader(
        path, kind, modality, str(data.get("SeriesInstanceUID") or ""),
        str(data.get("PatientID") or data.get("PatientName") or ""), frames,
        _number(data.get("InstanceNumber", 0)),
    )  # fmt: skip


def is_still(header: DicomHeader) -> bool:
    """Whether a file is a single ultrasound picture."""
    return header.kind == "dicom-us" and header.frames == 1


def dicom_sources(headers: Iterable[DicomHeader], stack: bool) -> Iterator[Source]:
    """Group files to scans: an ultrasound file each, or the files of a CT or MR series; others are passed over.

    Args:
        headers: of the files.
        stack: whether the single ultrasound pictures of a series are the frames of one sweep. Only the user knows:
            those that were saved during an examination, of whatever was looked at, share a series too. Without it
            each is a source with a problem.
    """
    series: dict[tuple[str, str], list[DicomHeader]] = {}
    for header in headers:
        if header.problem is not None:
            yield Source("dicom-unread", (header.path,), problem=header.problem)
        elif header.kind == "dicom-enhanced-us" or (header.kind == "dicom-us" and header.frames > 1):
            yield _source([header])
        elif header.kind == "dicom-us":
            series.setdefault((header.kind, header.series or str(header.path)), []).append(header)
        elif header.kind is not None:
            series.setdefault((header.kind, header.series or str(header.path.parent)), []).append(header)
    for (kind, _), group in series.items():
        ordered = sorted(group, key=lambda h: (h.instance, h.path))
        if stack or kind != "dicom-us":
            yield _source(ordered)
            continue
        for header in ordered:
            count = f" (one of {len(ordered)} in its series)" if len(ordered) > 1 else ""
            yield _source([header], f"a single ultrasound picture{count}, {_STILL}")


def _source(headers: list[DicomHeader], problem: str | None = None) -> Source:
    first = headers[0]
    assert first.kind is not None
    return Source(
        first.kind,
        tuple(h.path for h in headers),
        subject=f"dicom:{first.patient}" if first.patient else f"dicom:{first.path}",
        modality=first.modality,
        problem=problem,
    )
