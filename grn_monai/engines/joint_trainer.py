"""GRN+: joint training of a generator and a segmentor by two-stage backpropagation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from ignite.engine import EventEnum
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.engines.workflow import Workflow
from monai.utils.enums import CommonKeys as Keys
from torch import nn
from torch.optim.optimizer import Optimizer

from ._common import (
    JointKeys,
    at_least_float32,
    check_optimizer,
    frozen,
    grad_norm,
    kept_buffers,
    make_scaler,
    mixes_samples,
    plain_tensor,
    unwrapped,
)

__all__ = ["JointEvents", "JointTrainer"]


class JointEvents(EventEnum):
    """Moments of a joint iteration beside MONAI's ``IterationEvents``.

    - ``STAGE1_COMPLETED``: the generator (and, in ``joint`` mode, the segmentor) stepped on the loss of S(G(x)).
    - ``STAGE2_COMPLETED``: the segmentor stepped on the raw and the enhanced images.
    """

    STAGE1_COMPLETED = "stage1_completed"
    STAGE2_COMPLETED = "stage2_completed"


class JointTrainer(SupervisedTrainer):
    """Train a generator G and a segmentor S together, as GRN+ does.

    One iteration, with images x ``(B, C, H, W)`` and labels y ``(B, 1, H, W)``:

    1. Stage 1: ``x̂ = G(x)``; ``L_G = seg_weight · loss(S(x̂), y)``; step ``joint_optimizer``. The loss reaches G
       through S, so that G learns images that are easy to segment.
    2. Stage 2: ``L_S = ½ [loss(S(x), y) + loss(S(x̂), y)]`` with x̂ detached; step ``optimizer`` (S alone).

    S keeps MONAI's names ``network`` and ``optimizer``, so that evaluators, checkpoints and MONAI Label stay
    stock. ``FORWARD_``, ``LOSS_``, ``BACKWARD_`` and ``MODEL_COMPLETED`` fire once an iteration, for the last
    pass of S; the stages have ``JointEvents``. ``engine.state.output`` holds ``image``, ``label``,
    ``generated`` (x̂ as S saw it last), ``pred`` (logits of S(x); with ``stages=1`` of S(x̂)), ``pred_sge``
    (logits of S(x̂), two stages) and the scalars ``loss`` (L_S, or L_G with ``stages=1``; unscaled),
    ``stage1_loss`` (L_G), ``loss_raw`` and ``loss_sge`` (the two terms of L_S), and the gradient norms
    ``grad_norm_generator``, ``grad_norm_segmentor_stage1`` (joint mode) and ``grad_norm_segmentor`` (stage 2).

    Args:
        device, max_epochs, train_data_loader, loss_function, …: as in ``monai.engines.SupervisedTrainer``.
        network: the segmentor S.
        optimizer: steps S alone, on L_S.
        generator: G, image to image of the same shape, in [-1, 1].
        joint_optimizer: steps G and S (``segmentor_update="joint"``) or G alone (``"alternate"``), on L_G. With
            an optimizer of its own for each loss, S keeps two Adam states: the two losses differ in scale.
        segmentor_update: ``"joint"``: S moves on L_G too (GRN+ as printed). ``"alternate"``: L_G flows through
            S to G and leaves S as it is (Algorithm 1 of GRN).
        refresh_generated: in stage 2 generate x̂ again with the updated G. In print x̂ is computed once.
        stages: 2, or 1 for the single-stage ablation, which omits stage 2.
        seg_weight: λ_seg.
        amp: mixed precision on the CPU (bfloat16) or CUDA (``amp_kwargs["dtype"]``, default float16), with a
            gradient scaler per optimizer where float16 needs one.

    Raises:
        ValueError: for an unknown ``segmentor_update`` or ``stages``, optimizers that hold the wrong
            parameters, ``accumulation_steps != 1`` or ``compile=True``.

    Source: "GRN+: A Simplified Generative Reinforcement Network for Tissue Layer Analysis in 3D Ultrasound
    Images for Chronic Low-back Pain".
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable,
        generator: nn.Module,
        joint_optimizer: Optimizer,
        segmentor_update: str = "joint",
        refresh_generated: bool = False,
        stages: int = 2,
        seg_weight: float = 1.0,
        event_names: list[str | EventEnum | type[EventEnum]] | None = None,
        amp: bool = False,
        amp_kwargs: dict[str, Any] | None = None,
        accumulation_steps: int = 1,
        compile: bool = False,  # noqa: A002 - MONAI's name
        **kwargs: Any,
    ) -> None:
        if segmentor_update not in ("joint", "alternate"):
            raise ValueError(f'segmentor_update must be "joint" or "alternate", got {segmentor_update!r}.')
        if stages not in (1, 2):
            raise ValueError(f"stages must be 1 or 2, got {stages!r}.")
        if stages == 1 and segmentor_update == "alternate":
            raise ValueError('stages=1 with segmentor_update="alternate" would never step the segmentor. Use "joint".')
        if accumulation_steps != 1:
            raise ValueError(
                f"{type(self).__name__} steps several optimizers in one iteration and does not accumulate "
                f"gradients: got accumulation_steps={accumulation_steps}. Raise the batch size instead."
            )
        if compile:
            raise ValueError(
                f"{type(self).__name__} does not compile networks itself. Compile them in the config instead, "
                "in place, so that checkpoints keep their names: `network.compile()` and `generator.compile()`."
            )
        joint = segmentor_update == "joint"
        check_optimizer("optimizer", optimizer, holds={"network": network}, lacks={"generator": generator})
        check_optimizer(
            "joint_optimizer",
            joint_optimizer,
            holds={"generator": generator, "network": network} if joint else {"generator": generator},
            lacks={} if joint else {"network": network},
        )
        # Set before super().__init__: handlers attach inside it and may look at them.
        self.generator = generator
        self.joint_optimizer = joint_optimizer
        self.segmentor_update = segmentor_update
        self.refresh_generated = refresh_generated
        self.stages = stages
        self.seg_weight = seg_weight
        self._one_batch = not mixes_samples(network)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            # A fresh list: Workflow appends to the one it is given.
            event_names=[*(event_names or []), JointEvents],
            amp=amp,
            amp_kwargs=amp_kwargs,
            **kwargs,
        )
        self._add_scaler("optimizer_scaler")
        self._add_scaler("joint_scaler")

    def _add_scaler(self, name: str) -> None:
        """Keep a gradient scaler in ``engine.state`` under ``name`` and in the trainer's state dict."""
        setattr(self.state, name, make_scaler(self.state.device, self.amp, self.amp_kwargs))
        self._state_dict_user_keys.append(name)

    def state_dict(self) -> dict[str, Any]:
        """The engine's state with each scaler as its own state dict (tensors and numbers only)."""
        state = dict(super().state_dict())
        return {k: v.state_dict() if isinstance(v, torch.amp.GradScaler) else v for k, v in state.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        scalers = {k: v for k, v in vars(self.state).items() if isinstance(v, torch.amp.GradScaler)}
        super().load_state_dict(state_dict)
        for name, scaler in scalers.items():
            scaler.load_state_dict(state_dict[name])
            setattr(self.state, name, scaler)  # ignite put the plain dict there

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """Every optimizer by its name, for checkpoints."""
        return {"optimizer": self.optimizer, "joint_optimizer": self.joint_optimizer}

    def run(self) -> None:
        """Train. Called again, it goes on from the state it is in."""
        # Trainer.run would make a CUDA scaler at every call and so forget the scale: the scalers live in the state.
        Workflow.run(self)

    def _iteration(self, engine: JointTrainer, batchdata: dict[str, torch.Tensor]) -> dict:
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        batch = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        inputs, targets, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
        engine.state.output = {Keys.IMAGE: inputs, Keys.LABEL: targets}
        inputs, targets = plain_tensor(inputs), plain_tensor(targets)

        def segment(images: torch.Tensor, network: nn.Module = engine.network) -> torch.Tensor:
            return engine.inferer(images, network, *args, **kwargs)

        engine.generator.train()
        engine.network.train()
        engine._generator_stage(engine, inputs, targets, segment)
        engine.fire_event(JointEvents.STAGE1_COMPLETED)
        if engine.stages == 2:
            engine._segmentor_stage(engine, inputs, targets, segment)
            engine.fire_event(JointEvents.STAGE2_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def generator_losses(
        self, engine: JointTrainer, inputs: torch.Tensor, generated: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Further weighted terms of L_G beside the segmentation loss, by their name in the output.

        Args:
            engine: the trainer.
            inputs: images ``(B, C, H, W)``.
            generated: G(inputs), with its graph.

        Returns:
            0-d tensors that are added to L_G. GRN+ has none.
        """
        return {}

    def _generator_stage(
        self, engine: JointTrainer, inputs: torch.Tensor, targets: torch.Tensor, segment: Callable
    ) -> None:
        out, last = engine.state.output, engine.stages == 1
        joint = engine.segmentor_update == "joint"
        engine.joint_optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with frozen(engine.network, enabled=not joint):
            with self._autocast(engine):
                generated = engine.generator(inputs)
                # A frozen S has no gradients to share between processes, and its wrapper would wait for them.
                logits = segment(generated) if joint else segment(generated, unwrapped(engine.network))
                out[JointKeys.GENERATED] = generated.detach()
                if last:
                    out[Keys.PRED] = logits
                    engine.fire_event(IterationEvents.FORWARD_COMPLETED)
                loss = engine.seg_weight * engine.loss_function(at_least_float32(logits), targets).mean()
                for name, term in engine.generator_losses(engine, inputs, generated).items():
                    out[name] = term.detach()
                    loss = loss + term
            out[JointKeys.STAGE1_LOSS] = loss.detach()
            if last:
                out[Keys.LOSS] = loss
                engine.fire_event(IterationEvents.LOSS_COMPLETED)
            engine.state.joint_scaler.scale(loss).backward()
        if last:
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.state.joint_scaler.unscale_(engine.joint_optimizer)
        out[JointKeys.GRAD_NORM_GENERATOR] = grad_norm(engine.generator)
        if joint:
            name = JointKeys.GRAD_NORM_SEGMENTOR if last else JointKeys.GRAD_NORM_SEGMENTOR_STAGE1
            out[name] = grad_norm(engine.network)
        engine.state.joint_scaler.step(engine.joint_optimizer)
        engine.state.joint_scaler.update()

    def _segmentor_stage(
        self, engine: JointTrainer, inputs: torch.Tensor, targets: torch.Tensor, segment: Callable
    ) -> None:
        out = engine.state.output
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with self._autocast(engine):
            if engine.refresh_generated:
                with torch.no_grad(), kept_buffers(engine.generator):
                    out[JointKeys.GENERATED] = engine.generator(inputs)
            generated = out[JointKeys.GENERATED].to(inputs.dtype)
            # One pass over both halves costs less than two; with BatchNorm in S the halves would not be
            # independent, so then S sees them one after the other.
            if engine._one_batch:
                raw, sge = segment(torch.cat((inputs, generated))).chunk(2)
            else:
                raw, sge = segment(inputs), segment(generated)
            out[Keys.PRED], out[JointKeys.PRED_SGE] = raw, sge
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            loss_raw = engine.loss_function(at_least_float32(raw), targets).mean()
            loss_sge = engine.loss_function(at_least_float32(sge), targets).mean()
            loss = 0.5 * (loss_raw + loss_sge)
        out[JointKeys.LOSS_RAW], out[JointKeys.LOSS_SGE] = loss_raw.detach(), loss_sge.detach()
        out[Keys.LOSS] = loss
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        engine.state.optimizer_scaler.scale(loss).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        engine.state.optimizer_scaler.unscale_(engine.optimizer)
        out[JointKeys.GRAD_NORM_SEGMENTOR] = grad_norm(engine.network)
        engine.state.optimizer_scaler.step(engine.optimizer)
        engine.state.optimizer_scaler.update()

    @staticmethod
    def _autocast(engine: JointTrainer) -> torch.autocast:
        kwargs = dict(engine.amp_kwargs)
        return torch.autocast(engine.state.device.type, enabled=engine.amp and kwargs.pop("enabled", True), **kwargs)
