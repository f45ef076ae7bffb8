"""A bundle's configs with the overlay of a training in them, for weights of a network that the overlay defines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from grn_monai.files import write_whole
from grn_monai.zoo._configs import config_file, read_config, write_json

__all__ = ["merge_overlays", "overlay_of"]

NETWORK = "network_def"
_NEVER = frozenset({"train", "inference", "evaluate", "metadata", "multi_gpu_train"})


def _overlays(bundle: Path, network: Any) -> dict[Path, dict[str, Any]]:
    """Overlays of a bundle that define this network."""
    files = [f for f in sorted((bundle / "configs").glob("*.*")) if f.suffix in (".yaml", ".json")]
    contents = {file: read_config(file) for file in files if file.stem not in _NEVER}
    return {file: content for file, content in contents.items() if content.get(NETWORK) == network}


def overlay_of(bundle: Path, stem: str, config: Mapping[str, Any]) -> Path | None:
    """The overlay that makes the network of a run out of a bundle's config; None: it has that network, or none does.

    Args:
        bundle: folder of the bundle.
        stem: ``"train"`` (every id of the overlay is in the run) or ``"inference"`` (the overlay changes nothing of
            the training).
        config: the run's, as its ``run.json`` has it.
    """
    own = read_config(config_file(bundle, stem))
    if NETWORK not in config or own.get(NETWORK) == config[NETWORK]:
        return None
    for file, content in _overlays(bundle, config[NETWORK]).items():
        roots = {name.lstrip("+").partition("#")[0] for name in content}
        if stem == "train" and roots <= set(config):
            return file
        if stem == "inference" and not roots & {"train", "validate"}:
            return file
    return None


def merge_overlays(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Put the overlays of a run into the train and inference configs of a copy; comments of those are lost.

    Args:
        folder: the copy of the bundle.
        config: the run's.

    Returns:
        name of the config to that of the overlay; both have one, or none is changed and this is empty.
    """
    found = {stem: overlay_of(folder, stem, config) for stem in ("train", "inference")}
    if not all(found.values()):
        return {}
    merged = {}
    for stem, overlay in found.items():
        file = config_file(folder, stem)
        content = ConfigParser.load_config_files([str(file), str(overlay)])
        merged[file] = content
        found[stem] = overlay
    for file, content in merged.items():
        if file.suffix == ".json":
            write_json(file, content)
        else:
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=None)
            write_whole(file, f"# {file.name} and {Path(str(found[file.stem])).name} of the bundle in one.\n{text}")
    return {stem: Path(str(overlay)).name for stem, overlay in found.items()}
