"""Deep adversarial network (DAN)."""

from __future__ import annotations

import torch

from ..semi_supervised_trainer import Outputs
from ._discriminator import DiscriminatorTrainer

__all__ = ["DANTrainer"]


class DANTrainer(DiscriminatorTrainer):
    """The discriminator sees segmentations, softmax probabilities of all classes, with the image.

    Args:
        discriminator: such as ``MapDiscriminator(map_channels=classes)``.
        max_weight, …: as in ``DiscriminatorTrainer``.

    Source: Zhang et al., "Deep Adversarial Networks for Biomedical Image Segmentation Utilizing Unannotated Images",
    2017.
    """

    method = "dan"

    def discriminator_map(self, outputs: Outputs) -> torch.Tensor:
        """Probabilities ``(B, C, H, W)``."""
        return outputs[0].softmax(1)
