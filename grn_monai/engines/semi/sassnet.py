"""Shape-aware semi-supervised network (SASSNet)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from grn_monai.errors import InputError
from grn_monai.losses import SignedDistanceLoss
from grn_monai.networks import SignedDistanceUNet

from .._common import unwrapped
from ..semi_supervised_trainer import Outputs, SemiSupervisedTrainer, TwoStreams
from ._discriminator import DiscriminatorTrainer
from ._training_network import check_training_network

__all__ = ["SASSNetTrainer"]


class SASSNetTrainer(DiscriminatorTrainer):
    """The network learns signed distance maps beside the segmentation, and the discriminator sees those.

    The supervised loss is ``loss_function + sdm_weight · mean squared error of the maps``; in the reference
    ``loss_function`` is the Dice loss alone. Inference needs the plain
    U-Net alone; the maps are not combined with its segmentation. The output also holds the scalar ``sdm_loss``
    (unweighted).

    Args:
        network: a ``SignedDistanceUNet``. Give its ``unet`` to the evaluator and to the handler that saves the model.
        discriminator: such as ``MapDiscriminator(map_channels=classes - 1)``.
        sdm_weight: weight of the maps' error.
        empty: what the maps say of a class that an image lacks: ``one``, ``zero`` or ``ignore`` (see
            ``SignedDistanceLoss``).
        max_weight, …: as in ``DiscriminatorTrainer``.

    Raises:
        InputError: for another network, or an option outside its range.

    Source: Li et al., "Shape-aware Semi-supervised 3D Semantic Segmentation for Medical Images", 2020. The reference
    knows one foreground class; here each class has the map of its own mask.
    """

    method = "sassnet"

    def __init__(self, *args: Any, sdm_weight: float = 0.3, empty: str = "one", **kwargs: Any) -> None:
        if not (isinstance(sdm_weight, int | float) and math.isfinite(sdm_weight) and sdm_weight >= 0):
            raise InputError("sdm_weight", repr(sdm_weight), "a number from 0", "Correct the option.")
        self.sdm_weight = sdm_weight
        self.sdm_loss = SignedDistanceLoss(empty)
        super().__init__(*args, **kwargs)
        check_training_network(self, SignedDistanceUNet)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The discriminator and the head, which ``network.unet`` does not hold."""
        return {**super().modules, "sdm_head": unwrapped(self.network).get_submodule("head")}

    def supervised_loss(self, engine: Any, batch: TwoStreams) -> torch.Tensor:
        """Of the segmentation and of the maps."""
        error = engine.sdm_loss(batch.outputs[1], batch.labels)
        engine.state.output["sdm_loss"] = error.detach()
        return super().supervised_loss(engine, batch) + engine.sdm_weight * error

    def discriminator_map(self, outputs: Outputs) -> torch.Tensor:
        """Signed distance maps ``(B, C - 1, H, W)``."""
        return outputs[1]

    def predict(self, engine: SemiSupervisedTrainer, images: torch.Tensor) -> Outputs:
        """Logits and maps: in evaluation mode the network's own pass gives logits alone."""
        return engine.inferer(images, unwrapped(engine.network).both)
