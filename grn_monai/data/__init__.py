"""Volumes, slices and cohorts: reading, caching and writing."""

from __future__ import annotations

from .volume import EXTENSIONS, VolumeHeader, check_same_geometry, read_header, read_volume, scan_name

__all__ = ["EXTENSIONS", "VolumeHeader", "check_same_geometry", "read_header", "read_volume", "scan_name"]
