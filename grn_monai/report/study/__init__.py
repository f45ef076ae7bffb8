"""A study's runs to the papers' tables, statistics and one page."""

from __future__ import annotations

from grn_monai.report.study.collect import Run, StudyResults, load_study
from grn_monai.report.study.plan import find_study

__all__ = ["Run", "StudyResults", "find_study", "load_study"]
