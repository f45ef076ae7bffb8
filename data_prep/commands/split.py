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
  python -m data_prep split runs/mri --folds 3
      three-fold cross-validation by subject: fold_1.json, fold_2.json and fold_3.json; each subject is tested in
      one of them, and of the others a tenth (--validation 0.1) validates

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
    parser.add_argument("--folds", type=int, metavar="N", help="cross-validation by subject: a file for each fold")
    parser.add_argument(
        "--validation",
        metavar="F",
        help="with --folds: share of the training subjects who validate (default 0.1; 0: none)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="file to write, with --folds a folder (default: inside the cohort)"
    )
    parser.set_defaults(run=_run)


def parse_fraction(text: str, option: str = "--fraction") -> float:
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
        raise InputError(option, repr(text), "a share above 0 and up to 1, or a percentage", mend)
    return value


def _run_folds(args: argparse.Namespace) -> int:
    from data_prep.split import write_folds

    given = [("--fraction", args.fraction), ("--sizes", args.sizes), ("--by image", args.by == "image" or None)]
    if names := [name for name, value in given if value is not None]:
        mend = "Leave it out; the bundles take a `fraction` of a fold's labels."
        raise InputError("split", f"--folds with {names[0]}", "--folds alone", mend)
    none = args.validation is not None and args.validation.strip() in ("0", "0.0", "0%")
    share = 0.0 if none else 0.1 if args.validation is None else parse_fraction(args.validation, "--validation")
    made = write_folds(args.cohort, args.folds, args.seed, share, args.out)
    for out, cohort in made:
        split = cohort["split"]
        subjects = ", ".join(f"{section} {count}" for section, count in split["subjects"].items())
        print(f"{out}: subjects: {subjects}")
        print(f"  tested: {', '.join(split['test_subjects'])}")
        if split["unlabelled_left_out"]:
            print(f"  {split['unlabelled_left_out']} unlabelled scans of subjects who test or validate are left out")
    later = made[0][0].with_name(f"fold_{args.folds + 1}.json")
    if later.exists():
        print(f"note: {later} is of another cross-validation")
    return 0


def _run(args: argparse.Namespace) -> int:
    from data_prep.split import write_split

    if args.folds is not None:
        return _run_folds(args)
    if args.validation is not None:
        raise InputError("split", "--validation without --folds", "both, or neither", "Try --folds 3.")
    if args.fraction is None and args.sizes is None:
        mend = "Try --fraction 0.05."
        raise InputError("split", "neither --fraction nor --sizes", "one of them, both, or --folds", mend)
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
