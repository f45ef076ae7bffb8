"""What trainers with a discriminator share: its step, and the terms of the generator's loss that hold G to the scan."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from monai.losses import PatchAdversarialLoss
from torch import nn
from torch.nn.functional import l1_loss
from torch.optim.optimizer import Optimizer

from grn_monai.errors import InputError

from ._common import JointKeys, at_least_float32, frozen, unwrapped
from ._scaled import ScaledTrainer, Terms

__all__ = ["WithDiscriminator", "check_weights", "discriminator_loss"]


def check_weights(**weights: float) -> None:
    """Refuse weights of losses that are negative: the network would be trained to be bad at them.

    Raises:
        InputError: naming the weight.
    """
    for name, value in weights.items():
        if not isinstance(value, int | float) or not 0 <= value < math.inf:  # NaN too
            raise InputError(name, repr(value), "a number from 0", "Only seg_weight may be negative, as an ablation.")


def discriminator_loss(
    discriminator: nn.Module, loss: Callable, real: torch.Tensor, generated: torch.Tensor
) -> torch.Tensor:
    """``½ [MSE(D(x), 1) + MSE(D(x̂), 0)]``, 0-d; x̂ without its graph.

    Two passes: in one, BatchNorm would mix real and generated images and give them away.
    """
    on_real = loss(at_least_float32(discriminator(real)), target_is_real=True, for_discriminator=True)
    on_generated = discriminator(generated.detach())
    return 0.5 * (on_real + loss(at_least_float32(on_generated), target_is_real=False, for_discriminator=True))


class WithDiscriminator(ScaledTrainer):
    """A trainer of a generator with a discriminator D and its optimizer; with ``adv_weight`` 0, D is left out."""

    discriminator: nn.Module
    discriminator_optimizer: Optimizer
    adv_weight: float
    l1_weight: float
    adversarial_loss: Callable

    def _set_discriminator(
        self,
        discriminator: nn.Module,
        discriminator_optimizer: Optimizer,
        adv_weight: float,
        l1_weight: float,
        adversarial_loss: Callable | None,
    ) -> None:
        """Keep D and the weights. Call it before ``super().__init__``: handlers attach inside it and may look."""
        check_weights(adv_weight=adv_weight, l1_weight=l1_weight)
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer
        self.adv_weight = adv_weight
        self.l1_weight = l1_weight
        self.adversarial_loss = adversarial_loss or PatchAdversarialLoss(no_activation_leastsq=True)

    def _step_discriminator(self, engine: Any, real: torch.Tensor, generated: torch.Tensor, prefix: str = "") -> None:
        """Step D on raw and enhanced images."""
        self.discriminator.train()
        self.discriminator_optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with self._autocast(engine):
            loss = discriminator_loss(self.discriminator, self.adversarial_loss, real, generated)
        engine.state.output[prefix + JointKeys.DISCRIMINATOR_LOSS] = loss.detach()
        scaler = engine.state.discriminator_scaler
        scaler.scale(loss).backward()
        norms = {prefix + JointKeys.GRAD_NORM_DISCRIMINATOR: self.discriminator}
        self._step(engine, scaler, [self.discriminator_optimizer], norms)

    def _image_losses(self, real: torch.Tensor, generated: torch.Tensor, adversarial: bool = True) -> Terms:
        """Adversarial term (with D frozen) and L1 distance to the raw image."""
        terms: Terms = {}
        if adversarial and self.adv_weight:
            with frozen(self.discriminator):
                judgements = unwrapped(self.discriminator)(generated)
            loss = self.adversarial_loss(at_least_float32(judgements), target_is_real=True, for_discriminator=False)
            terms[JointKeys.ADVERSARIAL_LOSS] = (self.adv_weight, loss)
        if self.l1_weight:
            terms[JointKeys.L1_LOSS] = (self.l1_weight, l1_loss(generated, real))
        return terms
