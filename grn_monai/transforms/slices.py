"""Volume to 2D slices of one plane and back; the one implementation behind dataset and inferer."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Transform
from monai.utils import TraceKeys, convert_to_tensor, ensure_tuple_rep

from grn_monai.errors import InputError

__all__ = [
    "PLANES",
    "SlicesToVolume",
    "SlicesToVolumed",
    "VolumeToSlices",
    "VolumeToSlicesd",
    "plane_axis",
    "planes_within",
    "resize_slices",
    "slices_to_volume",
    "take_slice",
    "volume_to_slices",
]

PLANES: tuple[str, ...] = ("sagittal", "transverse")
"""The two planes that contain depth: sagittal fixes X, transverse (coronal in the GRN papers) fixes Y."""

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def plane_axis(plane: str) -> int:
    """The axis of ``(X, Y, Z)`` that a plane fixes: 0 for ``"sagittal"``, 1 for ``"transverse"``.

    Raises:
        InputError: no such plane.
    """
    if plane not in PLANES:
        raise InputError("plane", repr(plane), " or ".join(map(repr, PLANES)), "Choose one of them.")
    return PLANES.index(plane)


def planes_within(planes: Sequence[str], shape: Sequence[int]) -> tuple[str, ...]:
    """Those planes whose slices of a volume are more than one voxel wide: of a single slice, only its own plane.

    Args:
        planes: of ``"sagittal"`` and ``"transverse"``.
        shape: ``(X, Y, Z)`` of the volume in the scan frame.

    Raises:
        InputError: none is left.
    """
    left = tuple(plane for plane in planes if shape[1 - plane_axis(plane)] > 1)
    if not left:
        found = f"a volume of {' × '.join(map(str, shape))} voxels"
        mend = "Add the other plane to the option planes."
        raise InputError("planes", found, f"one with slices in the planes {', '.join(planes)}", mend)
    return left


def take_slice(volume: Array, plane: str, index: int) -> Array:
    """One slice as a view: of a memory map, only its own bytes are read.

    Args:
        volume: ``(C, X, Y, Z)`` in the scan frame.
        plane: ``"sagittal"`` or ``"transverse"``.
        index: position along the axis that the plane fixes.

    Returns:
        ``(C, H, W)`` with H = Z (depth) and W = Y (sagittal) or X (transverse).
    """
    part: Array = volume[:, index] if plane_axis(plane) == 0 else volume[:, :, index]
    return part.swapaxes(-1, -2)


def resize_slices(slices: torch.Tensor, size: Sequence[int] | None, mode: str = "bilinear") -> torch.Tensor:
    """Resizes slices; without work where the size agrees already.

    Args:
        slices: ``(N, C, H, W)``.
        size: new ``(H, W)``; ``None`` keeps the size.
        mode: ``"bilinear"`` for images and probabilities (pixel centres aligned, antialiased where a side shrinks),
            ``"nearest"`` for labels.

    Returns:
        ``(N, C, *size)``; whole numbers become float32 under ``"bilinear"``.
    """
    if mode not in ("bilinear", "nearest"):
        raise InputError("slice mode", repr(mode), '"bilinear" or "nearest"', "Choose one of them.")
    if mode == "bilinear" and not slices.is_floating_point():
        slices = slices.float()
    if size is None or tuple(slices.shape[-2:]) == tuple(size):
        return slices
    if mode == "nearest":
        return F.interpolate(slices, size=tuple(size), mode="nearest-exact")
    shrinks = size[0] < slices.shape[-2] or size[1] < slices.shape[-1]
    return F.interpolate(slices, size=tuple(size), mode="bilinear", align_corners=False, antialias=shrinks)


def volume_to_slices(
    volume: torch.Tensor,
    plane: str,
    size: Sequence[int] | None = (256, 256),
    mode: str = "bilinear",
    start: int = 0,
    stop: int | None = None,
) -> torch.Tensor:
    """Cuts slices ``start`` to ``stop`` (default: all) of one plane.

    Args:
        volume: ``(C, X, Y, Z)`` in the scan frame.
        plane: ``"sagittal"`` or ``"transverse"``.
        size: ``(H, W)`` of the slices; ``None`` keeps the grid of the volume.
        mode: see :func:`resize_slices`.
        start: first slice.
        stop: one past the last slice.

    Returns:
        ``(N, C, H, W)``.
    """
    axis = plane_axis(plane)
    part = volume[:, start:stop] if axis == 0 else volume[:, :, start:stop]
    return resize_slices(part.movedim(axis + 1, 0).swapaxes(-1, -2), size, mode)


def slices_to_volume(
    slices: torch.Tensor, plane: str, spatial_size: Sequence[int], mode: str = "bilinear"
) -> torch.Tensor:
    """Puts slices, or maps computed from them, back on the grid they were cut from.

    Args:
        slices: ``(N, K, H, W)``, consecutive slices of one plane.
        plane: ``"sagittal"`` or ``"transverse"``.
        spatial_size: ``(X, Y, Z)`` of the volume.
        mode: see :func:`resize_slices`.

    Returns:
        ``(K, X, Y, Z)`` with N along the axis that the plane fixes, usually as a view of other strides.
    """
    axis = plane_axis(plane)
    resized = resize_slices(slices, (spatial_size[2], spatial_size[1 - axis]), mode)
    return resized.swapaxes(-1, -2).movedim(0, axis + 1)


class VolumeToSlices(InvertibleTransform):
    """Cuts a volume into the slices of one plane, resized to ``size``.

    Args:
        plane: ``"sagittal"`` or ``"transverse"``.
        size: ``(H, W)`` of the slices; ``None`` keeps the grid of the volume.
        mode: ``"bilinear"`` for images, ``"nearest"`` for labels.
    """

    def __init__(self, plane: str, size: Sequence[int] | None = (256, 256), mode: str = "bilinear") -> None:
        plane_axis(plane)
        self.plane, self.size, self.mode = plane, size, mode

    def __call__(self, img: Any) -> torch.Tensor:
        """Maps ``(C, X, Y, Z)`` to ``(N, C, H, W)``; the affine stays that of the volume.

        Raises:
            InputError: the data is not ``(C, X, Y, Z)``.
        """
        img = convert_to_tensor(img, track_meta=True)
        if img.ndim != 4:
            raise InputError("VolumeToSlices", f"data of shape {tuple(img.shape)}", "(C, X, Y, Z)", "Give one volume.")
        slices = volume_to_slices(img.as_tensor(), self.plane, self.size, self.mode).contiguous()
        info = {"plane": self.plane, "mode": self.mode}
        out = MetaTensor(slices).copy_meta_from(img)
        return self.push_transform(out, orig_size=tuple(img.shape[1:]), extra_info=info)

    def inverse(self, img: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, K, H, W)`` back to ``(K, X, Y, Z)``."""
        step = self.pop_transform(img)
        info = step[TraceKeys.EXTRA_INFO]
        maps = img.as_tensor() if isinstance(img, MetaTensor) else img
        volume = slices_to_volume(maps, info["plane"], step[TraceKeys.ORIG_SIZE], info["mode"])
        return MetaTensor(volume.contiguous()).copy_meta_from(img)


