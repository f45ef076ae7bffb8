"""Keeps of each structure in a label map its largest connected part."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from scipy import ndimage

__all__ = ["LargestPart", "LargestPartd"]


class LargestPart(Transform):
    """Sets to background what is not connected to the largest part of its own label.

    MONAI's ``KeepLargestConnectedComponent`` does the same with scikit-image, which nothing else here needs. Voxels
    that touch by a corner are connected. Of parts of equal size the first in voxel order stays.

    Args:
        labels: the values to look at; others stay as they are.
    """

    def __init__(self, labels: Sequence[int]) -> None:
        self.labels = [int(value) for value in labels]

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Cleans a label map ``(1, …)``; type and dtype stay, and the input is left as it is."""
        plain = img.as_tensor() if isinstance(img, MetaTensor) else img
        array = plain.cpu().numpy().copy()
        near = ndimage.generate_binary_structure(array.ndim - 1, array.ndim - 1)
        for value in self.labels:
            parts, count = ndimage.label(array[0] == value, structure=near)
            if count > 1:
                largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
                array[0][(parts != 0) & (parts != largest)] = 0
        cleaned = torch.from_numpy(array).to(img.device)
        return MetaTensor(cleaned).copy_meta_from(img) if isinstance(img, MetaTensor) else cleaned


class LargestPartd(MapTransform):
    """Dictionary twin of :class:`LargestPart`.

    Args:
        keys: label maps.
        labels: see :class:`LargestPart`.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(self, keys: KeysCollection, labels: Sequence[int], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.keep = LargestPart(labels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cleans every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.keep(d[key])
        return d
