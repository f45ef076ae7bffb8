"""``grn-monai muscle``."""

from __future__ import annotations

import argparse
from typing import Any

from grn_monai.commands.common import add_parser, add_scans, bar, check_scans, outcome
from grn_monai.errors import count_scans, listed

__all__ = ["add"]


def _threshold(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text  # a word, which the settings judge


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_parser(
        commands,
        "muscle",
        help="muscle health in CT and MR: area, volume, density, fat infiltration, left and right",
        description="Measure the muscles in the label volumes of PREDICTIONS. Writes muscles.csv (one row for each\n"
        "scan and muscle), areas.csv (each axial slice), levels.csv (vertebral levels), sides.csv (left against\n"
        "right), muscle.json with everything, and pictures/. The volume of scan NAME is found as NAME_seg.nii.gz or\n"
        "NAME.nii.gz, in PREDICTIONS or in a folder NAME there. A muscle without a voxel has a row that says\n"
        "`nothing found`, with empty numbers.",
        epilog="examples:\n"
        "  grn-monai muscle data/ct runs/ct/predictions --out runs/ct/muscle --surfaces\n"
        "  grn-monai muscle data/mri --labels --section all --threshold gaussian --bias-correction --out truth\n"
        "  grn-monai muscle scans/ segmented/ --modality ct --names totalsegmentator --levels levels.csv --out m",
    )
    add_scans(parser, "COHORT_OR_SCANS")
    parser.add_argument("--modality", choices=("ct", "mri"), help="default: the cohort's own")
    parser.add_argument(
        "--names",
        help="what the labels are called: lumbar, ct, mri, totalsegmentator, a JSON file (a cohort's, a bundle's "
        "metadata.json), or such as 1=psoas left,2=psoas right; other labels are left out (default: the cohort's own)",
    )
    parser.add_argument(
        "--levels",
        metavar="CSV",
        help="vertebral levels, in columns scan, level, position_mm (along S); default: the `levels` of the cohort",
    )
    parser.add_argument(
        "--average", type=int, default=0, metavar="N", help="average N slices on each side of a level (default: 0)"
    )
    parser.add_argument(
        "--erode-mm",
        type=float,
        default=0.0,
        metavar="MM",
        help="leave voxels this near to the edge out of density and fat (default: 0)",
    )
    ct = parser.add_argument_group("CT", "ranges in whole HU, both ends included (sources: docs/muscle_health.md)")
    for name, low, high in (("normal", 30, 150), ("low", -29, 29), ("fat", -190, -30)):
        words = {"normal": "normal attenuation", "low": "low attenuation", "fat": "fat"}[name]
        ct.add_argument(
            f"--{name}-hu",
            type=float,
            nargs=2,
            default=(low, high),
            metavar=("LOW", "HIGH"),
            help=f"{words} (default: {low} {high})",
        )
    mr = parser.add_argument_group("MR", "fat is bright; the threshold is found scan by scan")
    mr.add_argument(
        "--threshold",
        type=_threshold,
        default="otsu",
        metavar="HOW",
        help="otsu, gaussian (a mixture of two), or a grey value above which a voxel is fat (default: otsu)",
    )
    mr.add_argument(
        "--margin-mm",
        type=float,
        default=5.0,
        metavar="MM",
        help="how far around the muscles grey values are taken for it (default: 5)",
    )
    mr.add_argument("--bias-correction", action="store_true", help="take out the bias field first (N4)")
    parser.add_argument("--no-pictures", action="store_true", help="tables only")
    parser.add_argument("--surfaces", action="store_true", help="render the muscles in 3D (needs PyVista)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    check_scans("muscle", options)
    from grn_monai.measure.muscle.folders import measure_muscle_folders
    from grn_monai.measure.muscle.settings import MuscleSettings

    settings = MuscleSettings(
        normal_hu=tuple(options.normal_hu),
        low_hu=tuple(options.low_hu),
        fat_hu=tuple(options.fat_hu),
        threshold=options.threshold,
        margin_mm=options.margin_mm,
        bias_correction=options.bias_correction,
        erode_mm=options.erode_mm,
        average=options.average,
    )
    result = measure_muscle_folders(
        options.cohort,
        options.predictions,
        options.out,
        section=options.section,
        suffix=options.suffix,
        modality=options.modality,
        names=options.names,
        levels=options.levels,
        settings=settings,
        pictures=not options.no_pictures,
        surfaces=options.surfaces,
        progress=bar,
    )
    for note in result.notes:
        print(note)
    scans = result.content["scans"]
    print(f"{count_scans(len(scans))} measured, results in {options.out}")
    nothing = [scan["scan"] for scan in scans if not scan["found"]]
    look = [scan["scan"] for scan in scans if scan["found"] and any(muscle["check"] for muscle in scan["muscles"])]
    if nothing:
        print(f"nothing found in {count_scans(len(nothing))}: {listed(nothing)}")
    if look:
        print(f"to look at ({len(look)}, see `check` in muscles.csv): {listed(look)}")
    return outcome(result.failures)
