"""The `split` command."""

from __future__ import annotations

import argparse
from pathlib import Path

from grn_monai.errors import InputError

__all__ = ["add_parser", "parse_fraction"]

_EXAMPLES = """\
examples:
  python -m data_prep split runs/cohort --fraction 0.05
      writes runs/cohort/split_05.json: about 5 % of the training images keep their label
  python -m data_prep split runs/cohort --fraction 20% --seed 3
      another draw, into split_20_seed3.json
  python -m data_prep split runs/mine --sizes 16 2 11
      shares all subjects out again: 16 for training, 2 for validation, 11 for test, into split.json

Whole subjects are chosen, at least one, in an order that the seed decides, until their share of the images is
nearest to the fraction; those chosen at 5 % are among those chosen at 10 %. The other training scans become
`unlabeled`; validation and test stay. In a bundle: --split split_05.json.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `split` to the command line."""
    parser = commands.add_parser(
        "split",
        help="keep the labels of a share of the training subjects, or share the subjects out again",
        description="Write a split file for a cohort.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cohort", type=Path, help="cohort folder, or a JSON file of its layout")
    parser.add_argument("--fraction", metavar="F", help="share of labelled training images: 0.05, 5%% or 5")
    parser.add_argument("--seed", type=int, default=0, help="chooses the order of the subjects (default 0)")
    parser.add_argument(
        "--by", choices=("subject", "image"), default="subject",
        help="subject: all scans of a subject together (default); image: single scans, whoever they belong to",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="subjects in each section, made anew"
    )
    parser.add_argument(
        "--depth-axis", default="2", metavar="AXIS",
        help="where depth runs in the files, as in the bundles: 0, 1, 2 or one of L R A P S I (default 2, the last)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: inside the cohort)")
    parser.set_defaults(run=_run)


def parse_fraction(text: str) -> float:
    """Read `0.05`, `5%` or `5` (above 1 a number is a percentage; 1 is all) as a share in (0, 1].

    Raises:
        InputError: anything else.
    """
    bare = text.strip().removesuffix("%").strip()
    try:
        value = float(bare)
    except ValueError:
        value = float("nan")
    if bare != text.strip() or value > 1:
        value /= 100
    if not 0 < value <= 1:
        mend = "Write 5 % as 0.05, 5% or 5."
        raise InputError("--fraction", repr(text), "a share above 0 and up to 1, or a percentage", mend)
    return value


def _run(args: argparse.Namespace) -> int:
    from data_prep.split import write_split

    if args.fraction is None and args.sizes is None:
        mend = "Try --fraction 0.05."
        raise InputError("split", "neither --fraction nor --sizes", "one of them, or both", mend)
    fraction = 1.0 if args.fraction is None else parse_fraction(args.fraction)
    sizes = None if args.sizes is None else (args.sizes[0], args.sizes[1], args.sizes[2])
    depth_axis = int(args.depth_axis) if args.depth_axis.isdecimal() else args.depth_axis
    out, cohort = write_split(args.cohort, fraction, args.seed, args.by, sizes, args.out, depth_axis)
    split, labelled = cohort["split"], len(cohort["training"])
    print(f"{out}: {labelled} of {split['training_scans']} training scans keep their label,")
    print(f"  {100 * split['share']:.1f} % of the images (asked: {100 * fraction:g} %)")
    print(f"  labelled subjects: {', '.join(split['labelled_subjects'])}")
    sections = ("training", "validation", "test", "unlabeled")
    print("  " + ", ".join(f"{section} {len(cohort[section])}" for section in sections) + " scans")
    return 0
