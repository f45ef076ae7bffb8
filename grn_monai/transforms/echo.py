"""Scales grey values to [−1, 1], by one rule for the whole volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

from grn_monai.errors import InputError

__all__ = ["ScaleEcho", "ScaleEchod", "echo_range", "scale_echo"]

MODES = ("auto", "uint8", "percentile")


def _is_whole(volume: torch.Tensor) -> bool:
    return not volume.is_floating_point() or bool((volume == volume.round()).all())


def echo_range(
    volume: torch.Tensor, mode: str = "auto", lower: float = 0.5, upper: float = 99.5
) -> tuple[float, float]:
    """Finds the grey values that become −1 and 1.

    The rule is decided on the whole volume, so that all its slices share one scale:

    * ``"uint8"``: 0 and 255, the scale of B-mode pictures;
    * ``"percentile"``: the ``lower`` and ``upper`` percentile, or the extremes where the two coincide;
    * ``"auto"``: ``"uint8"`` where every value is a whole number from 0 to 255 and the largest exceeds 1, otherwise
      ``"percentile"``. It is meant for data as stored: resampling first would hide that a picture has 8 bits.

    Args:
        volume: grey values, any shape.
        mode: one of the three.
        lower: percentile, 0 to 100.
        upper: percentile, 0 to 100.

    Returns:
        The two grey values, low and high.

    Raises:
        InputError: unknown mode or percentiles, values outside 0 to 255 for ``"uint8"``, or a constant volume.
    """
    if mode not in MODES:
        raise InputError("ScaleEcho mode", repr(mode), " or ".join(MODES), "Choose one of them.")
    if not 0 <= lower < upper <= 100:
        raise InputError("ScaleEcho", f"percentiles {lower} and {upper}", "0 ≤ lower < upper ≤ 100", "Correct them.")
    low, high = float(volume.min()), float(volume.max())
    in_range = low >= 0 and high <= 255
    if mode == "uint8" and not in_range:
        mend = 'Use mode "auto" or "percentile".'
        raise InputError("ScaleEcho", f"values from {low:g} to {high:g}", 'values from 0 to 255 for mode "uint8"', mend)
    if mode == "uint8":
        return 0.0, 255.0
    if mode == "auto" and in_range and high > 1 and _is_whole(volume):
        return 0.0, 255.0
    # torch.quantile refuses more than 16 million values.
    ends = np.percentile(volume.detach().cpu().numpy(), [lower, upper])
    if ends[0] < ends[1]:
        return float(ends[0]), float(ends[1])
    if not low < high:
        raise InputError("ScaleEcho", f"a constant volume ({low:g})", "grey values that vary", "Check the scan.")
    return low, high


def scale_echo(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Maps ``low`` to −1 and ``high`` to 1, linearly, and clips; float32, shape unchanged."""
    return ((values.float() - low) / ((high - low) / 2) - 1).clamp_(-1, 1)


class ScaleEcho(Transform):
    """Scales the grey values of a volume to [−1, 1]; see :func:`echo_range` for the rule.

    For 8-bit data this is the ``(x − 0.5) / 0.5`` of the released GRN scripts after ``x / 255``.

    Args:
        mode: ``"auto"``, ``"uint8"`` or ``"percentile"``.
        lower: percentile that becomes −1, 0 to 100.
        upper: percentile that becomes 1, 0 to 100.
    """

    def __init__(self, mode: str = "auto", lower: float = 0.5, upper: float = 99.5) -> None:
        echo_range(torch.tensor([0.0, 1.0]), mode, lower, upper)  # checks the options
        self.mode, self.lower, self.upper = mode, lower, upper

    def __call__(self, img: Any) -> torch.Tensor:
        """Maps grey values of any shape to float32 in [−1, 1] and notes the two ends as ``meta["echo_range"]``."""
        img = convert_to_tensor(img, track_meta=isinstance(img, MetaTensor))
        values = img.as_tensor() if isinstance(img, MetaTensor) else img
        ends = echo_range(values, self.mode, self.lower, self.upper)
        scaled = scale_echo(values, *ends)
        if not isinstance(img, MetaTensor):
            return scaled
        out = MetaTensor(scaled).copy_meta_from(img)
        out.meta["echo_range"] = ends
        return out

    def restore(self, img: MetaTensor) -> MetaTensor:
        """Maps [−1, 1] back to the grey values noted in ``meta["echo_range"]``; clipped values stay clipped.

        It is not called ``inverse``: under ``Invertd`` that would rescale predictions.
        """
        low, high = (float(end) for end in img.meta["echo_range"])
        out: MetaTensor = (img + 1) * ((high - low) / 2) + low
        return out


class ScaleEchod(MapTransform):
    """Dictionary twin of :class:`ScaleEcho`.

    Args:
        keys: keys of images.
        mode: see :class:`ScaleEcho`.
        lower: see :class:`ScaleEcho`.
        upper: see :class:`ScaleEcho`.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mode: str = "auto",
        lower: float = 0.5,
        upper: float = 99.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.scale = ScaleEcho(mode, lower, upper)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scales each key to [−1, 1]."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.scale(d[key])
        return d
