"""Probabilities to labels, for networks with one sigmoid output and for those with several softmax outputs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from grn_monai.errors import InputError
from grn_monai.transforms.quality import argmax_labels

__all__ = ["DecideLabelsd"]


class DecideLabelsd(MapTransform):
    """One channel becomes 1 where it is above a threshold; of several the most probable class is taken.

    Args:
        keys: keys of probabilities ``(K, …)``, K ≤ 256.
        threshold: for one channel, above 0 and below 1.
        allow_missing_keys: pass over keys that an item does not have.

    Raises:
        InputError: a threshold outside that range.
    """

    def __init__(self, keys: KeysCollection, threshold: float = 0.5, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if not 0 < float(threshold) < 1:
            raise InputError("threshold", repr(threshold), "above 0 and below 1", "Correct the option.")
        self.threshold = float(threshold)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Gives each key its labels ``(1, …)``, uint8, with the meta data of the probabilities."""
        d = dict(data)
        for key in self.key_iterator(d):
            img = convert_to_tensor(d[key], track_meta=isinstance(d[key], MetaTensor))
            values = img.as_tensor() if isinstance(img, MetaTensor) else img
            labels = (values > self.threshold).to(torch.uint8) if len(values) == 1 else argmax_labels(values)[None]
            d[key] = MetaTensor(labels).copy_meta_from(img) if isinstance(img, MetaTensor) else labels
        return d
