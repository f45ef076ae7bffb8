"""GAN augmentation: a generator trained to reconstruct images, and a segmentor trained on its reconstructions too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from monai.engines import default_prepare_batch
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import nn
from torch.optim.optimizer import Optimizer

from grn_monai.errors import InputError

from ._adversarial import WithDiscriminator
from ._common import JointKeys, check_optimizer, plain_tensor

__all__ = ["ReconstructionTrainer", "WithReconstructions"]


class ReconstructionTrainer(WithDiscriminator):
    """Train a generator G to reconstruct images, against a discriminator D; no segmentor and no labels.

    One iteration, with images x ``(B, C, H, W)``:

    1. ``x̂ = G(x)``; ``L_D = ½ [MSE(D(x), 1) + MSE(D(x̂), 0)]`` with x̂ detached; step ``discriminator_optimizer``.
    2. With the updated D, ``L_G = adv_weight · MSE(D(x̂), 1) + l1_weight · mean|x̂ - x|``; step
       ``generator_optimizer``.

    ``FORWARD_COMPLETED`` fires once G generated, before D steps; the others follow L_G. ``engine.state.output`` holds
    ``image``, ``generated`` (x̂) and the scalars ``loss`` (L_G, unscaled), ``discriminator_loss`` (L_D),
    ``adversarial_loss`` and ``l1_loss`` (unweighted), ``grad_norm_generator`` and ``grad_norm_discriminator``.

    Args:
        device, max_epochs, train_data_loader, prepare_batch, …: as in ``monai.engines.SupervisedTrainer``. Of what
            ``prepare_batch`` gives, the image alone is used.
        generator: G, image to image of the same shape, in [-1, 1].
        generator_optimizer: steps G alone.
        discriminator: D, image to a map of judgements.
        discriminator_optimizer: steps D alone.
        adv_weight: λ_adv. With 0, D is left out of the iteration.
        l1_weight: λ_L1.
        adversarial_loss: called as ``loss(judgements, target_is_real=…, for_discriminator=…)``; default: least
            squares without activation.
        train_handlers: as in ``SupervisedTrainer``.
        optim_set_to_none: as in ``SupervisedTrainer``.
        amp: mixed precision on the CPU (bfloat16) or CUDA (``amp_kwargs["dtype"]``, default float16), with a
            gradient scaler per optimizer where float16 needs one.
        **kwargs: as in ``monai.engines.Workflow``.

    Raises:
        InputError: for a negative weight, or both weights zero.
        ValueError: for optimizers that hold the wrong parameters.

    Source: the row "GAN augmentation" in Table 6 of "Generative Reinforcement Network (GRN) for Tissue Layer
    Segmentation in Chronic Low-back Pain (cLBP) assessment", arXiv 2501.17690.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        generator: nn.Module,
        generator_optimizer: Optimizer,
        discriminator: nn.Module,
        discriminator_optimizer: Optimizer,
        adv_weight: float = 1.0,
        l1_weight: float = 100.0,
        adversarial_loss: Callable | None = None,
        train_handlers: Any = None,
        optim_set_to_none: bool = False,
        **kwargs: Any,
    ) -> None:
        self._set_discriminator(discriminator, discriminator_optimizer, adv_weight, l1_weight, adversarial_loss)
        if adv_weight == l1_weight == 0:
            found = "adv_weight and l1_weight of 0"
            raise InputError("L_G", found, "a loss for the generator", "Raise one of them.")
        networks = {"generator": generator, "discriminator": discriminator}
        for name, other, optimizer in (
            ("generator", "discriminator", generator_optimizer),
            ("discriminator", "generator", discriminator_optimizer),
        ):
            holds, lacks = {name: networks[name]}, {other: networks[other]}
            check_optimizer(f"{name}_optimizer", optimizer, holds=holds, lacks=lacks)
        # Set before super().__init__: handlers attach inside it and may look at them.
        self.generator = generator
        self.generator_optimizer = generator_optimizer
        self.optim_set_to_none = optim_set_to_none
        # A fresh list: Workflow appends to the one it is given.
        kwargs["event_names"] = [*(kwargs.get("event_names") or [])]
        super().__init__(
            device=device, max_epochs=max_epochs, data_loader=train_data_loader, handlers=train_handlers, **kwargs
        )
        self._add_scaler("generator_scaler")
        self._add_scaler("discriminator_scaler")

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """Every optimizer by its name, for checkpoints."""
        return {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def _iteration(self, engine: ReconstructionTrainer, batchdata: dict[str, torch.Tensor]) -> dict:
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        images = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)[0]
        engine.state.output = {Keys.IMAGE: images}
        images = plain_tensor(images)
        engine.generator.train()
        with self._autocast(engine):
            generated = engine.generator(images).to(images.dtype)
        engine.state.output[JointKeys.GENERATED] = generated.detach()
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        if engine.adv_weight:
            engine._step_discriminator(engine, images, generated)
        engine._generator_step(engine, images, generated)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _generator_step(self, engine: ReconstructionTrainer, images: torch.Tensor, generated: torch.Tensor) -> None:
        scaler, optimizer = engine.state.generator_scaler, engine.generator_optimizer
        optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with self._autocast(engine):
            loss = self._weighted(engine, self._image_losses(images, generated))
        engine.state.output[Keys.LOSS] = loss
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        scaler.scale(loss).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self._step(engine, scaler, [optimizer], {JointKeys.GRAD_NORM_GENERATOR: engine.generator})


class WithReconstructions:
    """``prepare_batch`` that adds to each image its reconstruction by a trained generator G, under the same label.

    The batch doubles: ``(x, G(x))`` with labels ``(y, y)``. A loss that averages over images, as ``DiceLoss`` does, is
    then ``½ [loss(S(x), y) + loss(S(G(x)), y)]``; where S holds BatchNorm, its statistics are those of both halves.

    G stays as it is: it runs without gradients and in evaluation mode, so that a reconstruction depends on its image
    alone, not on the batch.

    Args:
        generator: G, image to image of the same shape, in [-1, 1].

    Source: the row "GAN augmentation" in Table 6 of GRN, arXiv 2501.17690.
    """

    def __init__(self, generator: nn.Module) -> None:
        self.generator = generator

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepare a batch as MONAI does, and double it.

        Args:
            batchdata: ``image`` ``(B, C, H, W)`` in [-1, 1] and ``label`` ``(B, 1, H, W)``.
            device: where the tensors go.
            non_blocking: as in ``torch.Tensor.to``.
            **kwargs: as in ``torch.Tensor.to``.

        Returns:
            images ``(2B, C, H, W)``, the reconstructions last, and labels ``(2B, 1, H, W)``.
        """
        images, labels = map(plain_tensor, default_prepare_batch(batchdata, device, non_blocking, **kwargs))
        # At every call: the trainer of G puts it into training mode.
        self.generator.eval()
        with torch.no_grad():
            generated = self.generator(images).to(images.dtype)
        return torch.cat((images, generated)), torch.cat((labels, labels))
