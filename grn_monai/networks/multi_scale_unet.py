"""A U-Net that predicts at several scales of its decoder in training (URPC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.nets import UNet
from torch import nn

from .unet_features import check_depth, unet_features

__all__ = ["MultiScaleUNet", "feature_dropout", "feature_noise"]


def feature_noise(x: torch.Tensor, strength: float = 0.3) -> torch.Tensor:
    """Multiply ``(B, C, H, W)`` by 1 + U(-strength, strength), the same draw for every image of the batch."""
    noise = torch.empty(x.shape[1:], device=x.device).uniform_(-strength, strength)
    return x * (1 + noise).to(x.dtype)


def feature_dropout(x: torch.Tensor, lowest: float = 0.7, highest: float = 0.9) -> torch.Tensor:
    """Drop the strongest places: those whose mean over the channels reaches a share of the image's largest.

    Args:
        x: ``(B, C, H, W)``.
        lowest, highest: the share is drawn between them, once a call.
    """
    attention = x.detach().mean(1, keepdim=True)
    share = torch.empty((), device=x.device).uniform_(lowest, highest).to(x.dtype)
    return x * (attention < share * attention.amax((2, 3), keepdim=True)).to(x.dtype)


class MultiScaleUNet(nn.Module):
    """MONAI's U-Net with a further head on each of its decoder's three levels below the logits.

    The heads serve training alone. ``unet`` is the plain network: it holds all that inference needs, under its own
    names. A head is a 3x3 convolution to the classes; its map is enlarged to the size of the logits (nearest). In
    training the heads see perturbed features: d1 with multiplicative noise, d2 with its strongest places dropped, d3
    with dropout. The logits come from the features as they are.

    Args:
        unet: the U-Net, with at least five levels.
        dropout: share of d3's values that is dropped.

    Raises:
        ValueError: for another network.

    Source: Luo et al., "Efficient Semi-Supervised Gross Target Volume of Nasopharyngeal Carcinoma Segmentation via
    Uncertainty Rectified Pyramid Consistency" (URPC), 2021; perturbations of its public reference code.
    """

    def __init__(self, unet: UNet, dropout: float = 0.5) -> None:
        super().__init__()
        check_depth(type(self).__name__, unet, 3)
        self.unet = unet
        self.dropout = dropout
        self.heads = nn.ModuleList(nn.Conv2d(c, unet.out_channels, 3, padding=1) for c in unet.channels[:3])

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Logits ``(B, C, H, W)`` of images; in training, those and the maps of d1, d2 and d3, all of one size."""
        if not self.training:
            return self.unet(x)
        top, (d1, d2, d3, *_) = unet_features(self.unet, x)
        logits = self.unet.model[2](top)
        perturbed = (feature_noise(d1), feature_dropout(d2), F.dropout(d3, self.dropout))
        maps = (head(d) for head, d in zip(self.heads, perturbed, strict=True))
        return (logits, *(F.interpolate(m, logits.shape[2:], mode="nearest") for m in maps))
