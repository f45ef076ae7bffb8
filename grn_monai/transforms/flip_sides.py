"""Mirrors a scan from left to right and swaps the labels of the two sides, so that they stay the person's own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform, Transform
from monai.utils import ensure_tuple

from grn_monai.errors import InputError

__all__ = ["FlipSides", "FlipSidesd", "RandFlipSidesd", "side_pairs"]


def side_pairs(labels: Mapping[int, str]) -> dict[int, int]:
    """Label value to the value of the same part on the other side; parts that have no sides are left out.

    Args:
        labels: label value to name; a side is a last word ``left`` or ``right``.

    Raises:
        InputError: a part has a left or a right side only.
    """
    values = {name: value for value, name in labels.items()}
    other = {"left": "right", "right": "left"}
    pairs = {}
    for name, value in values.items():
        part, _, side = name.rpartition(" ")
        if side in other:
            if (partner := values.get(f"{part} {other[side]}")) is None:
                mend = f"Add '{part} {other[side]}', or name the part without a side."
                raise InputError("labels", f"{name!r} without its other side", "both sides of each part", mend)
            pairs[value] = partner
    return pairs


class FlipSides(Transform):
    """Mirrors one volume, slice or label along the axis that runs from one side to the other.

    Args:
        labels: label value to name, see :func:`side_pairs`. Of a label the values change sides too; ``None`` for an
            image, which is only mirrored.
        spatial_axis: the axis that runs from left to right, counted without the channel; 0 of a volume in RAS.
    """

    def __init__(self, labels: Mapping[int, str] | None = None, spatial_axis: int = 0) -> None:
        self.spatial_axis = spatial_axis
        self.table: torch.Tensor | None = None
        if labels is not None:
            pairs = side_pairs(labels)
            self.table = torch.tensor([pairs.get(value, value) for value in range(max(labels) + 1)])

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Mirrors ``(C, X, Y)`` or ``(C, X, Y, Z)``; type and dtype stay."""
        meta = img if isinstance(img, MetaTensor) else None
        plain = torch.as_tensor(img) if meta is None else meta.as_tensor()
        flipped = plain.flip(self.spatial_axis + 1)
        if self.table is not None:
            flipped = self.table.to(flipped.device)[flipped.long()].to(plain.dtype)
        return flipped if meta is None else MetaTensor(flipped).copy_meta_from(meta)


class FlipSidesd(MapTransform):
    """Dictionary twin of :class:`FlipSides`.

    The affine stays as it is: the mirrored scan is one of a mirrored person on the same grid.

    Args:
        keys: images and labels alike.
        labels: label value to name.
        label_keys: those of ``keys`` that are labels.
        spatial_axis: see :class:`FlipSides`.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: Mapping[int, str],
        label_keys: KeysCollection = ("label",),
        spatial_axis: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_keys: tuple[Hashable, ...] = ensure_tuple(label_keys)
        self.flip_image, self.flip_label = FlipSides(None, spatial_axis), FlipSides(labels, spatial_axis)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mirrors every key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = (self.flip_label if key in self.label_keys else self.flip_image)(d[key])
        return d


class RandFlipSidesd(RandomizableTransform, MapTransform):
    """:class:`FlipSidesd` with a chance, for augmentation.

    Args:
        keys: images and labels alike.
        labels: label value to name.
        prob: the chance, 0 to 1.
        label_keys: those of ``keys`` that are labels.
        spatial_axis: see :class:`FlipSides`.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: Mapping[int, str],
        prob: float = 0.5,
        label_keys: KeysCollection = ("label",),
        spatial_axis: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.flip = FlipSidesd(keys, labels, label_keys, spatial_axis, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Mirrors every key, or none."""
        self.randomize(None)
        return self.flip(data) if self._do_transform else dict(data)
