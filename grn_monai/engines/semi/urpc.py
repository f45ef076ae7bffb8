"""Uncertainty-rectified pyramid consistency (URPC)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from grn_monai.losses import rectified_consistency
from grn_monai.networks import MultiScaleUNet

from .._common import unwrapped
from ..semi_supervised_trainer import SemiSupervisedTrainer, TwoStreams
from ._training_network import check_training_network

__all__ = ["URPCTrainer"]


class URPCTrainer(SemiSupervisedTrainer):
    """Ask that predictions at several scales of the decoder agree where they are sure.

    The supervised loss is the mean of ``loss_function`` over the scales; the unsupervised one is
    ``rectified_consistency`` of the scales. There is no teacher. Inference needs the plain U-Net alone.

    Args:
        network: a ``MultiScaleUNet``. Give its ``unet`` to the evaluator and to the handler that saves the model.
        max_weight, …: as in ``SemiSupervisedTrainer``.

    Raises:
        InputError: for another network.

    Source: Luo et al., "Efficient Semi-Supervised Gross Target Volume of Nasopharyngeal Carcinoma Segmentation via
    Uncertainty Rectified Pyramid Consistency", 2021.
    """

    method = "urpc"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_training_network(self, MultiScaleUNet)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The heads, which ``network.unet`` does not hold."""
        return {"heads": unwrapped(self.network).get_submodule("heads")}

    def supervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
        """Mean over the scales."""
        return torch.stack([engine.loss_function(x, batch.labels).mean() for x in batch.outputs]).mean()

    def unsupervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
        """Disagreement of the scales on the unlabelled images."""
        return rectified_consistency(batch.outputs_unlabelled)