class SlicesToVolume(Transform):
    """Puts the slices of one plane back on the grid of their volume, without the history of a MetaTensor.

    Args:
        plane: ``"sagittal"`` or ``"transverse"``.
        spatial_size: ``(X, Y, Z)`` of the volume.
        mode: ``"bilinear"`` for images and probabilities, ``"nearest"`` for labels.
    """

    def __init__(self, plane: str, spatial_size: Sequence[int], mode: str = "bilinear") -> None:
        plane_axis(plane)
        self.plane, self.spatial_size, self.mode = plane, tuple(spatial_size), mode

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """Maps ``(N, K, H, W)`` to ``(K, X, Y, Z)``.

        Raises:
            InputError: the number of slices is not that of the volume.
        """
        count = self.spatial_size[plane_axis(self.plane)]
        if img.ndim != 4 or img.shape[0] != count:
            found = f"slices of shape {tuple(img.shape)}"
            raise InputError("SlicesToVolume", found, f"({count}, K, H, W)", "Give all slices of the volume.")
        return slices_to_volume(img, self.plane, self.spatial_size, self.mode).contiguous()


class VolumeToSlicesd(MapTransform, InvertibleTransform):
    """Dictionary twin of :class:`VolumeToSlices`, with one ``mode`` per key.

    Args:
        keys: keys of volumes ``(C, X, Y, Z)``.
        plane: see :class:`VolumeToSlices`.
        size: see :class:`VolumeToSlices`.
        mode: one mode, or one for each key.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        plane: str,
        size: Sequence[int] | None = (256, 256),
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        modes = ensure_tuple_rep(mode, len(self.keys))
        self.cutters = tuple(VolumeToSlices(plane, size, m) for m in modes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Cuts each key into slices ``(N, C, H, W)``."""
        d = dict(data)
        for key, cutter in self.key_iterator(d, self.cutters):
            d[key] = cutter(d[key])
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Puts each key back on its grid ``(K, X, Y, Z)``."""
        d = dict(data)
        for key, cutter in self.key_iterator(d, self.cutters):
            d[key] = cutter.inverse(d[key])
        return d


class SlicesToVolumed(MapTransform):
    """Dictionary twin of :class:`SlicesToVolume`, with one ``mode`` per key.

    Args:
        keys: keys of slices ``(N, K, H, W)``.
        plane: see :class:`SlicesToVolume`.
        spatial_size: see :class:`SlicesToVolume`.
        mode: one mode, or one for each key.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        plane: str,
        spatial_size: Sequence[int],
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        modes = ensure_tuple_rep(mode, len(self.keys))
        self.joiners = tuple(SlicesToVolume(plane, spatial_size, m) for m in modes)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Puts each key on the grid ``(K, X, Y, Z)``."""
        d = dict(data)
        for key, joiner in self.key_iterator(d, self.joiners):
            d[key] = joiner(d[key])
        return d
