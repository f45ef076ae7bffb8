"""The `check` command."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_parser"]

_EXAMPLES = """\
examples:
  python -m data_prep check runs/cohort
  python -m data_prep check runs/cohort --split split_05.json
      the same for the lists of a split file

Checked: files exist and can be read; image and label have the same shape, spacing, origin and directions;
grey values are finite and not all the same; labels are among the cohort's; no scan is listed twice; no subject
is in two of training (with unlabeled), validation and test. Exit code 1 if there is a fault.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `check` to the command line."""
    parser = commands.add_parser(
        "check",
        help="list every fault of a cohort: files, geometry, label values, leaks, duplicates",
        description="Read every pair of a cohort and list all faults.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cohort", type=Path, help="cohort folder, or a JSON file of its layout")
    parser.add_argument("--split", type=Path, metavar="FILE", help="check this split file of the cohort instead")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from data_prep.check import check_cohort

    path = args.cohort
    if args.split is not None:
        folder = args.cohort if args.cohort.is_dir() else args.cohort.parent
        # As given, or relative to the cohort.
        path = args.split if args.split.is_file() else folder / args.split
    faults = check_cohort(path)
    if not faults:
        print(f"{path}: no faults")
        return 0
    print(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}")
    for fault in faults:
        print(f"  - {fault}")
    return 1
