"""What the bundles' own pages and metadata say of measured results; `python -m benchmarks.readme` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from benchmarks._pages import markdown, write_blocks
from grn_monai.files import write_whole

ROOT = Path(__file__).parents[1]
BUNDLES: dict[str, str | None] = {
    "us_layers_supervised": "unet",
    "us_layers_grn_plus": "grn_plus_joint",
    "us_layers_grn_sel": "grn_sel_alternate",
    "us_layers_grn_ssl": "grn_ssl_alternate",
    "us_layers_semi": None,
}
"""Each bundle, and the method of `benchmarks.methods` that is its default; None: it has none there."""
WIDTHS = (12, 20, 64)
SOURCE = (
    "Measured by `python -m benchmarks.methods`, with weights that are not in the bundle. `eval_metrics` in\n"
    "`metadata.json` holds the default's means of this table."
)
STUDY = "Compared with each other and with the other bundles by `grn-monai study`: docs/study.md of the project."


def eval_metrics(bundle: str, methods: dict[str, Any]) -> dict[str, float]:
    """Mean Dice of the bundle's default over the seeds, with S alone and with SGE: what metadata.json says."""
    names = {"raw": "", "sge": "_sge"}
    return {
        f"simulated_test_mean_dice{names[mode]}_{kind}": round(group[kind]["mean"], 4)
        for mode in names
        if (group := methods["summary"].get(f"{BUNDLES[bundle]}/{mode}"))
        for kind in ("slice", "decoded")
    }


def of_bundle(bundle: str, methods: dict[str, Any]) -> dict[str, Any]:
    """The study's result with the bundle's own methods and the U-Net alone."""
    start = str(BUNDLES[bundle]).rsplit("_", 1)[0]
    summary = {k: v for k, v in methods["summary"].items() if k.startswith(("unet/", f"{start}_"))}
    return {**methods, "summary": summary}


def parameters_table(bundle: str) -> str:
    """Parameters of each network, counted, by the width of G."""
    config = ROOT / "bundles" / bundle / "configs" / "train.yaml"
    counts: dict[str, list[str]] = {}
    widths = WIDTHS if "grn" in bundle else WIDTHS[:1]
    for width in widths:
        parser = ConfigParser()
        parser.read_config(str(config))
        parser["base_channels"] = width
        parts = {"G": "generator_def", "S": "segmentor_def", "D": "discriminator_def"}
        for name, key in parts.items():
            # The U-Net alone has no name for its part.
            key = key if key in parser.get() else "network_def" if name == "S" else ""
            if key:
                network = parser.get_parsed_content(key)
                counts.setdefault(name, []).append(f"{sum(p.numel() for p in network.parameters()):,}")
    titles = {"G": "generator G", "S": "segmentor S", "D": "discriminator D (training only)"}
    head = ["parameters", *(f"`base_channels` {w}" for w in widths)] if len(widths) > 1 else ["", "parameters"]
    rows = [head, ["---"] + ["---:"] * len(widths), *([titles[name], *cells] for name, cells in counts.items())]
    return markdown(rows)


def cost(bundle: str, training: dict[str, Any], inference: dict[str, Any]) -> str:
    """Sentences on time and memory; what was not measured for a bundle is left out."""
    method = BUNDLES[bundle] or "unet"
    step = {"unet": "unet", "grn_plus_joint": "grn_plus_20_bf16", "grn_sel_alternate": "grn_sel_20_bf16_alternate",
            "grn_ssl_alternate": "grn_ssl_20_bf16_alternate"}[method]  # fmt: skip
    kind = "float32" if step == "unet" else "bfloat16"
    ratio = "" if step == "unet" else f", {training['ratio_to_unet'][step]:.1f} times the U-Net's in float32"
    text = (
        f"A training step on {training['batch']} images at {training['size']} × {training['size']} takes "
        f"{training['seconds'][step]:.2f} s in {kind} on {training['threads']} CPU threads{ratio}."
    )
    if BUNDLES[bundle] is None:
        text += " That is the supervised step; the unlabelled images and the passes of the method come on top of it."
    elif step != "unet":
        x, y, z = inference["shape"]
        text += (
            f" One scan of {x} × {y} × {z} voxels takes {inference['seconds']['quality_20']:.1f} s from file to label "
            f"file with SGE and quality numbers, in float32 at `slice_size` 256 × 256 "
            f"or {inference['seconds']['bf16_20']:.1f} s in bfloat16 without the quality numbers; peak memory "
            f"{inference['memory']['quality_20']['peak_gib']:.2f} GiB. No GPU is needed."
        )
    return text


def tables(bundle: str, results: Path) -> dict[str, str]:
    """The blocks of a bundle's page by the name of their marker."""
    from benchmarks import networks
    from benchmarks.readme import methods_table  # which imports this module

    methods, training, inference = (
        json.loads((results / f"{name}.json").read_text()) for name in ("methods", "training_step", "inference")
    )
    more = {}
    measured = f"{methods_table(of_bundle(bundle, methods))}\n\n{SOURCE}" if BUNDLES[bundle] else STUDY
    if BUNDLES[bundle] == "unet":
        more["networks"] = networks.table(json.loads((results / "networks.json").read_text()))
    return {
        **more,
        "parameters": parameters_table(bundle),
        "performance": measured,
        "cost": cost(bundle, training, inference),
    }


def write(results: Path) -> None:
    """Write the blocks into each bundle's page, and its scores into its metadata."""
    methods = json.loads((results / "methods.json").read_text())
    for bundle in BUNDLES:
        folder = ROOT / "bundles" / bundle
        write_blocks(folder / "docs" / "README.md", tables(bundle, results))
        file = folder / "configs" / "metadata.json"
        metadata = json.loads(file.read_text()) | {"eval_metrics": eval_metrics(bundle, methods)}
        write_whole(file, json.dumps(metadata, indent=4, ensure_ascii=False) + "\n")
