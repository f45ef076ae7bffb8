"""`grn-monai label`: serve the bundles in MONAI Label."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grn_monai.commands.common import OK, add_parser
from grn_monai.errors import InputError

if TYPE_CHECKING:
    from grn_monai.monailabel.layout import Layout

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the subcommand to the subparsers of `grn_monai.cli`."""
    parser = add_parser(
        commands,
        "label",
        help="serve the bundles in MONAI Label, for 3D Slicer",
        description="Serves trained bundles in MONAI Label: segmentation with and without SGE, training on the labels\n"
        "that are saved, and the scan to label next by the disagreement of its predictions. Needs the environment of\n"
        "MONAI Label (`make label` sets it up and runs this command there). Nothing is downloaded.",
        epilog="examples:\n"
        "  grn-monai label --runs runs --studies runs/demo/cohort --out runs/label\n"
        "  grn-monai label --model us_layers_grn_plus=RUN --studies FOLDER_OF_SCANS --out runs/label\n"
        "  grn-monai label --runs runs --studies http://127.0.0.1:8042/dicom-web --modality US --out runs/label\n"
        "  grn-monai label --runs runs --studies ct_cohort --out runs/label_ct\n"
        "\n"
        "A bundle without a trained model is named, and not served, and so is one for scans of another modality than\n"
        "the cohort's. All that are served together label alike. The scans of a cohort are copied to OUT/studies,\n"
        "where MONAI Label saves labels (labels/final); other folders are served in place. Weights that were trained\n"
        "in OUT stay there when the command is given again; --fresh starts from the runs, and moves what was there to\n"
        "OUT/before-N.",
    )
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), metavar="DIR", help="folder of the bundles")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="searched for trained models")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=RUN", help="training to take for a bundle (repeatable)"
    )
    parser.add_argument("--studies", required=True, metavar="WHERE", help="cohort, folder of scans, or DICOMweb URL")
    parser.add_argument(
        "--sections",
        nargs="+",
        default=["training", "unlabeled"],
        metavar="NAME",
        help="sections of a cohort to serve (default: training unlabeled; labelled test scans would be trained on)",
    )
    parser.add_argument(
        "--modality", metavar="US|CT|MR", help="of the scans: bundles and series of others are left out"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/label"), metavar="DIR", help="app and studies")
    parser.add_argument("--fresh", action="store_true", help="begin anew; what is in OUT goes to OUT/before-N")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--conf", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="of the app")
    parser.add_argument("--prepare-only", action="store_true", help="lay out, do not start the server")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Lay out and serve. Returns 0 when the server was stopped.

    Raises:
        InputError: no trained bundle, bad studies, MONAI Label is not installed, or the port is taken.
    """
    from grn_monai.monailabel.layout import find_runs, lay_out, only_one
    from grn_monai.monailabel.serve import check_port, serve

    bundles = sorted(p.parents[1] for p in options.bundles.glob("*/configs/metadata.json"))
    if not bundles:
        raise InputError(options.bundles, "no bundle", "folders NAME with configs/metadata.json", "Correct --bundles.")
    runs = find_runs(options.runs, bundles, skip=options.out)
    for given in options.model:
        name, _, folder = given.partition("=")
        known = [bundle.name for bundle in bundles]
        if name not in known or not folder:
            mend = "Give such as us_layers_grn_plus=runs/demo/grn_plus."
            raise InputError("--model", repr(given), f"NAME=RUN with NAME of {', '.join(known)}", mend)
        runs[name] = Path(folder)
    if not options.prepare_only:
        check_port(options.host, options.port)
    with only_one(options.out):
        conf = dict(options.conf)
        models = [name.strip() for name in conf.get("models", "").split(",") if name.strip()]
        kinds = [name.strip() for name in (options.modality or "").split(",") if name.strip()]
        layout = lay_out(options.out, bundles, runs, options.studies, options.sections, options.fresh, models, kinds)
        _tell(layout)
        if not options.prepare_only:
            serve(layout.app, layout.studies, options.host, options.port, conf, options.modality)
    return OK


def _tell(layout: Layout) -> None:
    for name, run_folder in layout.served.items():
        kept = ", as it is in the app" if name in layout.kept else ""
        newer = f" (there is another training, {layout.newer[name]}: --fresh takes it)" if name in layout.newer else ""
        print(f"{name}: weights of {run_folder}{kept}{newer}")
    for name, reason in layout.not_served.items():
        print(f"{name}: not served, {reason}")
    if layout.images is not None:
        print(f"studies: {layout.studies}, {layout.images} scans, {layout.labelled} of them with labels", flush=True)
