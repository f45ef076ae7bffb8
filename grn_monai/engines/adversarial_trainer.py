"""GRN-SEL: joint training of a generator and a segmentor with a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from grn_monai.errors import InputError

from ._adversarial import WithDiscriminator
from ._common import check_optimizer
from ._phases import JointEvents, LabelledPhase, Phase
from ._scaled import Terms
from .joint_trainer import JointTrainer

__all__ = ["AdversarialJointTrainer"]


class AdversarialJointTrainer(WithDiscriminator, JointTrainer):
    """Train a generator G, a segmentor S and a discriminator D together, as GRN-SEL does.

    One iteration, with images x ``(B, C, H, W)`` and labels y ``(B, 1, H, W)``:

    1. ``x̂ = G(x)``; ``L_D = ½ [MSE(D(x), 1) + MSE(D(x̂), 0)]`` with x̂ detached; step ``discriminator_optimizer``.
    2. Stage 1, with the updated D: ``L_G = adv_weight · MSE(D(x̂), 1) + seg_weight · loss(S(x̂), y) + l1_weight ·
       mean|x̂ - x|``; step ``joint_optimizer``.
    3. Stage 2: L_S as in ``JointTrainer``.

    The output has, beside what ``JointTrainer`` puts there, the scalars ``discriminator_loss`` (L_D),
    ``adversarial_loss`` and ``l1_loss`` (unweighted) and ``grad_norm_discriminator``.

    Args:
        discriminator: D, image to a map of judgements.
        discriminator_optimizer: steps D alone.
        segmentor_update: ``"alternate"`` by default, as Algorithm 1 is printed; GRN's text moves S on L_G too
            (``"joint"``).
        seg_weight: λ_seg. Negative, G makes images that are hard to segment (an ablation).
        adv_weight: λ_adv. With 0, D is left out of the iteration.
        l1_weight: λ_L1.
        adversarial_loss: called as ``loss(judgements, target_is_real=…, for_discriminator=…)``; default: least
            squares without activation.
        **kwargs: as in ``JointTrainer``.

    Raises:
        InputError: for a negative weight other than ``seg_weight``, or all weights of L_G zero.
        ValueError: for a ``discriminator_optimizer`` that holds the wrong parameters.

    Source: "Generative Reinforcement Network (GRN) for Tissue Layer Segmentation in Chronic Low-back Pain
    (cLBP) assessment", arXiv 2501.17690.
    """

    def __init__(
        self,
        *args: Any,
        discriminator: nn.Module,
        discriminator_optimizer: Optimizer,
        segmentor_update: str = "alternate",
        seg_weight: float = 100.0,
        adv_weight: float = 1.0,
        l1_weight: float = 100.0,
        adversarial_loss: Callable | None = None,
        **kwargs: Any,
    ) -> None:
        self._set_discriminator(discriminator, discriminator_optimizer, adv_weight, l1_weight, adversarial_loss)
        options: dict[str, Any] = {**kwargs, "segmentor_update": segmentor_update, "seg_weight": seg_weight}
        super().__init__(*args, **options)
        others = {"generator": self.generator, "network": self.network}
        check_optimizer(
            "discriminator_optimizer", discriminator_optimizer, holds={"discriminator": discriminator}, lacks=others
        )
        for name, part in (("optimizer", "network"), ("joint_optimizer", "generator")):
            lacks = {"discriminator": discriminator}
            check_optimizer(name, getattr(self, name), holds={part: others[part]}, lacks=lacks)
        self._add_scaler("discriminator_scaler")

    def _check_losses(self) -> None:
        if self.seg_weight == self.adv_weight == self.l1_weight == 0:
            found = "seg_weight, adv_weight and l1_weight of 0"
            raise InputError("L_G", found, "a loss for the generator", "Raise one of them.")

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """Every optimizer by its name, for checkpoints."""
        return {**super().optimizers, "discriminator_optimizer": self.discriminator_optimizer}

    def phases(
        self, engine: JointTrainer, inputs: torch.Tensor, targets: torch.Tensor, batchdata: Mapping[str, Any]
    ) -> Sequence[Phase]:
        """List the labelled stream, with D."""
        return [LabelledPhase(inputs, targets, engine.loss_function, engine.seg_weight, adversarial=True)]

    def discriminator_stage(self, engine: JointTrainer, phase: Phase, generated: torch.Tensor) -> None:
        """Step D on raw and enhanced images."""
        if phase.adversarial and self.adv_weight:
            self._step_discriminator(engine, phase.inputs, generated, phase.prefix)
            engine.fire_event(JointEvents.DISCRIMINATOR_COMPLETED)

    def generator_losses(self, engine: JointTrainer, phase: Phase, generated: torch.Tensor) -> Terms:
        """Adversarial term (with D frozen) and L1 distance to the raw image."""
        return self._image_losses(phase.inputs, generated, phase.adversarial)
