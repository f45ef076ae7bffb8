"""``grn-monai agreement``."""

from __future__ import annotations

import argparse
from typing import Any

from grn_monai.commands.common import OK, add_parser

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_parser(
        commands,
        "agreement",
        help="tables, ICC, Bland–Altman and analysis of variance of muscle segmentations",
        description="Sum up the muscles.csv of one or more evaluations of muscle cohorts: mean (SD) of every measure,\n"
        "ICC(2,1), Bland–Altman and correlation of the volumes, repeated-measures analysis of variance with its\n"
        "checks, and paired t-tests of the best model against the others. Writes agreement.html, agreement.md,\n"
        "agreement.json, tables/ (CSV, LaTeX, Markdown) and figures/.\n\n"
        "RUN is FOLDER, or FACTOR=LEVEL,FACTOR=LEVEL:FOLDER, where FOLDER holds muscles.csv (or\n"
        "evaluation/muscles.csv). All runs name the same factors. Runs with the same levels are folds of one\n"
        "model: their subjects are pooled. Factors are within subjects: every model scored the same subjects;\n"
        "one who is missing somewhere is listed and left out of the analysis of variance.",
        epilog="examples:\n"
        "  grn-monai agreement runs/ct --out runs/ct/agreement\n"
        "  grn-monai agreement dimension=2D,augmentation=no:runs/2d dimension=2D,augmentation=yes:runs/2d_aug \\\n"
        "    dimension=3D,augmentation=no:runs/3d dimension=3D,augmentation=yes:runs/3d_aug --out runs/agreement\n"
        "  grn-monai agreement depth=4:runs/fold0 depth=4:runs/fold1 depth=5:runs/deep0 depth=5:runs/deep1 --out out",
        status="exit status: 0 done, 2 bad input",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="evaluation, with its levels where there are several")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to write; made if missing")
    parser.add_argument(
        "--measure",
        default="dice",
        help="measure of the analysis of variance and the t-tests: dice (default), jaccard, conformity, tpr, tnr, ppv, "
        "hd95_mm or asd_mm",
    )
    parser.add_argument("--no-figures", action="store_true", help="tables only")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from grn_monai.report.agreement import build_agreement_report

    print(build_agreement_report(options.runs, options.out, options.measure, not options.no_figures))
    return OK
