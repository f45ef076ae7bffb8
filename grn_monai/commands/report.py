"""``grn-monai report``."""

from __future__ import annotations

import argparse
from typing import Any

from grn_monai.commands.common import OK, add_depth, add_parser, bar
from grn_monai.errors import InputError

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_parser(
        commands,
        "report",
        help="write report.html of measured scans, or of a run",
        description="Write one HTML file that opens anywhere, without a network.\n\n"
        "FOLDER of `grn-monai measure` (it has measurements.json): quality first, a table to sort, overlays\n"
        "with a slice slider and thickness maps of every scan; no truth is needed.\n\n"
        "FOLDER of a run: tables, statistics, pictures and training curves, and the same figures as\n"
        "report.json. It holds evaluation/NAME/ (metrics.json, scans.csv, slices.csv, predictions/) for each\n"
        "method, METHOD/history.csv and run.json of the trainings, and cohort/. What is missing is left out\n"
        "and noted in the report. An optional FOLDER/report.yaml sets `title`, `methods` (a list, or\n"
        "name: title, in order; the first is the reference), `scans`, `cohort`, `depth_axis` and\n"
        "`depth_reversed`.",
        epilog="examples:\n"
        "  grn-monai report measured\n"
        "  grn-monai report runs/demo\n"
        "  grn-monai report runs/demo --cohort data/cohort --out runs/demo/report --scans 1",
    )
    parser.add_argument("folder", metavar="FOLDER", help="folder of the measurements or of the run")
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: FOLDER)")
    measured = parser.add_argument_group("measured scans")
    measured.add_argument(
        "--slices", type=int, metavar="N", help="slices of each depth plane to show; 0: no pictures (default: 24)"
    )
    run = parser.add_argument_group("runs")
    run.add_argument("--cohort", metavar="PATH", help="cohort folder or file (default: FOLDER/cohort)")
    run.add_argument("--scans", type=int, choices=range(4), help="scans to picture: median, worst, best (default: 3)")
    add_depth(run)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from grn_monai.report import build_report, build_scan_report, find_measurements

    measured = find_measurements(options.folder) is not None
    runs_only = ("cohort", "scans", "depth_axis", "depth_reversed")
    unused = [name for name in (runs_only if measured else ("slices",)) if getattr(options, name) is not None]
    if unused:
        kind = "measured scans" if measured else "a run (there is no measurements.json)"
        found = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise InputError(options.folder, f"{kind}, with {found}", "options for that kind", "Leave the others out.")
    if measured:
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
