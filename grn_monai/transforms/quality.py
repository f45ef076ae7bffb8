"""Numbers that tell how far a prediction can be trusted, and the file they go to."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from grn_monai.data.volume import scan_name
from grn_monai.errors import InputError
from grn_monai.files import write_whole
from grn_monai.measure.agreement import QUALITY_FORMAT, agreement, layer_order
from grn_monai.transforms.slices import PLANES, planes_within

__all__ = ["ArgmaxLabelsd", "SaveQualityd", "ScanQualityd", "SplitOutputsd", "argmax_labels", "counted_agreement"]


def argmax_labels(probabilities: torch.Tensor) -> torch.Tensor:
    """Most probable class of ``(K, ...)``, K ≤ 256, as uint8 ``(...)``; of equals the first, on every device.

    No temporary is larger than one channel; torch's argmax gives int64, eight bytes a voxel.
    """
    best = probabilities[0].clone()
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for label, other in enumerate(probabilities[1:], 1):
        labels.masked_fill_(other > best, label)
        torch.maximum(best, other, out=best)
    return labels


class SplitOutputsd(MapTransform):
    """Gives each part of a dictionary that stands under one key a key of its own.

    An inferer that returns more than a prediction returns a dictionary. MONAI's evaluators spread it over the item;
    MONAI Label puts it, as a whole, where the prediction belongs.

    Args:
        keys: one key of what the inferer returned; a tensor is left as it is.
        allow_missing_keys: pass over an item without the key.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Spreads the dictionary; its entry of the same name, such as ``"pred"``, takes its place.

        Raises:
            InputError: the dictionary has no such entry.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            if isinstance(d[key], Mapping):
                outputs = d.pop(key)
                if key not in outputs:
                    mend = "Name the key after the inferer's main output."
                    raise InputError("SplitOutputsd", f"outputs {sorted(outputs)}", f"one called {key!r}", mend)
                d.update(outputs)
        return d


class ArgmaxLabelsd(MapTransform):
    """Puts the plain argmax of class probabilities under another key, as uint8, and leaves the probabilities.

    Args:
        keys: one key of class probabilities ``(K, ...)``, at most 256 classes.
        output_key: where the labels ``(1, ...)`` go, on the CPU.
        allow_missing_keys: pass over an item without the key.
    """

    def __init__(self, keys: KeysCollection, output_key: str = "argmax", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_key = output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Adds the labels."""
        d = dict(data)
        for key in self.key_iterator(d):
            values = d[key].as_tensor() if isinstance(d[key], MetaTensor) else torch.as_tensor(d[key])
            d[self.output_key] = argmax_labels(values)[None].cpu()
        return d


class ScanQualityd(MapTransform):
    """Makes the quality numbers of one scan out of what inference has at hand.

    It reads labels after the decode, the argmax before it (`ArgmaxLabelsd`; taken out of the item), and the counts of
    ``TwoPlaneInferer(return_agreement=True)``, and adds a dictionary: ``planes``, ``sge``, ``ordered``,
    ``plane_disagreement`` and ``sge_disagreement`` (see `grn_monai.measure.agreement.agreement`; None where there is
    no second plane or no generator) and ``layer_order`` (see `grn_monai.measure.agreement.layer_order`).

    Args:
        keys: one key of labels ``(1, X, Y, Z)`` in the scan frame, depth last.
        planes: the planes that were asked for; of a scan of one slice only its own was used, and is named.
        ordered: whether the labels are the ordered-layer decode.
        argmax_key: key of the labels before it.
        output_key: where the dictionary goes.
        allow_missing_keys: pass over an item without the key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        planes: Sequence[str] = PLANES,
        ordered: bool = True,
        argmax_key: str = "argmax",
        output_key: str = "quality",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.planes = [planes] if isinstance(planes, str) else list(planes)
        self.ordered, self.argmax_key, self.output_key = ordered, argmax_key, output_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Adds the numbers.

        Raises:
            InputError: there is no argmax in the item.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            if self.argmax_key not in d:
                mend = "Put ArgmaxLabelsd before OrderedLayersd."
                raise InputError("ScanQualityd", f"no {self.argmax_key!r} in the item", "labels before decoding", mend)
            before, after = (_labels(part) for part in (d.pop(self.argmax_key), d[key]))
            d[self.output_key] = {
                "planes": list(planes_within(self.planes, after.shape)),
                "sge": "sge_counts" in d,
                "ordered": self.ordered,
                "plane_disagreement": counted_agreement(d.get("plane_counts")),
                "sge_disagreement": counted_agreement(d.get("sge_counts")),
                "layer_order": layer_order(before, after if self.ordered else None),
            }
        return d


def _labels(volume: Any) -> np.ndarray:
    plain = volume.as_tensor() if isinstance(volume, MetaTensor) else torch.as_tensor(volume)
    return np.asarray(plain[0].to(torch.uint8).cpu())


def counted_agreement(counts: Any) -> dict[str, Any] | None:
    """`grn_monai.measure.agreement.agreement` of counts as an inferer gives them; None without counts."""
    return None if counts is None else agreement(np.asarray(torch.as_tensor(counts).cpu()))


class SaveQualityd(MapTransform):
    """Writes the numbers of `ScanQualityd` as NAME_quality.json, NAME being that of the scan's file.

    Args:
        keys: one key of the numbers.
        output_dir: folder of the file.
        image_key: the volume whose file gives the name.
        allow_missing_keys: pass over an item without the key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | PathLike[str],
        image_key: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.image_key = Path(output_dir), image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Writes the file, whole or not at all.

        Raises:
            InputError: the folder is not writable, or the disk is full.
        """
        from grn_monai.metrics.files import json_text  # at the top it would bring all metrics to every transform

        d = dict(data)
        for key in self.key_iterator(d):
            name = scan_name(str(d[self.image_key].meta["filename_or_obj"]))
            who = {part: str(d[part]) for part in ("subject", "scan") if part in d}
            content = {"format": QUALITY_FORMAT, **who, **d[key]}
            write_whole(self.output_dir / f"{name}_quality.json", json_text(content))
        return d
