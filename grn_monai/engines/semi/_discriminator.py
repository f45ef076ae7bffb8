"""What DAN and SASSNet share: a discriminator that tells maps of labelled images from those of unlabelled ones."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import Optimizer

from .._common import JointKeys, at_least_float32, check_optimizer, frozen
from ..semi_supervised_trainer import Outputs, SemiSupervisedTrainer, TwoStreams

__all__ = ["DiscriminatorTrainer"]

UNLABELLED, LABELLED = 0, 1
"""The two classes of the discriminator."""


class DiscriminatorTrainer(SemiSupervisedTrainer):
    """Train a segmentor whose maps of unlabelled images pass for maps of labelled ones.

    The unsupervised loss is ``CE(D(map, image), "labelled")`` on the unlabelled images, with the discriminator D in
    evaluation mode and its parameters frozen. D steps after the segmentor: on new maps of both halves by the segmentor
    in evaluation mode, without its gradient, D in training mode, ``CE(D(map, image), the half it is of)``. The halves
    may differ in size. A subclass says what the map is.

    D sees the image as well as the map, as in both methods. Where few subjects are labelled it can learn to know their
    images and disregard the map; its gradient then says nothing of the map's quality. A low ``discriminator_loss``
    beside an ``unsupervised_loss`` far above ln 2 is the sign of it, and a smaller ``max_weight`` the mend.

    The output also holds the scalar ``discriminator_loss``. D steps on float32 losses with a scaler of its own.

    Args:
        discriminator: D, of a map ``(B, M, H, W)`` and an image ``(B, 1, H, W)``, to two logits ``(B, 2)``.
        discriminator_optimizer: steps D alone.
        max_weight, …: as in ``SemiSupervisedTrainer``.

    Raises:
        ValueError: when an optimizer does not step what it should, or steps what it should not.
    """

    def __init__(self, *args: Any, discriminator: nn.Module, discriminator_optimizer: Optimizer, **kwargs: Any) -> None:
        # Set before super().__init__: handlers attach inside it and may look at them.
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer
        super().__init__(*args, **kwargs)
        parts = {"network": self.network, "discriminator": discriminator}
        check_optimizer("optimizer", self.optimizer, {"network": parts["network"]}, {"discriminator": discriminator})
        check_optimizer(
            "discriminator_optimizer",
            discriminator_optimizer,
            {"discriminator": discriminator},
            {"network": parts["network"]},
        )
        self._add_scaler("discriminator_scaler")

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The segmentor's and the discriminator's."""
        return {"optimizer": self.optimizer, "discriminator_optimizer": self.discriminator_optimizer}

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The discriminator."""
        return {"discriminator": self.discriminator}

    def discriminator_map(self, outputs: Outputs) -> torch.Tensor:
        """The map ``(B, M, H, W)`` that D sees, of the network's outputs in float32."""
        raise NotImplementedError

    def predict(self, engine: SemiSupervisedTrainer, images: torch.Tensor) -> Outputs:
        """The network's outputs on images in evaluation mode."""
        return (engine.inferer(images, engine.network),)

    def unsupervised_loss(self, engine: Any, batch: TwoStreams) -> torch.Tensor:
        """How surely D holds the maps of unlabelled images for such."""
        engine.discriminator.eval()
        with frozen(engine.discriminator):
            logits = engine.discriminator(engine.discriminator_map(batch.outputs_unlabelled), batch.view)
        return F.cross_entropy(at_least_float32(logits), _halves(logits, len(batch.view)))

    def after_step(self, engine: Any, batch: TwoStreams) -> None:
        """The discriminator's step."""
        images = torch.cat((batch.images, batch.view))
        engine.network.eval()
        engine.discriminator.train()
        engine.discriminator_optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with engine._autocast(engine):
            with torch.no_grad():
                maps = engine.discriminator_map(tuple(at_least_float32(x) for x in engine.predict(engine, images)))
            logits = engine.discriminator(maps, images)
            loss = F.cross_entropy(at_least_float32(logits), _halves(logits, len(batch.images)))
        engine.state.output[JointKeys.DISCRIMINATOR_LOSS] = loss.detach()
        scaler = engine.state.discriminator_scaler
        scaler.scale(loss).backward()
        engine._step(engine, scaler, [engine.discriminator_optimizer], {})


def _halves(logits: torch.Tensor, labelled: int) -> torch.Tensor:
    """Class of each image ``(B,)``, on the device of D's logits: so many labelled ones, then unlabelled ones."""
    classes = logits.new_full((len(logits),), UNLABELLED, dtype=torch.long)
    classes[:labelled] = LABELLED
    return classes
