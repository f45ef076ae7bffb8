"""``grn-monai report``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from grn_monai.commands.common import OK, add_depth, add_parser, bar
from grn_monai.errors import InputError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_parser(
        commands,
        "report",
        help="write report.html of measured scans, of a run, or of a study",
        description="Write one HTML file that opens anywhere, without a network.\n\n"
        "FOLDER of `grn-monai measure` (it has measurements.json): quality first, a table to sort, overlays\n"
        "with a slice slider and thickness maps of every scan; no truth is needed.\n\n"
        "FOLDER of a run: tables, statistics, pictures and training curves, and the same figures as\n"
        "report.json. It holds evaluation/NAME/ (metrics.json, scans.csv, slices.csv, predictions/) for each\n"
        "method, METHOD/history.csv and run.json of the trainings, and cohort/. What is missing is left out\n"
        "and noted in the report. An optional FOLDER/report.yaml sets `title`, `methods` (a list, or\n"
        "name: title, in order; the first is the reference), `scans`, `cohort`, `depth_axis` and\n"
        "`depth_reversed`.\n\n"
        "FOLDER or YAML file of `grn-monai study` (the folder has study.json), finished or not: the papers’\n"
        "tables, tests and figures from its runs, beside what the papers print. Writes report.html, report.md,\n"
        "report.json, tables/ (CSV, LaTeX, Markdown) and figures/. Runs that failed or are missing are named.",
        epilog="examples:\n"
        "  grn-monai report measured\n"
        "  grn-monai report runs/demo\n"
        "  grn-monai report runs/demo --cohort data/cohort --out runs/demo/report --scans 1\n"
        "  grn-monai report runs/laptop --out docs/results/laptop",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="folder of the measurements, of the run or of the study, or STUDY.yaml"
    )
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: FOLDER; of a study FOLDER/report)")
    measured = parser.add_argument_group("measured scans")
    measured.add_argument(
        "--slices", type=int, metavar="N", help="slices of each depth plane to show; 0: no pictures (default: 24)"
    )
    run = parser.add_argument_group("runs")
    run.add_argument("--cohort", metavar="PATH", help="cohort folder or file (default: FOLDER/cohort)")
    run.add_argument("--scans", type=int, choices=range(4), help="scans to picture: median, worst, best (default: 3)")
    add_depth(run)
    study = parser.add_argument_group("studies")
    study.add_argument("--no-figures", action="store_true", default=None, help="tables only")
    study.add_argument(
        "--margin",
        type=float,
        metavar="POINTS",
        help="margin of “not inferior” in percentage points of Dice (default: 1)",
    )
    parser.set_defaults(run=_run)


_OPTIONS = {
    "measured scans": ("slices",),
    "a run": ("cohort", "scans", "depth_axis", "depth_reversed"),
    "a study": ("no_figures", "margin"),
}


def _kind(folder: str) -> str:
    from grn_monai.report import find_measurements
    from grn_monai.report.study import find_study

    if find_study(folder) is not None:
        return "a study"
    return "measured scans" if find_measurements(folder) is not None else "a run"


def _line(text: str) -> None:
    """One line on stderr, where that is a terminal."""
    if sys.stderr.isatty():
        print(f"{text} …", file=sys.stderr)


def _run(options: argparse.Namespace) -> int:
    kind = _kind(options.folder)
    others = [name for other, names in _OPTIONS.items() if other != kind for name in names]
    unused = [name for name in others if getattr(options, name) is not None]
    if unused:
        why = " (there is no measurements.json)" if kind == "a run" else ""
        found = f"{kind}{why}, with " + ", ".join("--" + name.replace("_", "-") for name in unused)
        raise InputError(options.folder, found, "options for that kind", "Leave the others out.")
    if kind == "a study":
        from grn_monai.report.study.build import build_study_report

        margin = {} if options.margin is None else {"margin": options.margin / 100}
        print(build_study_report(options.folder, options.out, not options.no_figures, progress=_line, **margin))
        return OK
    from grn_monai.report import build_report, build_scan_report

    if kind == "measured scans":
        slices = {} if options.slices is None else {"slices": options.slices}
        print(build_scan_report(options.folder, options.out, progress=bar, **slices))
        return OK
    page = build_report(
        options.folder,
        options.cohort,
        options.out,
        scans=3 if options.scans is None else options.scans,
        depth_axis=options.depth_axis,
        depth_reversed=options.depth_reversed,
    )
    print(page)
    return OK
