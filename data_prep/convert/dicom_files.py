"""DICOM files to scans, from their headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.convert.source import Source

__all__ = ["dicom_sources", "is_dicom"]

_ENHANCED_US = "1.2.840.10008.5.1.4.1.1.6.2"
# Multi-frame and single-frame ultrasound, each with its retired forerunner.
_US = ("1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.6.1",
       "1.2.840.10008.5.1.4.1.1.6")  # fmt: skip
_TAGS = ["SOPClassUID", "SeriesInstanceUID", "PatientID", "PatientName", "Modality", "NumberOfFrames",
         "InstanceNumber", "Rows"]  # fmt: skip


@dataclass(frozen=True)
class _Header:
    path: Path
    sop_class: str
    series: str
    patient: str
    modality: str
    frames: int
    instance: int


def is_dicom(path: Path) -> bool:
    """Whether a file has the preamble of a DICOM file, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _number(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0


def _header(path: Path) -> _Header | str:
    """The few attributes that group files, or why they cannot be read."""
    import pydicom

    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        return _Header(
            path,
            str(data.get("SOPClassUID", "")),
            str(data.get("SeriesInstanceUID", "")),
            # Only to tell subjects apart; what the cohort calls them is decided elsewhere.
            str(data.get("PatientID") or data.get("PatientName") or ""),
            str(data.get("Modality", "")),
            max(_number(data.get("NumberOfFrames", 1)), 1),
            _number(data.get("InstanceNumber", 0)),
        )
    except Exception as error:  # pydicom raises many unrelated types on damaged files
        return f"{type(error).__name__}: {error}"[:200]


def dicom_sources(files: Iterable[Path]) -> Iterator[Source]:
    """Group DICOM files to scans: an ultrasound file each, or the files of a CT or MR series; others are passed over.

    Single ultrasound frames of one series belong together, as a sweep. Files without pixels (reports, structured
    documents) yield nothing.
    """
    series: dict[tuple[str, str], list[_Header]] = {}
    for path in sorted(files):
        header = _header(path)
        if isinstance(header, str):
            yield Source("dicom-unread", (path,), problem=header)
        elif header.sop_class == _ENHANCED_US:
            yield _source("dicom-enhanced-us", [header])
        elif header.sop_class in _US and header.frames > 1:
            yield _source("dicom-us", [header])
        elif header.sop_class in _US or header.modality == "US":
            series.setdefault(("dicom-us", header.series or str(path)), []).append(header)
        elif header.modality in ("CT", "MR"):
            series.setdefault(("dicom-series", header.series or str(path.parent)), []).append(header)
    for (kind, _), headers in series.items():
        yield _source(kind, sorted(headers, key=lambda h: (h.instance, h.path)))


def _source(kind: str, headers: list[_Header]) -> Source:
    first = headers[0]
    return Source(
        kind,
        tuple(h.path for h in headers),
        subject=f"dicom:{first.patient}" if first.patient else f"dicom:{first.path}",
        modality=first.modality if first.modality in ("CT", "MR") else "US",
    )
