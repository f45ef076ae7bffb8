"""Runs, and measured scans, to tables, statistics, pictures and one self-contained HTML page."""

from __future__ import annotations

from grn_monai.report.build import build_report
from grn_monai.report.load import Method, RunFolder, Training, read_run
from grn_monai.report.measured import find_measurements
from grn_monai.report.scans import build_scan_report

__all__ = [
    "Method",
    "RunFolder",
    "Training",
    "build_report",
    "build_scan_report",
    "find_measurements",
    "read_run",
]
