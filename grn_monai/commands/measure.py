"""``grn-monai measure``."""

from __future__ import annotations

import argparse
from typing import Any

from grn_monai.commands.common import add_depth, add_parser, add_scans, bar, check_scans, outcome
from grn_monai.errors import count_scans, listed

__all__ = ["add"]

# Spelt out, as the checks' own module brings NumPy; a test compares the two.
_LIMITS = """quality checks and their limits:
  plane_disagreement 7, sge_disagreement 6,
  compared_disagreement 6                           % of tissue voxels
  out_of_order 25, layer_gaps 25, order_violations 0,
  field_of_view_bottom 5, field_of_view_top 5, dark_lines 5    % of A-lines
  layers_missing 0                                  labels"""


def _limit(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if not equals:
            raise ValueError
        return name.strip(), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not name=number, such as plane_disagreement=10") from None


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_parser(
        commands,
        "measure",
        help="measure layers in millimetres: thickness, volume, area, echo, sides, repeatability",
        description="Measure the label volumes in PREDICTIONS. Writes measurements.csv (one row for each scan and\n"
        "layer), scans.csv (quality, muscle area and fascia echogenicity of each scan), muscle_areas.csv (each\n"
        "slice), left_right.csv, repeatability.csv and bland_altman.png (where a site was scanned again),\n"
        "thickness maps, and measurements.json with everything else. The volume of scan NAME is found as\n"
        "NAME_seg.nii.gz or NAME.nii.gz, in PREDICTIONS or in a folder NAME there; NAME_quality.json beside\n"
        "it, which inference writes, gives the quality checks of the prediction.",
        epilog="examples:\n"
        "  grn-monai measure data/cohort runs/demo/evaluation/grn_plus/predictions --out runs/measured\n"
        "  grn-monai measure scans/ segmented/ --out measured --depth-axis A --limit plane_disagreement=10\n"
        "  grn-monai measure data/cohort --labels --section all --out truth\n\n" + _LIMITS,
    )
    add_scans(parser, "COHORT_OR_IMAGES")
    parser.add_argument(
        "--compare",
        metavar="OTHER",
        help="another folder of label volumes of the same scans, such as of S(x) where PREDICTIONS is of S(G(x)): adds "
        "the check compared_disagreement",
    )
    parser.add_argument(
        "--layers",
        action="store_true",
        help="the labels are layers in the order of depth: measure thickness. A dataset.json says so itself with "
        '"layers": true; the six layers of the low back need neither',
    )
    parser.add_argument("--no-normal", action="store_true", help="only thickness along the A-line")
    parser.add_argument(
        "--maps",
        default="png",
        choices=("png", "nifti", "both", "none"),
        help="thickness maps as pictures, as NIfTI, both or none (default: png)",
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        type=_limit,
        metavar="NAME=VALUE",
        help="limit of a quality check, such as plane_disagreement=10; may be given again",
    )
    add_depth(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    check_scans("measure", options)
    from grn_monai.measure.folders import measure_folders

    result = measure_folders(
        options.cohort,
        options.predictions,
        options.out,
        section=options.section,
        suffix=options.suffix,
        compare=options.compare,
        normal=not options.no_normal,
        maps=options.maps,
        limits=dict(options.limit),
        depth_axis=2 if options.depth_axis is None else options.depth_axis,
        depth_reversed=bool(options.depth_reversed),
        progress=bar,
        layers=options.layers,
    )
    for note in result.content["notes"]:
        print(note)
    scans = result.content["scans"]
    look = [scan["scan"] for scan in scans if scan["quality"]["status"] == "check"]
    print(f"{count_scans(len(scans))} measured, results in {options.out}")
    if look:
        print(f"to look at ({len(look)}, see `to_look_at` in scans.csv): {listed(look)}")
    return outcome(result.failures)
