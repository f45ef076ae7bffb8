"""Semi-supervised training of one segmentor: the frame that the comparators of the GRN papers share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import EventEnum
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import Optimizer

from grn_monai.errors import InputError

from ._common import at_least_float32, mixes_samples, plain_tensor, unlabelled_images, unwrapped
from ._scaled import ScaledTrainer

__all__ = ["Outputs", "SemiSupervisedTrainer", "TwoStreams", "ramp_up"]

Outputs = tuple[torch.Tensor, ...]
"""What the network gives in training, each ``(B, …)``; the first are the logits ``(B, C, H, W)`` of inference."""


def ramp_up(share: float) -> float:
    """``exp(-5 (1 - share)²)`` with ``share`` cut to [0, 1]: 0.0067 at the start, 1 at the end.

    Source: Laine and Aila, "Temporal Ensembling for Semi-Supervised Learning", 2017.
    """
    return math.exp(-5.0 * (1.0 - min(max(share, 0.0), 1.0)) ** 2)


@dataclass
class TwoStreams:
    """One batch and what the network made of it.

    Attributes:
        images: labelled images ``(B_l, 1, H, W)`` in [-1, 1].
        labels: their labels ``(B_l, 1, H, W)``.
        unlabelled: unlabelled images ``(B_u, 1, H, W)``.
        view: what the network saw of them, ``(B_v, 1, H, W)``; the images themselves unless the method changes them.
        outputs: of the network on ``images``, in float32.
        outputs_unlabelled: of the network on ``view``, in float32; empty where nothing asks for them.
    """

    images: torch.Tensor
    labels: torch.Tensor
    unlabelled: torch.Tensor
    view: torch.Tensor
    outputs: Outputs = ()
    outputs_unlabelled: Outputs = ()


class SemiSupervisedTrainer(ScaledTrainer, SupervisedTrainer):
    """Train a segmentor on labelled and unlabelled images with one optimizer step an iteration.

    ``L = supervised_loss + w(t) · unsupervised_loss``, ``w(t) = max_weight · exp(-5 (1 - t / (ramp · T_max))²)``, where
    ``t`` is the iteration (from 1) and ``T_max`` the planned number of iterations, so that the ramp spans the run
    however long it is. Before iteration ``start · T_max`` the unsupervised loss is left out. By itself this class has
    no unsupervised loss and trains on the labelled images alone; a method overrides ``unsupervised_loss`` and, where
    it needs them, ``view``, ``forward``, ``supervised_loss`` and ``after_step``.

    The batch is a dict with ``image``, ``label`` and ``unlabeled``, as a ``DataLoader`` with ``TwoStreamBatchSampler``
    and ``two_stream_collate`` gives. Both halves go through the network in one pass, as in the reference code of the
    methods; where the network holds BatchNorm, its statistics are those of both halves. In an iteration whose weight is
    0 (``max_weight`` 0, before ``start``) a network without BatchNorm runs on the labelled images alone.

    With several processes (``torch.distributed``) every network that a method trains has to be wrapped in
    ``DistributedDataParallel``: one that is not would learn otherwise in each process, and is refused in ``run``.

    ``engine.state.output`` holds ``image``, ``label``, ``pred`` (logits of the labelled images) and the scalars
    ``loss`` (L, unscaled), ``supervised_loss``, ``unsupervised_loss`` (unweighted) and ``unsupervised_weight``. MONAI's
    events fire once an iteration.

    Args:
        device, max_epochs, train_data_loader, network, optimizer, loss_function, …: as in
            ``monai.engines.SupervisedTrainer``. ``loss_function`` is the supervised loss of logits and labels. A
            network may give several maps in training, its logits first; in evaluation it gives its logits alone.
        max_weight: ``w`` at the end of the ramp.
        ramp: length of the ramp as a share of the planned iterations, in (0, 1].
        start: share of the planned iterations before the unsupervised loss comes in, in [0, 1).
        amp: mixed precision on the CPU (bfloat16) or CUDA (``amp_kwargs["dtype"]``, default float16).

    Raises:
        InputError: for a weight, ramp or start outside its range; with several processes, see above.
        ValueError: for a batch without unlabelled images, ``accumulation_steps != 1`` or ``compile=True``.
    """

    method = ""
    """The method's name in a bundle's config, such as ``mean_teacher``."""

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable,
        max_weight: float = 0.1,
        ramp: float = 1.0,
        start: float = 0.0,
        event_names: list[str | EventEnum | type[EventEnum]] | None = None,
        accumulation_steps: int = 1,
        compile: bool = False,  # noqa: A002 - MONAI's name
        **kwargs: Any,
    ) -> None:
        if not (isinstance(max_weight, int | float) and math.isfinite(max_weight) and max_weight >= 0):
            raise InputError("max_weight", repr(max_weight), "a number from 0", "Correct the option.")
        if not 0 < ramp <= 1:
            raise InputError("ramp", repr(ramp), "a share of the iterations above 0 and up to 1", "Correct the option.")
        if not 0 <= start < 1:
            raise InputError("start", repr(start), "a share of the iterations from 0 below 1", "Correct the option.")
        self._refuse_unsupported(accumulation_steps, compile, "network")
        # Set before super().__init__: handlers attach inside it and may look at them.
        self.max_weight = max_weight
        self.ramp = ramp
        self.start = start
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            # A fresh list: Workflow appends to the one it is given.
            event_names=[*(event_names or [])],
            **kwargs,
        )
        self._add_scaler("optimizer_scaler")

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """Every optimizer by its name, for checkpoints."""
        return {"optimizer": self.optimizer}

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Networks beside ``network`` that a resumed run needs, by their names in the checkpoint."""
        return {}

    def run(self) -> None:
        """Train. Called again, it goes on from the state it is in."""
        self._check_processes()
        super().run()

    def _check_processes(self) -> None:
        """Refuse, with several processes, parameters whose gradients are not averaged over them."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return
        parts = {"network": self.network, **self.modules}
        shared = [m for m in parts.values() if isinstance(m, DistributedDataParallel)]
        averaged = {id(p) for module in shared for p in module.parameters()}
        for optimizer in self.optimizers.values():
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                if id(p) not in averaged:
                    alone = (name for name, m in parts.items() if id(p) in {id(q) for q in unwrapped(m).parameters()})
                    raise InputError(
                        next(alone, "a network"),
                        "a network that each process would train by itself",
                        "torch.nn.parallel.DistributedDataParallel around it",
                        "Train this method in one process, or wrap the network.",
                    )

    # What a method may override.

    def view(self, engine: SemiSupervisedTrainer, unlabelled: torch.Tensor) -> torch.Tensor:
        """What the network sees of the unlabelled images ``(B_u, 1, H, W)``; by default the images."""
        return unlabelled

    def forward(self, engine: SemiSupervisedTrainer, images: torch.Tensor) -> Outputs:
        """Run the network on all images ``(B_l + B_v, 1, H, W)``, labelled ones first."""
        outputs = engine.inferer(images, engine.network)
        return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)

    def supervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
        """Loss of the labelled half, 0-d; by default ``loss_function`` of the first output."""
        return engine.loss_function(batch.outputs[0], batch.labels).mean()

    def unsupervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor | None:
        """Loss that needs no labels, unweighted and 0-d; None: there is none. Called inside autocast."""
        return None

    def after_step(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> None:
        """What follows the optimizer's step: a teacher's average, a discriminator's step."""

    # The iteration.

    def progress(self, engine: SemiSupervisedTrainer) -> float:
        """``t / T_max``, in (0, 1]: 1 at the last planned iteration."""
        return engine.state.iteration / max(1, engine.state.max_epochs * engine.state.epoch_length)

    def weight(self, engine: SemiSupervisedTrainer) -> float:
        """``w(t)``."""
        progress = self.progress(engine)
        return engine.max_weight * ramp_up(progress / engine.ramp) if progress > engine.start else 0.0

    def _iteration(self, engine: SemiSupervisedTrainer, batchdata: dict[str, torch.Tensor]) -> dict:
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        prepared = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        inputs, targets = prepared[:2]
        engine.state.output = {Keys.IMAGE: inputs, Keys.LABEL: targets}
        images, unlabelled = plain_tensor(inputs), unlabelled_images(engine, batchdata)
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with self._autocast(engine):
            batch = TwoStreams(images, plain_tensor(targets), unlabelled, engine.view(engine, unlabelled))
            weight = engine.weight(engine)
            # Unlabelled images that nothing asks for, and on which the labelled ones do not depend, are left out.
            both = weight > 0 or mixes_samples(engine.network)
            outputs = engine.forward(engine, torch.cat((images, batch.view)) if both else images)
            engine.state.output[Keys.PRED] = outputs[0][: len(images)]
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            wide = [at_least_float32(x) for x in outputs]
            batch.outputs = tuple(x[: len(images)] for x in wide)
            batch.outputs_unlabelled = tuple(x[len(images) :] for x in wide) if both else ()
            loss = engine._loss(engine, batch, weight)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.state.optimizer_scaler.scale(loss).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self._step(engine, engine.state.optimizer_scaler, [engine.optimizer], {})
        engine.after_step(engine, batch)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams, weight: float) -> torch.Tensor:
        out = engine.state.output
        loss = engine.supervised_loss(engine, batch)
        # Where it has no weight it is left out: a teacher's passes, a discriminator's.
        unsupervised = engine.unsupervised_loss(engine, batch) if weight else None
        out["supervised_loss"] = loss.detach()
        out["unsupervised_weight"] = loss.new_full((), weight if unsupervised is not None else 0.0)
        out["unsupervised_loss"] = torch.zeros_like(loss) if unsupervised is None else unsupervised.detach()
        out[Keys.LOSS] = loss if unsupervised is None else loss + weight * unsupervised
        return out[Keys.LOSS]
