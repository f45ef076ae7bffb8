"""``grn-monai evaluate``."""

from __future__ import annotations

import argparse
from typing import Any

from grn_monai.commands.common import add_depth, add_parser, bar, outcome
from grn_monai.errors import count_scans

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_parser(
        commands,
        "evaluate",
        help="score label volumes against a cohort's truth",
        description="Score the label volumes in PREDICTIONS against the truth of a cohort's test scans. Writes\n"
        "metrics.json (means, intervals), scans.csv (Dice, HD95, ASD and thickness error of every scan and\n"
        "layer) and, with --slices, slices.csv. The volume of scan images/NAME.nii.gz is found as\n"
        "NAME_seg.nii.gz or NAME.nii.gz, in PREDICTIONS or in a folder NAME there, and must lie on the grid\n"
        "of the truth.\n\n"
        "A cohort whose `labels` are not the six layers but muscles gets muscles.csv (Dice, Jaccard, conformity,\n"
        "TPR, TNR, PPV, volume ratio, volumes in ml, HD95 and ASD of every scan and muscle) and metrics.json;\n"
        "--kind, --slices and the depth options are for layers only. `grn-monai agreement` reads muscles.csv.",
        epilog="examples:\n"
        "  grn-monai evaluate data/cohort runs/demo/evaluation/unet/predictions --out runs/unet_scores\n"
        "  grn-monai evaluate data/cohort nnunet_out --out runs/demo/evaluation/nnunet --slices\n"
        "  grn-monai evaluate data/cohort/split.json out --out scores --section validation\n"
        "  grn-monai evaluate data/ct_cohort runs/ct/predictions --out runs/ct_scores --one-class",
    )
    parser.add_argument("cohort", metavar="COHORT", help="cohort folder with dataset.json, or such a JSON file")
    parser.add_argument("predictions", metavar="PREDICTIONS", help="folder of label volumes")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to write; made if missing")
    parser.add_argument(
        "--section", default="test", choices=("training", "validation", "test"), help="scans to score (default: test)"
    )
    parser.add_argument(
        "--kind",
        choices=("decoded", "volume"),
        help="what the volumes are: after the ordered-layer decode, or plain argmax (default: decoded)",
    )
    parser.add_argument("--slices", action="store_true", help="also score every slice of both planes")
    parser.add_argument("--one-class", action="store_true", help='muscles: score all of them as one, "lumbar muscle"')
    parser.add_argument("--suffix", default="_seg", help="what follows the scan's name (default: _seg)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap intervals (default: 0)")
    add_depth(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
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
        depth_axis=options.depth_axis,
        depth_reversed=bool(options.depth_reversed),
        one_class=options.one_class,
        progress=bar,
    )
    for kind, scores in result.summary.items():
        low_high = "" if not scores["subject_ci"] else " (subjects {:.3f} to {:.3f})".format(*scores["subject_ci"])
        mean = f"mean Dice {scores['mean']:.3f}" if scores["n"] else "no Dice: neither has any muscle"
        print(f"{kind}: {mean}{low_high}, N = {scores['n']}")
        for muscle, measures in scores.get("muscles", {}).items():
            print(f"  {muscle}: {_muscle_line(measures, scores['n_scans'])}")
    print(f"{count_scans(len(result.scans))} scored, results in {options.out}")
    return outcome(result.failures)


def _muscle_line(measures: dict[str, Any], scans: int) -> str:
    """What a reader wants to know first of a muscle; a muscle that is nowhere is said to be."""
    dice, volume, truth = (measures[key]["mean"] for key in ("dice", "volume_ml", "truth_volume_ml"))
    absent = [
        f"{what} has none in {count} of {count_scans(scans)}"
        for what, count in (
            ("truth", measures["n_absent_truth"]),
            ("prediction", measures["n_absent_prediction"]),
        )
        if count
    ]
    score = f"Dice {dice:.3f}" if measures["dice"]["n"] else "no Dice"
    return "; ".join([f"{score}, {volume:.1f} ml of {truth:.1f} ml", *absent])
