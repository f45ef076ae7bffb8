"""GRN-SSL: GRN-SEL with interpolation consistency on unlabelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from grn_monai.errors import InputError
from grn_monai.losses import Interpolation
from grn_monai.options import check_choice

from ._adversarial import check_weights
from ._common import unlabelled_images
from ._phases import ConsistencyPhase, LabelledPhase, Phase
from .adversarial_trainer import AdversarialJointTrainer
from .joint_trainer import JointTrainer

__all__ = ["SemiSupervisedJointTrainer"]


class SemiSupervisedJointTrainer(AdversarialJointTrainer):
    """Train G, S and D together on labelled and unlabelled images, as GRN-SSL does.

    One iteration has two phases. On labelled images, as GRN-SEL without D: ``L_G = seg_weight · loss(S(x̂), y) +
    l1_weight · mean|x̂ - x|``, then L_S. On unlabelled images u, with ``mix`` drawn anew:

    1. ``û = G(u)``; L_D on u and û; step D.
    2. Stage 1: ``L_G = adv_weight · MSE(D(û), 1) + consistency_weight · ICT(S∘G) + l1_weight · mean|û - u|`` with
       ``ICT(F) = MSE(F(mix(u)), mix(F(u)))`` over softmax probabilities.
    3. Stage 2: ``L_S = ½ [ICT(S) + ICT(S∘G)]``; S∘G on the images of stage 1.

    The batch is a dict with ``image``, ``label`` and ``unlabeled`` ``(B_u, C, H, W)``, as a ``DataLoader`` with
    ``TwoStreamBatchSampler`` and ``two_stream_collate`` gives; ``prepare_batch`` sees the labelled half only. MONAI's
    events, ``pred`` and ``loss`` are those of the labelled phase; the scalars of the other are in the output under
    ``unlabeled_…``.

    Args:
        consistency_weight: λ of the consistency in L_G.
        alpha: λ of each mixture is drawn from Beta(alpha, alpha).
        mix_per: ``"image"``: a λ for each image; ``"batch"``: one for all.
        target_grad: let gradients flow through ``mix(F(u))`` too. Off by default: a constant segmentation would
            be a minimum.
        **kwargs: as in ``AdversarialJointTrainer``.

    Raises:
        InputError: for a negative weight, an ``alpha`` that is not above 0, an unknown ``mix_per``, ``stages=1``, or
            a batch with a single unlabelled image.
        ValueError: for a batch without unlabelled images, and whatever ``AdversarialJointTrainer`` refuses.

    Source: "Generative Reinforcement Network (GRN) for Tissue Layer Segmentation in Chronic Low-back Pain
    (cLBP) assessment", arXiv 2501.17690.
    """

    def __init__(
        self,
        *args: Any,
        consistency_weight: float = 1.0,
        alpha: float = 0.2,
        mix_per: str = "image",
        target_grad: bool = False,
        **kwargs: Any,
    ) -> None:
        check_weights(consistency_weight=consistency_weight)
        if not alpha > 0:
            raise InputError("alpha", repr(alpha), "a number above 0", "Correct the option.")
        check_choice("mix_per", mix_per, ("image", "batch"))
        check_choice("stages", kwargs.get("stages", 2), (2,))
        self.consistency_weight = consistency_weight
        self.alpha = alpha
        self.mix_per = mix_per
        self.target_grad = target_grad
        super().__init__(*args, **kwargs)

    def _check_losses(self) -> None:
        mend = "Raise one of them."
        if self.seg_weight == self.l1_weight == 0:
            found = "seg_weight and l1_weight of 0"
            raise InputError("L_G", found, "a loss for the generator on labelled images", mend)
        if self.adv_weight == self.consistency_weight == self.l1_weight == 0:
            found = "adv_weight, consistency_weight and l1_weight of 0"
            raise InputError("L_G", found, "a loss for the generator on unlabelled images", mend)

    def phases(
        self, engine: JointTrainer, inputs: torch.Tensor, targets: torch.Tensor, batchdata: Mapping[str, Any]
    ) -> Sequence[Phase]:
        """List the labelled stream without D, then the unlabelled stream with it."""
        labelled = LabelledPhase(inputs, targets, engine.loss_function, engine.seg_weight, adversarial=False)
        unlabelled = unlabelled_images(engine, batchdata)
        if len(unlabelled) < 2:
            mend = "Raise unlabelled_batch_size: interpolation consistency pairs the unlabelled images of a batch."
            raise InputError("the batch", f"{len(unlabelled)} unlabelled image", "at least 2", mend)
        pairs = Interpolation.draw(len(unlabelled), self.alpha, self.mix_per, engine.state.device)
        return [labelled, ConsistencyPhase(unlabelled, pairs, self.consistency_weight, self.target_grad)]
