"""What G and S are asked on one stream of images: the part of a joint iteration that differs between methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from ignite.engine import EventEnum
from torch import nn

from grn_monai.losses import Interpolation

from ._common import at_least_float32, without_statistics

__all__ = ["ConsistencyPhase", "JointEvents", "LabelledPhase", "Phase", "Segment", "View"]

View = tuple[torch.Tensor, ...]
"""Batches of images that one loss of S needs together, each ``(B, C, H, W)``."""


class Segment(Protocol):
    """S on several batches of images of one size, in one pass where S allows it; logits of each."""

    def __call__(self, images: Sequence[torch.Tensor], grad: bool = True) -> Sequence[torch.Tensor]:
        """Segment; without gradients if not ``grad``."""


class JointEvents(EventEnum):
    """Moments of a joint iteration beside MONAI's ``IterationEvents``; each at most once an iteration.

    - ``DISCRIMINATOR_COMPLETED``: the discriminator stepped on raw and enhanced images.
    - ``STAGE1_COMPLETED``: the generator (and, in ``joint`` mode, the segmentor) stepped on the loss of S(G(x)).
    - ``STAGE2_COMPLETED``: the segmentor stepped on the raw and the enhanced images.
    - ``UNLABELED_STAGE1_COMPLETED``, ``UNLABELED_STAGE2_COMPLETED``: the same on unlabelled images (GRN-SSL).
    """

    DISCRIMINATOR_COMPLETED = "discriminator_completed"
    STAGE1_COMPLETED = "stage1_completed"
    STAGE2_COMPLETED = "stage2_completed"
    UNLABELED_STAGE1_COMPLETED = "unlabeled_stage1_completed"
    UNLABELED_STAGE2_COMPLETED = "unlabeled_stage2_completed"


class Phase(Protocol):
    """One stream of images in an iteration.

    Attributes:
        prefix: before the names of its scalars in the output.
        main: whether MONAI's events, ``pred`` and ``loss`` of the iteration are this phase's.
        events: fired after stage 1 and stage 2.
        inputs: images ``(B, C, H, W)``.
        raw: what S sees in stage 2 beside the enhanced view.
        weight: of the loss of the enhanced view in L_G.
        adversarial: whether the discriminator takes part.
    """

    prefix: str
    main: bool
    events: tuple[Any, Any]
    inputs: torch.Tensor
    raw: View
    weight: float
    adversarial: bool

    def generate(self, generator: nn.Module) -> View:
        """Make the enhanced view; first G(inputs)."""

    def forward(self, segment: Segment, views: Sequence[View]) -> list[Any]:
        """S on some views, in as few passes as possible."""

    def loss(self, output: Any) -> torch.Tensor:
        """Compute the loss (0-d) of one view from its part of ``forward``'s result."""


class LabelledPhase:
    """Segmentation loss against the label.

    Args:
        inputs: images ``(B, C, H, W)``.
        targets: labels ``(B, 1, H, W)``.
        loss_function: of logits and labels.
        weight: λ_seg.
        adversarial: whether the discriminator takes part.
    """

    prefix = ""
    main = True
    events: tuple[Any, Any] = (JointEvents.STAGE1_COMPLETED, JointEvents.STAGE2_COMPLETED)

    def __init__(
        self, inputs: torch.Tensor, targets: torch.Tensor, loss_function: Callable, weight: float, adversarial: bool
    ) -> None:
        self.inputs, self.targets = inputs, targets
        self.raw: View = (inputs,)
        self.loss_function = loss_function
        self.weight = weight
        self.adversarial = adversarial

    def generate(self, generator: nn.Module) -> View:
        """G(x)."""
        return (generator(self.inputs).to(self.inputs.dtype),)

    def forward(self, segment: Segment, views: Sequence[View]) -> list[Any]:
        """Logits of each view."""
        return list(segment([view[0] for view in views]))

    def loss(self, output: torch.Tensor) -> torch.Tensor:
        """Segmentation loss of one view's logits."""
        return self.loss_function(at_least_float32(output), self.targets).mean()


class ConsistencyPhase:
    """Interpolation consistency: S of a mixture of two images against the mixture of S of the two.

    The raw images are mixed, and the mixture goes through G and S (GRN's text; its equation would mix
    reconstructions). Mixtures stay out of the running statistics of G's BatchNorm; in those of an S with BatchNorm
    (the bundles' U-Net has none) they take part.

    Args:
        inputs: unlabelled images ``(B, C, H, W)``, B at least 2.
        interpolation: partners and shares.
        weight: λ of the consistency in L_G.
        target_grad: let gradients flow through the targets too. Without, they are constants: with, a constant
            segmentation is a minimum.
    """

    prefix = "unlabeled_"
    main = False
    events: tuple[Any, Any] = (JointEvents.UNLABELED_STAGE1_COMPLETED, JointEvents.UNLABELED_STAGE2_COMPLETED)
    adversarial = True

    def __init__(
        self, inputs: torch.Tensor, interpolation: Interpolation, weight: float = 1.0, target_grad: bool = False
    ) -> None:
        self.inputs = inputs
        self.interpolation = interpolation
        self.raw: View = (inputs, interpolation.mix(inputs))
        self.weight = weight
        self.target_grad = target_grad

    def generate(self, generator: nn.Module) -> View:
        """G(u) and G(mix(u))."""
        plain = generator(self.inputs).to(self.inputs.dtype)
        # Inference meets no mixtures, so they stay out of the statistics that it uses.
        with without_statistics(generator):
            mixed = generator(self.raw[1]).to(self.inputs.dtype)
        return plain, mixed

    def forward(self, segment: Segment, views: Sequence[View]) -> list[Any]:
        """Logits of the mixtures and of the images, for each view."""
        plain, mixed = [view[0] for view in views], [view[1] for view in views]
        if self.target_grad:
            both = segment([*mixed, *plain])
            return list(zip(both[: len(views)], both[len(views) :], strict=True))
        targets = segment(plain, grad=False)
        return list(zip(segment(mixed), targets, strict=True))

    def loss(self, output: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Consistency loss of one view."""
        mixed, plain = (at_least_float32(logits) for logits in output)
        return self.interpolation.loss(mixed, plain)
