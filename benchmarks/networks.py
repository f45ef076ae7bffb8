"""Parameters and FLOPs of the supervised bundle's networks, counted; for the bundle's page.

``.venv-deeplab/bin/python -m benchmarks.networks --out benchmarks/results/networks.json`` (`make setup-deeplab`), then
``python -m benchmarks.readme``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from grn_monai.files import write_whole
from grn_monai.networks import count_flops, count_parameters

CONFIGS = Path(__file__).parents[1] / "bundles" / "us_layers_supervised" / "configs"
SIZE = 256
TITLES = {
    "unet": "U-Net, the default",
    "network_segresnet": "SegResNet",
    "network_vnet": "V-Net",
    "network_swin_unetr_2d": "Swin UNETR",
    "network_deeplabv3plus": "DeepLabV3+, ResNet-50",
    "network_deeplabv3": "DeepLabV3, ResNet-50, 3 channels",
    "network_wide": "U-Net, wider: the parameters of S(G(x))",
    "network_wide_flops": "U-Net, wider: the FLOPs of S(G(x))",
    "network_full_resolution": "U-Net below a level of full resolution: the FLOPs of S(G(x))",
    "network_one_stage": "S(G(x)) as one network",
}


def count(name: str) -> dict[str, int]:
    """Parameters, and FLOPs of one image of 256 × 256, of the network that an overlay defines."""
    parser = ConfigParser()
    overlay = [] if name == "unet" else [str(CONFIGS / f"{name}.yaml")]
    parser.read_config([str(CONFIGS / "inference.yaml"), *overlay])
    network: Any = parser.get_parsed_content("network_def")
    return {"parameters": count_parameters(network), "flops": count_flops(network, (1, 1, SIZE, SIZE))}


def table(result: dict[str, Any]) -> str:
    """The counts as a table."""
    lines = [f"| overlay | network | parameters | GFLOPs at {SIZE} × {SIZE} |", "| --- | --- | ---: | ---: |"]
    for name, title in TITLES.items():
        counted = result[name]
        file = "" if name == "unet" else f"`{name}.yaml`"
        lines.append(f"| {file} | {title} | {counted['parameters']:,} | {counted['flops'] / 1e9:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write_whole(args.out, json.dumps({name: count(name) for name in TITLES}, indent=2) + "\n")


if __name__ == "__main__":
    main()
