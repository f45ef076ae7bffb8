"""The `simulate` command."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from data_prep.simulate.lumbar.settings import (
    MODALITIES,
    LumbarSettings,
    default_jitter,
    default_shape,
    default_spacing,
)
from data_prep.simulate.settings import (
    PUBLISHED_SCANS,
    PUBLISHED_SUBJECTS,
    Settings,
    share_out,
)
from grn_monai.errors import InputError

__all__ = ["add_parser", "lumbar_settings_from", "settings_from"]

_LUMBAR_SUBJECTS = (8, 2, 4)


def _sizes(values: tuple[float, ...]) -> str:
    return " × ".join(f"{v:g}" for v in values)


_EXAMPLES = f"""\
modalities:
  us   3D ultrasound of the back, labelled with its layers      {_sizes(Settings().shape)} voxels (the default)
  ct   axial CT of the lumbar spine, HU, 4 muscle labels        {_sizes(default_shape("ct"))} voxels of \
{_sizes(default_spacing("ct"))} mm
  mri  axial T2-like MR of the lumbar spine, 6 muscle labels    {_sizes(default_shape("mri"))} voxels of \
{_sizes(default_spacing("mri"))} mm, drawn from ±{100 * default_jitter("mri"):g} %

examples:
  python -m data_prep simulate --out runs/cohort
      the cohort of the GRN papers: 29 subjects, 69 scans, 16/2/11 subjects in training/validation/test
  python -m data_prep simulate --out runs/small --subjects 6 --scans 8 --shape 64 64 128
      a small cohort; its subjects are shared out in the same proportion
  python -m data_prep simulate --out runs/mine --split 8 2 4 --split-scans 20 4 8 --seed 1
      your own sizes
  python -m data_prep simulate --modality ct --out runs/ct
      CT of 14 subjects (8/2/4), one scan each
  python -m data_prep simulate --modality mri --out runs/mri --split 4 1 2 --shape 96 96 8
      a small MR cohort: fewer and larger voxels of the same region

