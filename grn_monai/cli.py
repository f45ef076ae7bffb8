"""The `grn-monai` command: score label volumes, and write the report of a run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from grn_monai import __version__
from grn_monai.errors import InputError

__all__ = ["main"]

# Imports of torch and matplotlib stand in the functions that need them, so that --help answers at once.

OK, SOME_FAILED, BAD_INPUT = 0, 1, 2

_EPILOG = """exit status: 0 done, 1 some scans failed (they are listed), 2 bad input"""


def _add_depth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--depth-axis",
        metavar="AXIS",
        type=lambda text: int(text) if text.isdigit() else text,
        help="where depth runs in the files: voxel axis 0, 1 or 2, or the direction of depth as one of L R A P S I "
        "(default: 2)",
    )
    parser.add_argument("--depth-reversed", action="store_true", default=None, help="depth decreases along that axis")


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score label volumes against a cohort's truth",
        description="Score the label volumes in PREDICTIONS against the truth of a cohort's test scans. Writes\n"
        "metrics.json (means, intervals), scans.csv (Dice, HD95, ASD and thickness error of every scan and\n"
        "layer) and, with --slices, slices.csv. The volume of scan images/NAME.nii.gz is found as\n"
        "NAME_seg.nii.gz or NAME.nii.gz, in PREDICTIONS or in a folder NAME there, and must lie on the grid\n"
        "of the truth.",
        epilog="examples:\n"
        "  grn-monai evaluate data/cohort runs/demo/evaluation/unet/predictions --out runs/unet_scores\n"
        "  grn-monai evaluate data/cohort nnunet_out --out runs/demo/evaluation/nnunet --slices\n"
        "  grn-monai evaluate data/cohort/split.json out --out scores --section validation\n\n" + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cohort", metavar="COHORT", help="cohort folder with dataset.json, or such a JSON file")
    parser.add_argument("predictions", metavar="PREDICTIONS", help="folder of label volumes")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to write; made if missing")
    parser.add_argument(
        "--section", default="test", choices=("training", "validation", "test"), help="scans to score (default: test)"
    )
    parser.add_argument(
        "--kind",
        default="decoded",
        choices=("decoded", "volume"),
        help="what the volumes are: after the ordered-layer decode, or plain argmax (default: decoded)",
    )
    parser.add_argument("--slices", action="store_true", help="also score every slice of both planes")
    parser.add_argument("--suffix", default="_seg", help="what follows the scan's name (default: _seg)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap intervals (default: 0)")
    _add_depth(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from grn_monai.metrics import evaluate_folders

    result = evaluate_folders(
        options.cohort,
        options.predictions,
        options.out,
        section=options.section,
        kind=options.kind,
        slices=options.slices,
        suffix=options.suffix,
        seed=options.seed,
        depth_axis=2 if options.depth_axis is None else options.depth_axis,
        depth_reversed=bool(options.depth_reversed),
        progress=lambda items: tqdm(items, unit="scan", disable=None),
    )
    for kind, scores in result.summary.items():
        low_high = "" if not scores["subject_ci"] else " (subjects {:.3f} to {:.3f})".format(*scores["subject_ci"])
        print(f"{kind}: mean Dice {scores['mean']:.3f}{low_high}, N = {scores['n']}")
    print(f"{_scans(len(result.scans))} scored, results in {options.out}")
    if not result.failures:
        return OK
    print(f"{_scans(len(result.failures))} failed:", file=sys.stderr)
    for scan, reason in result.failures.items():
        print(f"  {scan}: {reason}", file=sys.stderr)
    return SOME_FAILED


def _scans(count: int) -> str:
    return "1 scan" if count == 1 else f"{count} scans"


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="write report.html and report.json of a run folder",
        description="Write one HTML file with tables, statistics, pictures and training curves of a run, and the\n"
        "same figures as report.json. RUN_DIR holds evaluation/NAME/ (metrics.json, scans.csv, slices.csv,\n"
        "predictions/) for each method, METHOD/history.csv and run.json of the trainings, and cohort/.\n"
        "What is missing is left out and noted in the report. An optional RUN_DIR/report.yaml sets `title`,\n"
        "`methods` (a list, or name: title, in order; the first is the reference), `scans`, `cohort`,\n"
        "`depth_axis` and `depth_reversed`.",
        epilog="examples:\n"
        "  grn-monai report runs/demo\n"
        "  grn-monai report runs/demo --cohort data/cohort --out runs/demo/report --scans 1\n\n" + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder of the run")
    parser.add_argument("--cohort", metavar="PATH", help="cohort folder or file (default: RUN_DIR/cohort)")
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default: RUN_DIR)")
    parser.add_argument(
        "--scans", type=int, default=3, choices=range(4), help="scans to picture: median, worst, best (default: 3)"
    )
    _add_depth(parser)
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from grn_monai.report import build_report

    print(
        build_report(
            options.run_dir,
            options.cohort,
            options.out,
            scans=options.scans,
            depth_axis=options.depth_axis,
            depth_reversed=options.depth_reversed,
        )
    )
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grn-monai",
        description="Scores and reports of layer segmentations of the back. Training and inference are MONAI\n"
        "bundles: python -m monai.bundle run --config_file bundles/NAME/configs/train.yaml",
        epilog="`grn-monai COMMAND --help` shows examples.\n" + _EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"grn-monai {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_evaluate, _add_report):
        add(commands)
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
