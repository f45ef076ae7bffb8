"""DeepLabV3 and DeepLabV3+ of segmentation_models_pytorch, which is not installed with the project."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from grn_monai.errors import InputError

__all__ = ["RepeatChannels", "deeplab_v3", "deeplab_v3_plus"]


class RepeatChannels(nn.Module):
    """Repeat a grey image, for networks that take colours.

    Args:
        channels: number of channels out.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, 1, H, W)`` to ``(B, channels, H, W)``, without a copy."""
        return x.expand(-1, self.channels, -1, -1)


def _library() -> Any:
    """The package, imported when a network is built: it imports torchvision, which the project does without.

    Raises:
        InputError: it is missing, or a torchvision that was built for another torch fails.
    """
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except (ImportError, RuntimeError, AttributeError) as error:
        missing = isinstance(error, ModuleNotFoundError)
        reason = str(error).strip().splitlines()[0][:150] if str(error).strip() else type(error).__name__
        raise InputError(
            "network_deeplabv3 and network_deeplabv3plus",
            f"no segmentation_models_pytorch ({reason})" if missing else f"that importing it fails ({reason})",
            "it and a torchvision that loads beside this torch",
            "Run `make setup-deeplab` and train with .venv-deeplab/bin/python, or install the packages of "
            "requirements-deeplab.txt and requirements-deeplab-nodeps.txt.",
        ) from error


def deeplab_v3_plus(out_channels: int = 7) -> nn.Module:
    """DeepLabV3+ with a ResNet-50 from random weights, as GRN+ names its comparator: 26,672,855 parameters.

    Args:
        out_channels: classes.

    Returns:
        a network of ``(B, 1, H, W)`` images, H and W multiples of 16, to logits ``(B, out_channels, H, W)``. Training
        takes two images or more.

    Raises:
        InputError: segmentation_models_pytorch is not installed.
    """
    network: nn.Module = _library().DeepLabV3Plus("resnet50", encoder_weights=None, in_channels=1, classes=out_channels)
    return network


def deeplab_v3(out_channels: int = 7) -> nn.Module:
    """DeepLabV3 with a ResNet-50 from random weights, as GRN+ counts its comparator: 39,635,271 parameters.

    That number is printed for DeepLabV3+; this network, with an input of three channels, has it.

    Args:
        out_channels: classes.

    Returns:
        a network of ``(B, 1, H, W)`` images, H and W multiples of 8, to logits ``(B, out_channels, H, W)``. The grey
        image is repeated. Training takes two images or more.

    Raises:
        InputError: segmentation_models_pytorch is not installed.
    """
    network = _library().DeepLabV3("resnet50", encoder_weights=None, in_channels=3, classes=out_channels)
    return nn.Sequential(RepeatChannels(3), network)
