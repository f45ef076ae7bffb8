"""The `grn-monai` command: score and measure label volumes, hand them back as DICOM, and report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from grn_monai import __version__
from grn_monai.commands import agreement, evaluate, label, measure, muscle, pack, report, seg, study
from grn_monai.commands.common import BAD_INPUT, EXIT_STATUS
from grn_monai.errors import InputError

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grn-monai",
        description="Scores, measurements and reports of layer segmentations of the back, and their way back into a\n"
        "DICOM archive. Scans come in by `python -m data_prep convert`; training and inference are MONAI\n"
        "bundles: python -m monai.bundle run --config_file bundles/NAME/configs/train.yaml",
        epilog=f"`grn-monai COMMAND --help` shows examples.\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"grn-monai {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (evaluate, agreement, measure, muscle, study, report, seg, label, pack):
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; default `sys.argv[1:]`.

    Returns:
        Exit status: 0 done, 1 some scans failed, 2 bad input (argparse exits with 2 by itself).
    """
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except InputError as error:
        print(f"grn-monai: {error}", file=sys.stderr)
        return BAD_INPUT
    return status


if __name__ == "__main__":
    sys.exit(main())
