"""``grn-monai pack``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grn_monai.commands.common import OK, add_parser

__all__ = ["add"]

ZOO_LIMIT = 25_000_000
"""The Model Zoo's repository takes no larger file; such a one is hosted elsewhere and named in large_files.yml."""


def add(commands: Any) -> None:
    """Adds the command."""
    parser = add_parser(
        commands,
        "pack",
        help="make the zip of a bundle with its trained weights",
        description="Make NAME_vVERSION.zip of a bundle, as the MONAI Model Zoo has it: one folder NAME with configs,\n"
        "docs, LICENSE and the trained weights. The options that the model was trained with (slice_size,\n"
        "base_channels, depth_axis, …) become the defaults of the configs in the zip; RUN/run.json tells them.\n"
        "Whoever has the zip and the package grn-monai can use it: unzip it, and monai.bundle.load(NAME,\n"
        "bundle_dir=…, workflow_type='inference') builds and fills the network. The metadata is checked; weights\n"
        "that do not fit the bundle, links and paths of this machine are refused; equal content gives equal bytes.",
        epilog="examples:\n"
        "  grn-monai pack bundles/us_layers_grn_plus --model runs/demo/grn_plus/models/model.pt --out dist\n"
        "  grn-monai pack bundles/us_layers_grn_plus --model runs/demo/grn_plus/models/model.pt --out dist \\\n"
        "      --evaluation runs/demo/evaluation/grn_plus_sge --data-source 'simulated scans'\n"
        "  grn-monai pack bundles/us_layers_supervised --no-weights",
    )
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")
    parser.add_argument(
        "--model",
        type=Path,
        metavar="RUN/models/model.pt",
        help="trained weights; model_raw.pt beside it comes along (default: BUNDLE/models/model.pt)",
    )
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="FOLDER",
        action="append",
        default=[],
        help="evaluation of these weights: it fills eval_metrics and the page's table (default: none). Again for "
        "another: S(x) of model_raw.pt beside S(G(x)) of model.pt",
    )
    parser.add_argument(
        "--data-source",
        metavar="TEXT",
        help="what the metadata says of the data that the weights were trained on (default: not stated)",
    )
    parser.add_argument("--no-weights", action="store_true", help="pack without weights; else none is an error")
    parser.add_argument(
        "--yaml",
        action="store_true",
        help="configs as YAML with their comments; monai.bundle.load then needs the network, since it looks for "
        "JSON alone",
    )
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from grn_monai.zoo.pack import pack_bundle

    made = pack_bundle(
        options.bundle,
        options.out,
        options.model,
        weights=not options.no_weights,
        evaluations=options.evaluation,
        as_json=not options.yaml,
        data_source=options.data_source,
    )
    for config, values in made["set"].items():
        for name, value in values.items():
            print(f"configs/{config.partition('.')[0]}: {name} set to {value}, as in the training")
    if made["weights"]:
        _tell_options(made)
    scores = ", ".join(f"{name} {value:.4f}" for name, value in made["eval_metrics"].items())
    print(f"weights: {', '.join(made['weights']) or 'none'}; eval_metrics: {scores or 'none'}")
    for name in made["entries"]:
        print(f"  {name}")
    if made["left_out"]:
        print(f"left out, since neither the bundles know them nor the page names them: {', '.join(made['left_out'])}")
    print(f"{made['file']}: {len(made['entries'])} files, {made['bytes'] / 2**20:.1f} MiB")
    if made["largest"] > ZOO_LIMIT:
        print("The zoo's repository takes no file above 25 MB: host the weights and name them in large_files.yml.")
    return OK


def _tell_options(made: Mapping[str, Any]) -> None:
    """Where the options of the training came from, with a warning where that was not the run's record."""
    source = made["options_from"]
    print(f"options of the training: {source or 'told by nothing'}")
    if source is None or Path(source).suffix != ".json":
        who = "only the checkpoint tells" if source else "nothing tells"
        left = f"; as the bundle has them: {', '.join(made['untold'])}" if made["untold"] else ""
        print(f"warning: no run.json beside the weights, {who} how they were trained{left}", file=sys.stderr)
