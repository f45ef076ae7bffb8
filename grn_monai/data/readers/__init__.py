"""Readers of the formats that MONAI lacks, as ``monai.data.ImageReader`` for ``LoadImaged(reader=...)``."""

from __future__ import annotations

from .base import CheckedReader, SourceVolume, probe_affine
from .enhanced import EnhancedUltrasoundReader
from .raw import RawVolumeReader
from .series import DicomSeriesReader
from .slices import SliceStackReader, natural_order
from .uff import UFFReader
from .ultrasound import UltrasoundReader
from .verasonics import VerasonicsReader

__all__ = [
    "CheckedReader",
    "DicomSeriesReader",
    "EnhancedUltrasoundReader",
    "RawVolumeReader",
    "SliceStackReader",
    "SourceVolume",
    "UFFReader",
    "UltrasoundReader",
    "VerasonicsReader",
    "natural_order",
    "probe_affine",
]
