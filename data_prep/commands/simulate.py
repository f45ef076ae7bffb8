"""The `simulate` command."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from data_prep.simulate.settings import (
    PUBLISHED_SCANS,
    PUBLISHED_SUBJECTS,
    Settings,
    share_out,
)
from grn_monai.errors import InputError

__all__ = ["add_parser", "settings_from"]

_EXAMPLES = """\
examples:
  python -m data_prep simulate --out runs/cohort
      the cohort of the GRN papers: 29 subjects, 69 scans, 16/2/11 subjects in training/validation/test
  python -m data_prep simulate --out runs/small --subjects 6 --scans 8 --shape 64 64 128
      a small cohort; its subjects are shared out in the same proportion
  python -m data_prep simulate --out runs/mine --split 8 2 4 --split-scans 20 4 8 --seed 1
      your own sizes

The same options give the same bytes, whatever --workers. A run that was stopped goes on when the same
command is repeated. The folder then holds images/, labels/, dataset.json, simulation.json (every number
that was drawn) and preview.png. What is simulated, and how: docs/simulator.md.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `simulate` to the command line."""
    parser = commands.add_parser(
        "simulate",
        help="make a cohort of simulated low-back ultrasound volumes with layer labels",
        description="Simulate 3D B-mode volumes of the low back (row-column array, 6 MHz) with layer labels.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="cohort folder to make, or to go on with")
    parser.add_argument("--subjects", type=int, metavar="N", help="number of subjects (default 29)")
    parser.add_argument("--scans", type=int, metavar="N", help="number of scans (default 69, or as many per subject)")
    parser.add_argument(
        "--split", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="subjects in each section (16 2 11)"
    )
    parser.add_argument(
        "--split-scans", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="scans in each (44 2 23)"
    )
    parser.add_argument(
        "--shape", type=int, nargs=3, default=[128, 128, 256], metavar=("X", "Y", "Z"),
        help="voxels, Z is depth (default 128 128 256)",
    )  # fmt: skip
    parser.add_argument(
        "--extent", type=float, nargs=3, default=[25.6, 25.6, 38.4], metavar=("X", "Y", "Z"),
        help="size of the volume in mm (default 25.6 25.6 38.4)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=int, default=1, metavar="N",
        help="scans of each place, for repeatability; --scans counts places then (default 1)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    parser.add_argument(
        "--dynamic-range", type=float, nargs=2, default=[42.0, 58.0], metavar=("LOW", "HIGH"),
        help="bounds of the displayed dynamic range in dB (default 42 58)",
    )  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--workers", type=int, default=min(cores, 8), metavar="N",
        help="processes, each of about 0.5 GB at full size (default: one per core, 8 at most)",
    )  # fmt: skip
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    # Late, so that `--help` does not wait for matplotlib.
    from data_prep.simulate.cohort import simulate_cohort

    settings = settings_from(args)
    made = simulate_cohort(args.out, settings, args.workers)
    total = sum(settings.split_scans)
    kept = f", {total - len(made)} were there already" if len(made) < total else ""
    print(f"{args.out}: {len(made)} of {total} scans simulated{kept}; look at {args.out / 'preview.png'}")
    return 0


def settings_from(args: argparse.Namespace) -> Settings:
    """Fill in the sizes that were not given: the published ones, or others in proportion.

    Raises:
        InputError: sizes that contradict each other, or other impossible options.
    """
    split = _triple(args.split)
    subjects = args.subjects if args.subjects is not None else (sum(split) if split else 29)
    if split is None:
        split = _default_split(subjects)
    _agree("--split", sum(split), "--subjects", subjects)
    split_scans = _triple(args.split_scans)
    if split_scans is None:
        scans = args.scans if args.scans is not None else max(subjects, round(69 * subjects / 29))
        if scans < subjects:
            mend = "Ask for more scans or fewer subjects."
            raise InputError("--scans", f"{scans} for {subjects} subjects", "one or more for each", mend)
        published = split == PUBLISHED_SUBJECTS and scans == sum(PUBLISHED_SCANS)
        split_scans = PUBLISHED_SCANS if published else share_out(scans, split, least=split)
    elif args.scans is not None:
        _agree("--split-scans", sum(split_scans), "--scans", args.scans)
    low, high = args.dynamic_range
    return Settings(
        split=split,
        split_scans=split_scans,
        shape=tuple(args.shape),
        extent_mm=tuple(args.extent),
        seed=args.seed,
        dynamic_range_db=(low, high),
        repeats=args.repeats,
    )


def _triple(values: list[int] | None) -> tuple[int, int, int] | None:
    if values is None:
        return None
    first, second, third = values
    return first, second, third


def _agree(option: str, total: int, other: str, count: int) -> None:
    if total != count:
        raise InputError(
            option, f"{total} in all", f"{count}, as {other} says", f"Leave out {other}, or make them agree."
        )


def _default_split(subjects: int) -> tuple[int, int, int]:
    """16 : 2 : 11, with at least one subject in each section from three subjects on."""
    if subjects < 1:
        raise InputError("--subjects", str(subjects), "at least 1", "Give the number of subjects.")
    least = (1, int(subjects >= 3), int(subjects >= 2))
    return share_out(subjects, PUBLISHED_SUBJECTS, least)
