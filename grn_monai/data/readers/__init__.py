"""Readers of the formats that MONAI lacks, as ``monai.data.ImageReader`` for ``LoadImaged(reader=...)``."""

from __future__ import annotations

from .base import CheckedReader, SourceVolume, probe_affine

__all__ = ["CheckedReader", "SourceVolume", "probe_affine"]
