"""``grn-monai seg``."""

from __future__ import annotations

import argparse
from typing import Any

from grn_monai.commands.common import add_parser, bar, outcome
from grn_monai.errors import count_scans

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_parser(
        commands,
        "seg",
        help="give label volumes back as DICOM segmentations",
        description="Write the label volumes in PREDICTIONS in the format that their scans came in: NAME_seg.dcm, a\n"
        "DICOM segmentation that refers to the scan's own files, where the scan was DICOM, and a copy of the\n"
        "label volume otherwise. The link file tells which files a scan came from; `python -m data_prep\n"
        "convert` writes it beside the cohort. The scans' own files have to be where they were converted from;\n"
        "the cohort is not needed any more. A DICOM segmentation carries the patient and study of its\n"
        "scan: keep it where the scan is kept.",
        epilog="examples:\n"
        "  grn-monai seg runs/us/predictions --link cohort.link.json --out private/segmentations\n"
        "  grn-monai seg runs/ct/predictions --link ct.link.json --out private/segmentations \\\n"
        "      --labels-from data/ct/dataset.json",
    )
    parser.add_argument("predictions", metavar="PREDICTIONS", help="folder of label volumes")
    parser.add_argument("--link", required=True, metavar="LINK.json", help="link file of the conversion")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to write; made if missing")
    parser.add_argument(
        "--labels-from", metavar="FILE", help="dataset.json that names the labels (default: that of the cohort)"
    )
    parser.add_argument("--suffix", default="_seg", help="what follows the scan's name (default: _seg)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from grn_monai.dicom.folders import return_segmentations

    result = return_segmentations(
        options.predictions,
        options.link,
        options.out,
        labels_from=options.labels_from,
        suffix=options.suffix,
        progress=bar,
    )
    for name, note in result.notes.items():
        print(f"{name}: {note}")
    print(f"{count_scans(len(result.files))} written to {options.out}")
    return outcome(result.failures)
