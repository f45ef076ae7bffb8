"""Brings a volume to the scan frame: depth last, and increasing away from the probe."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, convert_to_tensor

from grn_monai.errors import InputError

__all__ = ["DepthLast", "DepthLastd", "depth_order"]

_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}


def depth_order(
    depth_axis: int | str, depth_reversed: bool = False, affine: npt.ArrayLike | None = None
) -> tuple[tuple[int, int, int], bool]:
    """Finds the axis order of the scan frame.

    Args:
        depth_axis: voxel axis 0 to 2 along which depth runs, or the anatomical direction of increasing depth, one of
            ``"LRAPSI"``: ``"A"`` for a probe on the back.
        depth_reversed: for an axis number, whether its index decreases away from the probe.
        affine: voxel index to RAS position, ``(4, 4)``; needed for a letter, which takes the nearest voxel axis.

    Returns:
        The voxel axes in the order X, Y, Z, and whether the last is to be reversed.

    Raises:
        InputError: ``depth_axis`` is no such number or letter, a letter comes without affine or with
            ``depth_reversed``.
    """
    if isinstance(depth_axis, str):
        letter = depth_axis.upper()
        if letter not in _OPPOSITE:
            raise InputError("depth_axis", repr(depth_axis), "0, 1, 2 or one of L R A P S I", "Correct the option.")
        if affine is None:
            mend = "Load the scan with LoadScand, or give the axis as a number."
            raise InputError("depth_axis", f"{depth_axis!r} for data without an affine", "a MetaTensor", mend)
        if depth_reversed:
            mend = f"Give {_OPPOSITE[letter]!r}, or the axis as a number."
            raise InputError("depth_reversed", f"True with {depth_axis!r}", "False: a letter has a sense", mend)
        codes = nib.orientations.aff2axcodes(np.asarray(affine))
        axis = next(i for i, code in enumerate(codes) if code in (letter, _OPPOSITE[letter]))
        backwards = codes[axis] != letter
    else:
        if depth_axis not in (0, 1, 2):
            raise InputError("depth_axis", repr(depth_axis), "0, 1, 2 or one of L R A P S I", "Correct the option.")
        axis, backwards = int(depth_axis), bool(depth_reversed)
    first, second = (i for i in range(3) if i != axis)
    return (first, second, axis), backwards


class DepthLast(InvertibleTransform):
    """Reorders a volume so that its last axis is depth, increasing away from the probe.

    The two lateral axes keep their relative order. Voxels are moved, never resampled, and the affine follows, so that
    every voxel keeps its position; the inverse gives voxels and affine back bit for bit, also for data with another
    number of channels or another type, such as a prediction under ``Invertd``.

    Args:
        depth_axis: voxel axis 0 to 2 along which depth runs, or the anatomical direction of increasing depth, one of
            ``"LRAPSI"``: ``"A"`` for a probe on the back.
        depth_reversed: for an axis number, whether its index decreases away from the probe.
    """

    def __init__(self, depth_axis: int | str = 2, depth_reversed: bool = False) -> None:
        # Checks the options now rather than at the first scan.
        depth_order(depth_axis, depth_reversed, np.eye(4))
        self.depth_axis = depth_axis
        self.depth_reversed = depth_reversed

    def __call__(self, img: Any) -> torch.Tensor:
        """Maps ``(C, I, J, K)`` to ``(C, X, Y, Z)`` with Z the depth.

        Raises:
            InputError: the data is not ``(C, I, J, K)``, or a letter was given and the data has no affine.
        """
        affine = img.affine.clone() if isinstance(img, MetaTensor) else None
        img = convert_to_tensor(img, track_meta=True)
        if img.ndim != 4:
            raise InputError(
                "DepthLast", f"data of shape {tuple(img.shape)}", "(C, I, J, K)", "Load one volume at a time."
            )
        order, backwards = depth_order(self.depth_axis, self.depth_reversed, affine)
        voxels = img.as_tensor().permute(0, *(axis + 1 for axis in order))
        out = MetaTensor((voxels.flip(-1) if backwards else voxels).contiguous()).copy_meta_from(img)
        index_map = np.zeros((4, 4))  # scan frame index to file index
        index_map[[*order, 3], range(4)] = 1
        if backwards:
            index_map[order[2], 2:] = -1, img.shape[order[2] + 1] - 1
        # The affine is kept because undoing the product would be exact only up to rounding.
        info = {"order": list(order), "backwards": backwards, "affine": img.affine.clone()}
        return self.push_transform(out, affine=index_map, orig_size=tuple(img.shape[1:]), extra_info=info)

    def inverse(self, img: torch.Tensor) -> torch.Tensor:
        """Maps ``(K, X, Y, Z)`` back to ``(K, I, J, K)``, for any number of channels and any type."""
        info = self.pop_transform(img)[TraceKeys.EXTRA_INFO]
        voxels = img.as_tensor() if isinstance(img, MetaTensor) else img
        if info["backwards"]:
            voxels = voxels.flip(-1)
        back = np.argsort(info["order"])
        out = MetaTensor(voxels.permute(0, *(int(axis) + 1 for axis in back)).contiguous()).copy_meta_from(img)
        out.affine = info["affine"]
        return out


class DepthLastd(MapTransform, InvertibleTransform):
    """Dictionary twin of :class:`DepthLast`.

    Args:
        keys: keys of volumes ``(C, I, J, K)``.
        depth_axis: see :class:`DepthLast`.
        depth_reversed: see :class:`DepthLast`.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        depth_axis: int | str = 2,
        depth_reversed: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.depth_last = DepthLast(depth_axis, depth_reversed)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Brings each key to the scan frame ``(C, X, Y, Z)``."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.depth_last(d[key])
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Brings each key back to the voxel order of its file."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.depth_last.inverse(d[key])
        return d
