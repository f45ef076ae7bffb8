"""``grn-monai pack``."""

from __future__ import annotations

import argparse
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
        "Whoever has the zip and the package grn-monai can use it: unzip it, or monai.bundle.download with its\n"
        "URL. The metadata is checked, weights that do not fit the bundle are refused, and equal content gives\n"
        "equal bytes.",
        epilog="examples:\n"
        "  grn-monai pack bundles/us_layers_grn_plus --model runs/demo/grn_plus/models/model.pt --out dist\n"
        "  grn-monai pack bundles/us_layers_grn_plus --model runs/demo/grn_plus/models/model.pt --out dist \\\n"
        "      --evaluation runs/demo/evaluation/grn_plus_sge\n"
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
        help="evaluation of that model; its metrics.json fills eval_metrics (default with --model: none)",
    )
    parser.add_argument("--no-weights", action="store_true", help="pack without weights; else none is an error")
    parser.add_argument(
        "--json",
        action="store_true",
        help="configs as JSON, as most of the zoo has them: comments go, but monai.bundle.load builds the network by "
        "itself",
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
        evaluation=options.evaluation,
        as_json=options.json,
    )
    for config, values in made["set"].items():
        for name, value in values.items():
            print(f"configs/{config}: {name} set to {value}, as in the training")
    scores = ", ".join(f"{name} {value:.4f}" for name, value in made["eval_metrics"].items())
    print(f"weights: {', '.join(made['weights']) or 'none'}; eval_metrics: {scores or 'none'}")
    print(f"{made['file']}: {len(made['entries'])} files, {made['bytes'] / 2**20:.1f} MiB")
    if made["largest"] > ZOO_LIMIT:
        print("The zoo's repository takes no file above 25 MB: host the weights and name them in large_files.yml.")
    return OK
