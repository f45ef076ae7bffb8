"""The patch discriminator D of GRN-SEL and GRN-SSL."""

from __future__ import annotations

import torch
from monai.networks.nets import PatchDiscriminator as MonaiPatchDiscriminator

from grn_monai.errors import InputError

__all__ = ["PatchDiscriminator"]


class PatchDiscriminator(MonaiPatchDiscriminator):
    """70x70 PatchGAN on one image: a map of judgements, one for each overlapping patch.

    MONAI's discriminator in the published configuration: 4x4 convolutions with bias, BatchNorm, LeakyReLU 0.2,
    no activation at the end. The default has the 2,764,481 parameters of the published configuration. ``forward``
    gives the last map alone, where MONAI's gives every level.

    Args:
        in_channels: channels of the image.
        channels: width of the first level, doubled at each further one.
        num_layers: levels between the first and the last convolution; 3 make the receptive field 70x70.

    Raises:
        ValueError: when a width or count is not positive.
        InputError: in ``forward``, when the image is too small for a single judgement.

    Source: "Generative Reinforcement Network (GRN) for Tissue Layer Segmentation in Chronic Low-back Pain
    (cLBP) assessment", arXiv 2501.17690; Isola et al., "Image-to-Image Translation with Conditional Adversarial
    Networks", 2017.
    """

    def __init__(self, in_channels: int = 1, channels: int = 64, num_layers: int = 3) -> None:
        if min(in_channels, channels, num_layers) < 1:
            raise ValueError(
                f"in_channels, channels and num_layers must be at least 1, got {in_channels}, {channels}, {num_layers}."
            )
        super().__init__(spatial_dims=2, channels=channels, in_channels=in_channels, num_layers_d=num_layers, bias=True)
        # The last two convolutions keep stride 1 and take one pixel each; before them the side is halved.
        self.smallest = 3 * 2**num_layers
        """Smallest H and W."""
        # BatchNorm and the convolutions run faster in this layout (measured: benchmarks/training_step.py).
        self.to(memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Judge an image.

        Args:
            x: ``(B, in_channels, H, W)`` in [-1, 1].

        Returns:
            ``(B, 1, h, w)``: near 1 where a patch passes for real, near 0 where not. 256x256 gives 30x30.
        """
        if min(x.shape[-2:]) < self.smallest:
            raise InputError(
                "PatchDiscriminator",
                f"images of {tuple(x.shape[-2:])}",
                f"H and W of at least {self.smallest}",
                "Train with a larger slice_size, or give `num_layers` a smaller number.",
            )
        for layer in self.children():
            x = layer(x)
        return x
