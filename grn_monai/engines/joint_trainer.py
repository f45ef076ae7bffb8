"""GRN+: joint training of a generator and a segmentor by two-stage backpropagation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import EventEnum
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import nn
from torch.optim.optimizer import Optimizer

from grn_monai.errors import InputError
from grn_monai.options import check_choice

from ._common import (
    JointKeys,
    check_optimizer,
    frozen,
    kept_buffers,
    mixes_samples,
    plain_tensor,
    unwrapped,
)
from ._phases import JointEvents, LabelledPhase, Phase, Segment, View
from ._scaled import ScaledTrainer, Terms

__all__ = ["JointEvents", "JointTrainer"]


class JointTrainer(ScaledTrainer, SupervisedTrainer):
    """Train a generator G and a segmentor S together, as GRN+ does.

    One iteration, with images x ``(B, C, H, W)`` and labels y ``(B, 1, H, W)``:

    1. Stage 1: ``x̂ = G(x)``; ``L_G = seg_weight · loss(S(x̂), y)``; step ``joint_optimizer``. The loss reaches G
       through S, so that G learns images that are easy to segment.
    2. Stage 2: ``L_S = ½ [loss(S(x), y) + loss(S(x̂), y)]`` with x̂ detached; step ``optimizer`` (S alone).

    In ``alternate`` mode S does not move between the two, so both losses come from one pass and one
    backpropagation of S (``share_passes``); the steps are the same, in the same order (with Dropout in S, under one
    mask).

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
        joint_optimizer: steps on L_G: G and S (``segmentor_update="joint"``), or G alone (``"alternate"``, or
            ``s_optim="shared"``).
        segmentor_update: ``"joint"``: S moves on L_G too (GRN+ as printed). ``"alternate"``: L_G flows through
            S to G and leaves S as it is (Algorithm 1 of GRN).
        s_optim: where S moves on both losses, ``"separate"``: by ``joint_optimizer`` on L_G and by ``optimizer``
            on L_S, each with its own Adam state; ``"shared"``: by ``optimizer`` on both. Shared, a large
            ``seg_weight`` fills Adam's second moment and makes the steps on L_S tiny.
        refresh_generated: in stage 2 generate x̂ again with the updated G. In print x̂ is computed once.
        stages: 2, or 1 for the single-stage ablation, which omits stage 2.
        seg_weight: λ_seg. Negative, G makes images that are hard to segment (an ablation).
        share_passes: see above; has no effect in ``joint`` mode, with ``refresh_generated``, or where S holds
            BatchNorm, which would mix raw and enhanced images.
        amp: mixed precision on the CPU (bfloat16) or CUDA (``amp_kwargs["dtype"]``, default float16), with a
            gradient scaler per optimizer where float16 needs one.

    Raises:
        InputError: for an unknown option, or weights that leave G without a loss or S without a step.
        ValueError: for optimizers that hold the wrong parameters, ``accumulation_steps != 1`` or ``compile=True``.

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
        s_optim: str = "separate",
        refresh_generated: bool = False,
        stages: int = 2,
        seg_weight: float = 1.0,
        share_passes: bool = True,
        event_names: list[str | EventEnum | type[EventEnum]] | None = None,
        amp: bool = False,
        amp_kwargs: dict[str, Any] | None = None,
        accumulation_steps: int = 1,
        compile: bool = False,  # noqa: A002 - MONAI's name
        **kwargs: Any,
    ) -> None:
        check_choice("segmentor_update", segmentor_update, ("joint", "alternate"))
        check_choice("s_optim", s_optim, ("separate", "shared"))
        check_choice("stages", stages, (1, 2))
        if not isinstance(seg_weight, int | float) or not math.isfinite(seg_weight):
            raise InputError("seg_weight", repr(seg_weight), "a number", "Correct the option.")
        if stages == 1 and (segmentor_update == "alternate" or seg_weight == 0):
            raise InputError(
                "stages",
                f"1 with segmentor_update={segmentor_update!r} and seg_weight={seg_weight!r}",
                'segmentor_update="joint" and a seg_weight other than 0: the segmentor would never step',
                "Correct the options.",
            )
        self._refuse_unsupported(accumulation_steps, compile, "network", "generator")
        # Set before super().__init__: handlers attach inside it and may look at them.
        self.generator = generator
        self.joint_optimizer = joint_optimizer
        self.segmentor_update = segmentor_update
        self.s_optim = s_optim
        self.refresh_generated = refresh_generated
        self.stages = stages
        self.seg_weight = seg_weight
        self.share_passes = share_passes
        self._one_batch = not mixes_samples(network)
        self._check_losses()
        both = segmentor_update == "joint" and s_optim == "separate"
        check_optimizer("optimizer", optimizer, holds={"network": network}, lacks={"generator": generator})
        check_optimizer(
            "joint_optimizer",
            joint_optimizer,
            holds={"generator": generator, "network": network} if both else {"generator": generator},
            lacks={} if both else {"network": network},
        )
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

    def _check_losses(self) -> None:
        if self.seg_weight == 0:
            expected = "another weight: the generator has no other loss"
            raise InputError("seg_weight", "0", expected, "Correct the option.")

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """Every optimizer by its name, for checkpoints."""
        return {"optimizer": self.optimizer, "joint_optimizer": self.joint_optimizer}

    def _iteration(self, engine: JointTrainer, batchdata: dict[str, torch.Tensor]) -> dict:
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        batch = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        inputs, targets, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
        engine.state.output = {Keys.IMAGE: inputs, Keys.LABEL: targets}

        def run_network(images: torch.Tensor, network: nn.Module) -> torch.Tensor:
            return engine.inferer(images, network, *args, **kwargs)

        engine.generator.train()
        engine.network.train()
        for phase in engine.phases(engine, plain_tensor(inputs), plain_tensor(targets), batchdata):
            engine._run_phase(engine, phase, run_network)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    # What a method may add.

    def phases(
        self, engine: JointTrainer, inputs: torch.Tensor, targets: torch.Tensor, batchdata: Mapping[str, Any]
    ) -> Sequence[Phase]:
        """List the streams of images of one iteration, in order. GRN+ has the labelled one."""
        return [LabelledPhase(inputs, targets, engine.loss_function, engine.seg_weight, adversarial=False)]

    def generator_losses(self, engine: JointTrainer, phase: Phase, generated: torch.Tensor) -> Terms:
        """Further terms of L_G beside the loss of S, by their name in the output.

        Args:
            engine: the trainer.
            phase: the stream of images; ``phase.inputs`` are the raw ones.
            generated: G of them, with its graph.

        Returns:
            weight and 0-d loss of each term. GRN+ has none.
        """
        return {}

    def discriminator_stage(self, engine: JointTrainer, phase: Phase, generated: torch.Tensor) -> None:
        """Step a discriminator, after G generated and before L_G. GRN+ has none."""

    # One phase.

    def _run_phase(self, engine: JointTrainer, phase: Phase, run_network: Callable) -> None:
        with self._autocast(engine):
            view = phase.generate(engine.generator)
        if phase.main:
            engine.state.output[JointKeys.GENERATED] = view[0].detach()
        engine.discriminator_stage(engine, phase, view[0])
        shared = engine.share_passes and engine.segmentor_update == "alternate" and engine._one_batch
        if shared and engine.stages == 2 and not engine.refresh_generated:
            engine._shared_stages(engine, phase, view, run_network)
            return
        engine._generator_stage(engine, phase, view, run_network)
        if engine.stages == 2:
            engine._segmentor_stage(engine, phase, tuple(t.detach() for t in view), run_network)

    def _generator_stage(self, engine: JointTrainer, phase: Phase, view: View, run_network: Callable) -> None:
        out, last = engine.state.output, engine.stages == 1 and phase.main
        joint = engine.segmentor_update == "joint" and phase.weight != 0
        optimizers = [engine.joint_optimizer]
        if joint and engine.s_optim == "shared":
            optimizers.append(engine.optimizer)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        if not joint:
            # Adam would move S by its momentum on gradients of zero, but not on none.
            for p in engine.network.parameters():
                p.grad = None
        with frozen(engine.network, enabled=not joint):
            with self._autocast(engine):
                terms = engine.generator_losses(engine, phase, view[0])
                if phase.weight != 0:
                    # A frozen S has no gradients to share between processes, and its wrapper would wait for them.
                    network = engine.network if joint else unwrapped(engine.network)
                    [output] = phase.forward(self._segment(engine, run_network, network), [view])
                    if last:
                        out[Keys.PRED] = output
                        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
                    terms = {"": (phase.weight, phase.loss(output)), **terms}
                loss = self._total(engine, phase, terms)
            if last:
                out[Keys.LOSS] = loss
                engine.fire_event(IterationEvents.LOSS_COMPLETED)
            engine.state.joint_scaler.scale(loss).backward()
        if last:
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        norms = {phase.prefix + JointKeys.GRAD_NORM_GENERATOR: engine.generator}
        if joint:
            name = JointKeys.GRAD_NORM_SEGMENTOR if last else JointKeys.GRAD_NORM_SEGMENTOR_STAGE1
            norms[phase.prefix + name] = engine.network
        self._step(engine, engine.state.joint_scaler, optimizers, norms)
        engine.fire_event(phase.events[0])

    def _segmentor_stage(self, engine: JointTrainer, phase: Phase, view: View, run_network: Callable) -> None:
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with self._autocast(engine):
            if engine.refresh_generated:
                with torch.no_grad(), kept_buffers(engine.generator):
                    view = phase.generate(engine.generator)
                if phase.main:
                    engine.state.output[JointKeys.GENERATED] = view[0]
            loss, _ = self._segmentor_loss(engine, phase, view, run_network)
        self._segmentor_backward(engine, phase, loss)
        self._segmentor_step(engine, phase)

    def _shared_stages(self, engine: JointTrainer, phase: Phase, view: View, run_network: Callable) -> None:
        """Both stages from one pass of S, which L_G leaves as it is: ½ loss(S(x̂)) serves L_S and, scaled, L_G."""
        engine.joint_optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        reaches = phase.weight != 0
        leaves = tuple(t.detach().requires_grad_(reaches) for t in view)
        with self._autocast(engine):
            loss, enhanced = self._segmentor_loss(engine, phase, leaves, run_network)
        self._segmentor_backward(engine, phase, loss)
        with self._autocast(engine):
            terms = engine.generator_losses(engine, phase, view[0])
            seg = {"": (phase.weight, enhanced.detach())} if reaches else {}
            total = self._total(engine, phase, {**seg, **terms})
        one = torch.ones((), device=engine.state.device)
        joint_scale = engine.state.joint_scaler.scale(one)
        factor = 2 * phase.weight * joint_scale / engine.state.optimizer_scaler.scale(one)
        ends = [(t, leaf.grad * factor) for t, leaf in zip(view, leaves, strict=True) if leaf.grad is not None]
        if total.requires_grad:
            ends.append((total, joint_scale.to(total.dtype)))
        torch.autograd.backward([t for t, _ in ends], [g for _, g in ends])
        norms = {phase.prefix + JointKeys.GRAD_NORM_GENERATOR: engine.generator}
        self._step(engine, engine.state.joint_scaler, [engine.joint_optimizer], norms)
        engine.fire_event(phase.events[0])
        self._segmentor_step(engine, phase)

    def _total(self, engine: JointTrainer, phase: Phase, terms: Terms) -> torch.Tensor:
        """L_G, with itself and its named terms (unweighted) put into the output."""
        total = self._weighted(engine, terms, phase.prefix)
        engine.state.output[phase.prefix + JointKeys.STAGE1_LOSS] = total.detach()
        return total

    def _segmentor_loss(
        self, engine: JointTrainer, phase: Phase, view: View, run_network: Callable
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """L_S and its enhanced term. One pass of S over both views costs less than two."""
        out = engine.state.output
        raw, enhanced = phase.forward(self._segment(engine, run_network, engine.network), [phase.raw, view])
        if phase.main:
            out[Keys.PRED], out[JointKeys.PRED_SGE] = raw, enhanced
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss_raw, loss_sge = phase.loss(raw), phase.loss(enhanced)
        loss = 0.5 * (loss_raw + loss_sge)
        out[phase.prefix + JointKeys.LOSS_RAW] = loss_raw.detach()
        out[phase.prefix + JointKeys.LOSS_SGE] = loss_sge.detach()
        out[phase.prefix + Keys.LOSS] = loss if phase.main else loss.detach()
        if phase.main:
            engine.fire_event(IterationEvents.LOSS_COMPLETED)
        return loss, loss_sge

    def _segmentor_backward(self, engine: JointTrainer, phase: Phase, loss: torch.Tensor) -> None:
        engine.state.optimizer_scaler.scale(loss).backward()
        if phase.main:
            engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

    def _segmentor_step(self, engine: JointTrainer, phase: Phase) -> None:
        norms = {phase.prefix + JointKeys.GRAD_NORM_SEGMENTOR: engine.network}
        self._step(engine, engine.state.optimizer_scaler, [engine.optimizer], norms)
        engine.fire_event(phase.events[1])

    @staticmethod
    def _segment(engine: JointTrainer, run_network: Callable, network: nn.Module) -> Segment:
        def segment(images: Sequence[torch.Tensor], grad: bool = True) -> Sequence[torch.Tensor]:
            # Without gradients there is nothing to share between processes.
            net = network if grad else unwrapped(network)
            with torch.set_grad_enabled(grad):
                # With BatchNorm in S the batches would not be independent, so then S sees them one by one.
                if engine._one_batch and len(images) > 1:
                    return run_network(torch.cat(tuple(images)), net).chunk(len(images))
                return [run_network(x, net) for x in images]

        return segment
