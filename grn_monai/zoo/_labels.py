"""What a bundle labels, by its metadata; and metadata that follow a training with other labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from grn_monai.errors import InputError
from grn_monai.zoo._configs import config_file, read_config, write_json

__all__ = ["follow_labels", "is_single", "label_names", "modality_of"]


def _metadata(bundle: Path) -> dict[str, Any]:
    return read_config(bundle / "configs" / "metadata.json")


def _first(bundle: Path, content: Mapping[str, Any], side: str) -> dict[str, Any]:
    try:
        return dict(next(iter(content["network_data_format"][side].values())))
    except (KeyError, AttributeError, TypeError, StopIteration) as error:
        mend = "Restore the file."
        raise InputError(bundle / "configs" / "metadata.json", f"no {side}", "network_data_format", mend) from error


def label_names(bundle: Path) -> dict[int, str]:
    """Label value to name of what a bundle predicts, 0 for background, by ``channel_def`` of its first output.

    A network with one sigmoid output has no channel for the background: its only channel is label 1.

    Raises:
        InputError: the metadata are missing or damaged.
    """
    channels = _first(bundle, _metadata(bundle), "outputs").get("channel_def") or {}
    named = {int(channel): str(name).lower() for channel, name in channels.items()}
    if "background" not in named.values():
        named = {channel + 1: name for channel, name in named.items()}
    return {0: "background", **{value: name for value, name in sorted(named.items()) if name != "background"}}


def is_single(names: Mapping[int, str]) -> bool:
    """Whether there is one structure and background, so that every label above 0 is that structure."""
    return len(names) == 2


def modality_of(bundle: Path) -> str:
    """What the bundle's scans are: ``"US"``, ``"CT"`` or ``"MR"``; "" where its metadata do not tell.

    Raises:
        InputError: the metadata are missing or damaged.
    """
    return str(_first(bundle, _metadata(bundle), "inputs").get("modality", "")).upper()


def follow_labels(folder: Path) -> None:
    """Have the metadata of a copy name what its inference config names as ``labels``, where that has such an id.

    Raises:
        InputError: the metadata or the config are missing or damaged.
    """
    parser = ConfigParser()
    parser.read_config(str(config_file(folder, "inference")))
    labels = parser.get_parsed_content("labels") if "labels" in parser.get() else None
    if not isinstance(labels, Mapping):
        return
    names = {int(value): str(name) for value, name in labels.items()}
    if label_names(folder) == {value: name.lower() for value, name in names.items()}:
        return
    content = _metadata(folder)
    key = next(iter(content["network_data_format"]["outputs"]))
    single = is_single(names)  # one sigmoid output
    channels = {"0": names[max(names)]} if single else {str(value): name for value, name in sorted(names.items())}
    pred = content["network_data_format"]["outputs"][key]
    content["network_data_format"]["outputs"][key] = pred | {"num_channels": len(channels), "channel_def": channels}
    listed = ", ".join(f"{value} {name}" for value, name in sorted(names.items()))
    content["label_classes"] = f"single-channel label volume: {listed}"
    content["pred_classes"] = f"{len(channels)} channels of logits; inference saves one channel of labels: {listed}"
    write_json(folder / "configs" / "metadata.json", json.loads(json.dumps(content)))
