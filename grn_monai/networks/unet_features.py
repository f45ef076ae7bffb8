"""What MONAI's U-Net computes on its way: the features that further heads read."""

from __future__ import annotations

import torch
from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.nets import UNet
from torch import nn

__all__ = ["check_depth", "unet_features"]


def check_depth(name: str, unet: nn.Module, decoders: int) -> None:
    """Check that a network is MONAI's U-Net with so many decoder blocks below its topmost.

    Raises:
        ValueError: for another network, or a shallower U-Net.
    """
    if not isinstance(unet, UNet) or len(unet.channels) - 2 < decoders:
        found = f"one of {len(unet.channels)} levels" if isinstance(unet, UNet) else type(unet).__name__
        raise ValueError(f"{name} is built on a monai UNet of at least {decoders + 2} levels, got {found}.")


def unet_features(unet: UNet, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run a U-Net and keep what lies before its logits.

    The same modules run in the same order as in ``unet(x)``; ``unet.model[2]`` makes its logits of ``top``.

    Args:
        unet: the network, of channels c0, c1, ….
        x: ``(B, in_channels, H, W)``.

    Returns:
        ``top``, the input of the topmost decoder ``(B, 2·c0, H/2, W/2)``, and the outputs of the decoders below it,
        from the finest: d1 ``(B, c0, H/2, W/2)``, d2 ``(B, c1, H/4, W/4)``, …, for strides of 2.
    """
    decoded: list[torch.Tensor] = []

    def joined(down: nn.Module, skip: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The input of a block's decoder: its encoder's output beside what comes from below."""
        x = down(x)
        below = skip.get_submodule("submodule")
        if isinstance(below, nn.Sequential) and len(below) == 3 and isinstance(below[1], SkipConnection):
            y = below[2](joined(below[0], below[1], x))
            decoded.insert(0, y)
        else:
            y = below(x)
        return torch.cat((x, y), 1)

    top = joined(unet.model[0], unet.model[1], x)
    return top, decoded
