"""The files of one DICOM series read as a volume, by the reader of their kind."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from grn_monai.data.readers.base import CheckedReader, SourceVolume
from grn_monai.data.readers.dicom_frames import read_header
from grn_monai.data.readers.enhanced import ENHANCED_CLASS, EnhancedUltrasoundReader
from grn_monai.data.readers.series import DicomSeriesReader
from grn_monai.data.readers.ultrasound import ULTRASOUND_CLASSES, UltrasoundReader
from grn_monai.errors import InputError

__all__ = ["VOLUME_CLASSES", "read_dicom_scan"]

_SLICES = {"1.2.840.10008.5.1.4.1.1.2": "CT Image Storage", "1.2.840.10008.5.1.4.1.1.4": "MR Image Storage"}

VOLUME_CLASSES = {ENHANCED_CLASS: "Enhanced US Volume Storage", **ULTRASOUND_CLASSES, **_SLICES}
"""SOP Class UID to name of what can be a volume."""


def read_dicom_scan(files: Sequence[str | PathLike[str]], frame_spacing: float | None = None) -> SourceVolume:
    """Reads a CT or MR series, an Enhanced US Volume, or a sweep of ultrasound frames.

    Only what says where its voxels lie is read. Nothing falls back to a reader that guesses: a slice that is missing,
    or frames of unknown distance, would give a volume of wrong lengths.

    Args:
        files: all files of one series.
        frame_spacing: distance in mm between the frames of a plain ultrasound sweep, which no DICOM attribute tells;
            default: such files are refused.

    Raises:
        InputError: the files are of several kinds or of none that is a volume, or their reader refuses them.
    """
    paths = sorted(Path(file) for file in files)
    if not paths:
        raise InputError("DICOM series", "no files", "the files of one series", "Check that the series is complete.")
    kinds = {str(read_header(path).SOPClassUID) for path in paths}
    kind = kinds.pop()
    if kinds:
        mend = "Export them as series of their own."
        raise InputError(paths[0].parent, "files of several kinds", "one kind of image in a series", mend)
    if kind == ENHANCED_CLASS:
        reader: CheckedReader = EnhancedUltrasoundReader()
        if len(paths) > 1:
            mend = "Export each volume as a series of its own."
            raise InputError(paths[0].parent, f"{len(paths)} Enhanced US Volumes", "one in a series", mend)
    elif kind in ULTRASOUND_CLASSES:
        reader = UltrasoundReader(frame_spacing=frame_spacing)
    elif kind in _SLICES:
        reader = DicomSeriesReader()
    else:
        expected = f"one of {', '.join(VOLUME_CLASSES.values())}"
        raise InputError(paths[0], f"the SOP class {kind}", expected, "Leave such series out.")
    return reader.load(paths)
