"""Agreement of muscle segmentations with the truth, of one model or of several that differ in known factors."""

from __future__ import annotations

from grn_monai.report.agreement.build import build_agreement_report
from grn_monai.report.agreement.load import AgreementData, load_runs, parse_run

__all__ = ["AgreementData", "build_agreement_report", "load_runs", "parse_run"]
