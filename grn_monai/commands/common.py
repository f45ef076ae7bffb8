"""What the subcommands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from grn_monai.errors import count_scans

__all__ = ["BAD_INPUT", "EXIT_STATUS", "OK", "SOME_FAILED", "add_depth", "add_parser", "bar", "outcome"]

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
