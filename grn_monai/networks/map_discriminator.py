"""The discriminator of DAN and SASSNet: was the map of this image predicted for a labelled image?"""

from __future__ import annotations

import torch
from torch import nn

from grn_monai.errors import InputError

__all__ = ["MapDiscriminator"]


class MapDiscriminator(nn.Module):
    """Tell maps apart, each together with its image: two logits an image, for "unlabelled" (0) and "labelled" (1).

    Map and image each go through a 4x4 convolution of stride 2 and are added; three more such convolutions follow,
    each doubling the width and with LeakyReLU 0.2 after it, the first two with dropout of whole channels. The last
    features are pooled to 2x2 whatever the image's size, where the reference has fixed windows for its own size.

    Args:
        map_channels: channels of the map: the classes (DAN), or the classes without background (SASSNet).
        image_channels: channels of the image.
        channels: width of the first level.
        dropout: share of the channels that is dropped.

    Raises:
        ValueError: when a number of channels is not positive.
        InputError: in ``forward``, when the image is smaller than 16 pixels.

    Source: Zhang et al., "Deep Adversarial Networks for Biomedical Image Segmentation Utilizing Unannotated Images"
    (DAN), 2017, and Li et al. (SASSNet), 2020; layout of their public reference code.
    """

    smallest = 16
    """Smallest H and W: they are halved four times."""

    def __init__(
        self, map_channels: int = 7, image_channels: int = 1, channels: int = 64, dropout: float = 0.5
    ) -> None:
        super().__init__()
        if min(map_channels, image_channels, channels) < 1:
            raise ValueError(
                "map_channels, image_channels and channels must be at least 1, got "
                f"{map_channels}, {image_channels}, {channels}."
            )
        self.of_map = nn.Conv2d(map_channels, channels, 4, stride=2, padding=1)
        self.of_image = nn.Conv2d(image_channels, channels, 4, stride=2, padding=1)
        layers: list[nn.Module] = []
        for level in range(3):
            width = channels * 2**level
            layers += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            layers += [nn.Dropout2d(dropout)] if level < 2 else []
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classify = nn.Linear(4 * 8 * channels, 2)
        # The convolutions run faster in this layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch does not declare it

    def forward(self, maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Logits of maps.

        Args:
            maps: ``(B, map_channels, H, W)``.
            images: ``(B, image_channels, H, W)`` in [-1, 1].

        Returns:
            ``(B, 2)`` logits.
        """
        if min(images.shape[-2:]) < self.smallest:
            raise InputError(
                "MapDiscriminator",
                f"images of {tuple(images.shape[-2:])}",
                f"H and W of at least {self.smallest}",
                "Train with a larger slice_size.",
            )
        return self.classify(self.features(self.of_map(maps) + self.of_image(images)))
