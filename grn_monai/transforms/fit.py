"""Axial slices brought to the size that a network takes, with the proportions of the body kept, and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils import TraceKeys, convert_to_tensor

from grn_monai.errors import InputError
from grn_monai.transforms.slices import resize_slices

__all__ = ["FitSlices", "FitSlicesd", "SliceFit", "slice_fit"]

_CHUNK = 16  # slices resized at a time: temporaries stay small beside the volume


class SliceFit(NamedTuple):
    """How slices of one grid become slices of another: resized, then padded or cut about the centre.

    Attributes:
        shape: ``(H, W)`` of the scan's slices.
        inner: ``(h, w)`` after resizing.
        size: ``(H', W')`` after padding or cutting.
    """

    shape: tuple[int, int]
    inner: tuple[int, int]
    size: tuple[int, int]

    def _margins(self) -> list[int]:
        """For ``torch.nn.functional.pad``: left, right, top, bottom; negative where it cuts."""
        margins = []
        for inner, size in zip(reversed(self.inner), reversed(self.size), strict=True):
            margins += [(size - inner) // 2, size - inner - (size - inner) // 2]
        return margins

    def apply(self, slices: torch.Tensor, fill: float, mode: str = "bilinear") -> torch.Tensor:
        """``(N, C, H, W)`` to ``(N, C, H', W')``; `fill` goes around, `mode` is that of ``resize_slices``."""
        return F.pad(resize_slices(slices, self.inner, mode), self._margins(), value=fill)

    def undo(self, slices: torch.Tensor, fill: float = 0.0, mode: str = "bilinear") -> torch.Tensor:
        """``(N, C, H', W')`` back to ``(N, C, H, W)``; `fill` goes where `apply` had cut."""
        return resize_slices(F.pad(slices, [-margin for margin in self._margins()], value=fill), self.shape, mode)

    def index_map(self) -> np.ndarray:
        """``(4, 4)``: index (i, j, k) in the fitted slices to index in the scan's, pixel centres aligned."""
        found = np.eye(4)
        for axis in (0, 1):
            scale = self.shape[axis] / self.inner[axis]
            before = (self.size[axis] - self.inner[axis]) // 2
            found[axis, axis], found[axis, 3] = scale, (0.5 - before) * scale - 0.5
        return found


def slice_fit(
    shape: Sequence[int], spacing: Sequence[float], size: Sequence[int], pixel_mm: float | None = None
) -> SliceFit:
    """Plans how slices fit.

    Without `pixel_mm` the whole slice is shown, as large as `size` allows: a square CT of 512 × 512 pixels becomes
    256 × 256, as published, and any other keeps its proportions. With it all scans get pixels of that size, and what
    then lies outside is cut.

    Args:
        shape: ``(H, W)`` in pixels.
        spacing: of the pixels along H and W in mm.
        size: ``(H', W')`` wanted.
        pixel_mm: size of a pixel afterwards in mm, or None.

    Raises:
        InputError: a size or pixel size that is not positive.
    """
    target = [int(side) for side in size]
    if len(target) != 2 or min(target) < 1:
        raise InputError("slice_size", repr(list(size)), "two whole numbers from 1", "Correct the option.")
    if pixel_mm is not None and not float(pixel_mm) > 0:
        raise InputError("pixel_mm", repr(pixel_mm), "mm above 0, or null", "Correct the option.")
    extent = [count * step for count, step in zip(shape, spacing, strict=True)]
    pixel = max(e / t for e, t in zip(extent, target, strict=True)) if pixel_mm is None else float(pixel_mm)
    height, width = (max(1, round(length / pixel)) for length in extent)
    return SliceFit((int(shape[0]), int(shape[1])), (height, width), (target[0], target[1]))


class FitSlices(InvertibleTransform):
    """Fits the slices along the last axis of a volume; see `slice_fit`.

    Args:
        size: ``(H', W')``.
        pixel_mm: see `slice_fit`.
        fill: value around the slices; −1, air, for a CT scaled to [−1, 1].
    """

    def __init__(self, size: Sequence[int] = (256, 256), pixel_mm: float | None = None, fill: float = -1.0) -> None:
        slice_fit((1, 1), (1.0, 1.0), size, pixel_mm)  # checks the options
        self.size, self.pixel_mm, self.fill = tuple(size), pixel_mm, fill

    def __call__(self, img: Any) -> torch.Tensor:
        """Maps ``(C, X, Y, Z)`` with an affine to ``(C, H', W', Z)``, float32."""
        img = convert_to_tensor(img, track_meta=True)
        spacing = affine_to_spacing(img.affine).tolist()
        fit = slice_fit(img.shape[1:3], spacing[:2], self.size, self.pixel_mm)
        voxels = _by_slices(img.as_tensor(), fit.size, lambda part: fit.apply(part, self.fill))
        out = MetaTensor(voxels).copy_meta_from(img)
        info = {"shape": list(fit.shape), "inner": list(fit.inner), "affine": img.affine.clone()}
        return self.push_transform(out, affine=fit.index_map(), orig_size=tuple(img.shape[1:]), extra_info=info)

    def inverse(self, img: torch.Tensor) -> torch.Tensor:
        """Maps ``(K, H', W', Z)``, such as probabilities, back to ``(K, X, Y, Z)`` by linear interpolation."""
        info = self.pop_transform(img)[TraceKeys.EXTRA_INFO]
        voxels = img.as_tensor() if isinstance(img, MetaTensor) else img
        (x, y), (h, w) = info["shape"], info["inner"]
        fit = SliceFit((int(x), int(y)), (int(h), int(w)), (voxels.shape[1], voxels.shape[2]))
        out = MetaTensor(_by_slices(voxels, fit.shape, fit.undo)).copy_meta_from(img)
        out.affine = info["affine"]
        return out


def _by_slices(volume: torch.Tensor, size: tuple[int, int], change: Any) -> torch.Tensor:
    """Applies `change` to the slices ``(N, C, …)`` of ``(C, X, Y, Z)``, a few at a time."""
    result = torch.empty((volume.shape[0], *size, volume.shape[-1]), dtype=torch.float32, device=volume.device)
    for start in range(0, volume.shape[-1], _CHUNK):
        part = slice(start, min(start + _CHUNK, volume.shape[-1]))
        result[..., part] = change(volume[..., part].permute(3, 0, 1, 2).float()).permute(1, 2, 3, 0)
    return result


class FitSlicesd(MapTransform, InvertibleTransform):
    """Dictionary twin of `FitSlices`.

    Args:
        keys: keys of volumes ``(C, X, Y, Z)``, axial slices along the last axis.
        size: see `FitSlices`.
        pixel_mm: see `FitSlices`.
        fill: see `FitSlices`.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: Sequence[int] = (256, 256),
        pixel_mm: float | None = None,
        fill: float = -1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.fit = FitSlices(size, pixel_mm, fill)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fits each key."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.fit(d[key])
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Brings each key back to the slices of its scan."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.fit.inverse(d[key])
        return d