The same options give the same bytes, whatever --workers. A run that was stopped goes on when the same
command is repeated. The folder then holds images/, labels/, dataset.json, simulation.json (every number
that was drawn) and preview.png; for ct and mri also truth/ (volume and fat share of each muscle, which
simulation.json repeats). What is simulated, and how: docs/simulator.md.
"""

# Options of one kind of modality only: what a user gave for the other is an error, not ignored.
_ULTRASOUND_ONLY = {
    "scans": "--scans",
    "split_scans": "--split-scans",
    "extent": "--extent",
    "repeats": "--repeats",
    "dynamic_range": "--dynamic-range",
}
_LUMBAR_ONLY = {"spacing": "--spacing", "spacing_jitter": "--spacing-jitter"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `simulate` to the command line."""
    parser = commands.add_parser(
        "simulate",
        help="make a cohort of simulated low-back ultrasound, CT or MR volumes with labels",
        description="Simulate labelled volumes of the low back: 3D B-mode (row-column array, 6 MHz), CT or MR.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--modality", choices=("us", *MODALITIES), default="us", help="what to simulate (default us)")
    parser.add_argument("--out", type=Path, required=True, help="cohort folder to make, or to go on with")
    parser.add_argument("--subjects", type=int, metavar="N", help="number of subjects (default 29; ct and mri 14)")
    parser.add_argument(
        "--split", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"),
        help="subjects in each section (16 2 11; ct and mri 8 2 4)",
    )  # fmt: skip
    parser.add_argument(
        "--shape", type=int, nargs=3, metavar=("X", "Y", "Z"),
        help="voxels; Z is depth in ultrasound (default 128 128 256), and counts the axial slices of ct and mri",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument(
        "--workers", type=int, default=min(cores, 8), metavar="N",
        help="processes, each of about 0.5 GB at full size (default: one per core, 8 at most)",
    )  # fmt: skip
    _add_ultrasound(parser.add_argument_group("ultrasound only"))
    _add_lumbar(parser.add_argument_group("ct and mri only"))
    parser.set_defaults(run=_run)


def _add_ultrasound(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--scans", type=int, metavar="N", help="number of scans (default 69, or as many per subject)")
    group.add_argument(
        "--split-scans", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="scans in each (44 2 23)"
    )
    group.add_argument(
        "--extent", type=float, nargs=3, metavar=("X", "Y", "Z"),
        help="size of the volume in mm (default 25.6 25.6 38.4)",
    )  # fmt: skip
    group.add_argument(
        "--repeats", type=int, metavar="N",
        help="scans of each place, for repeatability; --scans counts places then (default 1)",
    )  # fmt: skip
    group.add_argument(
        "--dynamic-range", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="bounds of the displayed dynamic range in dB (default 42 58)",
    )  # fmt: skip


def _add_lumbar(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="voxel size in mm (default: keeps the extent; see modalities)",
    )
    group.add_argument(
        "--spacing-jitter", type=float, metavar="SHARE",
        help="draw each scan's in-plane spacing from ±SHARE, its slice distance from −SHARE…0 "
        f"(default {default_jitter('ct'):g} for ct, {default_jitter('mri'):g} for mri)",
    )  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    # Late, so that `--help` does not wait for matplotlib.
    if args.modality == "us":
        from data_prep.simulate.cohort import simulate_cohort

        settings = settings_from(args)
        made = len(simulate_cohort(args.out, settings, args.workers))
        total = sum(settings.split_scans) * settings.repeats
    else:
        from data_prep.simulate.lumbar import simulate_lumbar

        lumbar = lumbar_settings_from(args)
        made, total = len(simulate_lumbar(args.out, lumbar, args.workers)), sum(lumbar.split)
    kept = f", {total - made} were there already" if made < total else ""
    print(f"{args.out}: {made} of {total} scans simulated{kept}; look at {args.out / 'preview.png'}")
    return 0


def _refuse(args: argparse.Namespace, others: dict[str, str], owner: str) -> None:
    """Raise where an option of the other modalities was given."""
    given = [option for name, option in others.items() if getattr(args, name) is not None]
    if given:
        raise InputError(
            ", ".join(given), f"--modality {args.modality} with it", f"--modality {owner}", "Leave it out."
        )


def lumbar_settings_from(args: argparse.Namespace) -> LumbarSettings:
    """Fill in the sizes of a CT or MR cohort that were not given.

    Raises:
        InputError: options of ultrasound, sizes that contradict each other, or other impossible options.
    """
    _refuse(args, _ULTRASOUND_ONLY, "us")
    split = _triple(args.split)
    if split is None:
        count = args.subjects if args.subjects is not None else sum(_LUMBAR_SUBJECTS)
        split = _default_split(count, _LUMBAR_SUBJECTS)
    elif args.subjects is not None:
        _agree("--split", sum(split), "--subjects", args.subjects)
    return LumbarSettings(
        modality=args.modality,
        split=split,
        shape=_triple(args.shape),
        spacing_mm=None if args.spacing is None else tuple(args.spacing),
        seed=args.seed,
        spacing_jitter=args.spacing_jitter,
    )


def settings_from(args: argparse.Namespace) -> Settings:
    """Fill in the sizes that were not given: the published ones, or others in proportion.

    Raises:
        InputError: options of CT and MR, sizes that contradict each other, or other impossible options.
    """
    _refuse(args, _LUMBAR_ONLY, " or ".join(MODALITIES))
    split = _triple(args.split)
    subjects = args.subjects if args.subjects is not None else (sum(split) if split else 29)
    if split is None:
        split = _default_split(subjects, PUBLISHED_SUBJECTS)
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
    given = {
        "shape": _triple(args.shape),
        "extent_mm": None if args.extent is None else tuple(args.extent),
        "dynamic_range_db": None if args.dynamic_range is None else tuple(args.dynamic_range),
        "repeats": args.repeats,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return Settings(split=split, split_scans=split_scans, seed=args.seed, **chosen)


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


def _default_split(subjects: int, parts: tuple[int, int, int]) -> tuple[int, int, int]:
    """Share subjects out in proportion, with at least one in each section from three subjects on."""
    if subjects < 1:
        raise InputError("--subjects", str(subjects), "at least 1", "Give the number of subjects.")
    least = (1, int(subjects >= 3), int(subjects >= 2))
    return share_out(subjects, parts, least)
