"""Volumes, slices and cohorts: reading, caching and writing."""

from __future__ import annotations

from .axial import AxialSliceDataset
from .cache import VolumeCache
from .cohort import datalist, read_cohort
from .folds import fold_cohort, folds
from .holdout import holdout_list
from .prepared import PreparedDataset, check_patch
from .scans import ScanDataset, scan_list
from .selection import select_labelled
from .slices import SliceDataset
from .two_stream import TwoStreamBatchSampler, TwoStreamDataset, two_stream_collate, two_stream_slices
from .volume import EXTENSIONS, VolumeHeader, check_same_geometry, read_header, read_volume, scan_name
from .writer import AtomicNibabelWriter

__all__ = [
    "EXTENSIONS",
    "AtomicNibabelWriter",
    "AxialSliceDataset",
    "PreparedDataset",
    "ScanDataset",
    "SliceDataset",
    "TwoStreamBatchSampler",
    "TwoStreamDataset",
    "VolumeCache",
    "VolumeHeader",
    "check_patch",
    "check_same_geometry",
    "datalist",
    "fold_cohort",
    "folds",
    "holdout_list",
    "read_cohort",
    "read_header",
    "read_volume",
    "scan_list",
    "scan_name",
    "select_labelled",
    "two_stream_collate",
    "two_stream_slices",
]
