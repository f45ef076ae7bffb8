"""`python -m data_prep`: make, convert, split and check cohorts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from data_prep.commands import check, convert, simulate, split
from grn_monai.errors import InputError

__all__ = ["main"]

_EPILOG = """\
A cohort is a folder with images/, labels/ and dataset.json. `python -m data_prep COMMAND --help` has examples.
Exit codes: 0 all well, 1 faults found by `check` or scans that `convert` had to leave out, 2 bad usage or input,
130 stopped by the user.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description="Make, convert, split and check cohorts of labelled volumes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (simulate, convert, split, check):
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments without the program's name; those of the process when not given.

    Returns:
        Exit code: 0 all well, 1 faults or failed scans, 2 bad input, 130 stopped by the user.
    """
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # A full disk or a lost network drive: nothing a traceback would explain better.
        print(f"error: {error.filename or 'file system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return code
