"""Volumes, slices and cohorts: reading, caching and writing."""

from __future__ import annotations

from .cache import VolumeCache
from .cohort import datalist, read_cohort
from .scans import ScanDataset, scan_list
from .selection import select_labelled
from .slices import SliceDataset
from .two_stream import TwoStreamBatchSampler, TwoStreamDataset, two_stream_collate, two_stream_slices
from .volume import EXTENSIONS, VolumeHeader, check_same_geometry, read_header, read_volume, scan_name
from .writer import AtomicNibabelWriter

__all__ = [
    "EXTENSIONS",
    "AtomicNibabelWriter",
    "ScanDataset",
    "SliceDataset",
    "TwoStreamBatchSampler",
    "TwoStreamDataset",
    "VolumeCache",
    "VolumeHeader",
    "check_same_geometry",
    "datalist",
    "read_cohort",
    "read_header",
    "read_volume",
    "scan_list",
    "scan_name",
    "select_labelled",
    "two_stream_collate",
    "two_stream_slices",
]
