"""DICOM segmentations: label volumes written back beside the files their scans came from."""

from __future__ import annotations

from grn_monai.dicom.codes import segment_code
from grn_monai.dicom.seg import WrittenSegmentation, write_dicom_seg

__all__ = ["WrittenSegmentation", "segment_code", "write_dicom_seg"]
