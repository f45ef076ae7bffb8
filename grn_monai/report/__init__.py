"""Runs to tables, statistics, pictures and one self-contained HTML page."""

from __future__ import annotations

from grn_monai.report.build import build_report
from grn_monai.report.load import Method, RunFolder, Training, read_run

__all__ = ["Method", "RunFolder", "Training", "build_report", "read_run"]
