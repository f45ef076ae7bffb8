"""What the subcommands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from grn_monai.errors import InputError, count_scans

__all__ = [
    "BAD_INPUT",
    "EXIT_STATUS",
    "OK",
    "SOME_FAILED",
    "add_depth",
    "add_parser",
    "add_scans",
    "bar",
    "check_scans",
    "outcome",
]

OK, SOME_FAILED, BAD_INPUT = 0, 1, 2

EXIT_STATUS = "exit status: 0 done, 1 some scans failed (they are listed), 2 bad input"


def add_parser(commands: Any, name: str, **texts: str) -> argparse.ArgumentParser:
    """A subparser whose texts keep their line breaks, with the exit status (`status`) at its end."""
    epilog = f"{texts.pop('epilog')}\n\n{texts.pop('status', EXIT_STATUS)}"
    parser: argparse.ArgumentParser = commands.add_parser(
        name, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, **texts
    )
    return parser


def add_depth(parser: Any) -> None:
    """Adds ``--depth-axis`` and ``--depth-reversed``, both None where they are not given."""
    parser.add_argument(
        "--depth-axis",
        metavar="AXIS",
        type=lambda text: int(text) if text.isdigit() else text,
        help="where depth runs in the files: voxel axis 0, 1 or 2, or the direction of depth as one of L R A P S I "
        "(default: 2)",
    )
    parser.add_argument("--depth-reversed", action="store_true", default=None, help="depth decreases along that axis")


def add_scans(parser: Any, metavar: str) -> None:
    """Adds what is measured: scans, label volumes or ``--labels``, ``--out``, ``--section`` and ``--suffix``."""
    parser.add_argument("cohort", metavar=metavar, help="cohort folder or JSON file, folder of scans, or scan")
    parser.add_argument("predictions", metavar="PREDICTIONS", nargs="?", help="folder of label volumes")
    parser.add_argument("--labels", action="store_true", help="measure the cohort's own labels instead")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to write; made if missing")
    parser.add_argument(
        "--section",
        default="test",
        choices=("training", "validation", "test", "unlabeled", "all"),
        help="scans of a cohort to measure (default: test)",
    )
    parser.add_argument("--suffix", default="_seg", help="what follows the scan's name (default: _seg)")


def check_scans(command: str, options: argparse.Namespace) -> None:
    """Refuses both of PREDICTIONS and ``--labels``, and neither.

    Raises:
        InputError: naming the command.
    """
    if options.labels == (options.predictions is not None):
        found = "both PREDICTIONS and --labels" if options.labels else "neither PREDICTIONS nor --labels"
        raise InputError(command, found, "one of the two", "Name a folder of label volumes, or give --labels.")


def bar(items: Iterable[Any]) -> Any:
    """A progress bar over scans on stderr, where that is a terminal."""
    from tqdm import tqdm

    return tqdm(items, unit="scan", disable=None)


def outcome(failures: Mapping[str, str]) -> int:
    """Lists failed scans with their reasons on stderr, and returns the exit status."""
    if not failures:
        return OK
    print(f"{count_scans(len(failures))} failed:", file=sys.stderr)
    for scan, reason in failures.items():
        print(f"  {scan}: {reason}", file=sys.stderr)
    return SOME_FAILED
