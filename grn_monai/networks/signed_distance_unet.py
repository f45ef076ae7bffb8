"""A U-Net that predicts signed distance maps beside its logits (SASSNet)."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets import UNet
from torch import nn

from .unet_features import check_depth, unet_features

__all__ = ["SignedDistanceUNet"]


class SignedDistanceUNet(nn.Module):
    """MONAI's U-Net with a second head for the signed distance map of each foreground class.

    The second head serves training alone. ``unet`` is the plain network: it holds all that inference needs, under
    its own names. The head is one transposed convolution of the same kind as the one that makes the logits, on the
    same input, then tanh.

    Args:
        unet: the U-Net; its first class is the background, which has no map.

    Raises:
        ValueError: for another network.

    Source: Li et al., "Shape-aware Semi-supervised 3D Semantic Segmentation for Medical Images" (SASSNet), 2020.
    """

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        check_depth(type(self).__name__, unet, 1)
        self.unet = unet
        self.head = Convolution(
            spatial_dims=2,
            in_channels=2 * unet.channels[0],
            out_channels=unet.out_channels - 1,
            strides=unet.strides[0],
            kernel_size=unet.up_kernel_size,
            is_transposed=True,
            conv_only=True,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Logits ``(B, C, H, W)`` of images; in training, those and the maps of ``both``."""
        return self.both(x) if self.training else self.unet(x)

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``(B, C, H, W)`` and signed distance maps ``(B, C - 1, H, W)`` in [-1, 1], in any mode."""
        top, _ = unet_features(self.unet, x)
        return self.unet.model[2](top), self.head(top).tanh()
