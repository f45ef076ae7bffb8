"""ICT: a mixture of two images is segmented as the mixture of the teacher's segmentations."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import mse_loss

from grn_monai.errors import InputError

from ..semi_supervised_trainer import SemiSupervisedTrainer, TwoStreams
from ._teacher import TeacherTrainer

__all__ = ["ICTTrainer"]


class ICTTrainer(TeacherTrainer):
    """``L = L_sup + w(t) · mean (p_student(mix(u0, u1)) - mix(p_teacher(u0), p_teacher(u1)))²``.

    u0 and u1 are the halves of the unlabelled batch, ``mix(a, b) = (1 - λ) a + λ b`` with λ ~ Beta(alpha, alpha) for
    each pair. The student sees the mixtures and never the unlabelled images themselves; labelled images are not mixed.

    Args:
        alpha: see above.
        **kwargs: as in ``TeacherTrainer`` and ``SemiSupervisedTrainer``.

    Raises:
        InputError: for an ``alpha`` that is not above 0, a batch with an odd number of unlabelled images, and whatever
            ``TeacherTrainer`` refuses.

    Source: Verma et al., "Interpolation Consistency Training for Semi-Supervised Learning", 2019.
    """

    method = "ict"

    def __init__(self, *args: Any, alpha: float = 0.2, **kwargs: Any) -> None:
        if not alpha > 0:
            raise InputError("alpha", repr(alpha), "a number above 0", "Correct the option.")
        self.alpha = alpha
        self.share = torch.zeros(0, 1, 1, 1)
        super().__init__(*args, **kwargs)

    def view(self, engine: SemiSupervisedTrainer, unlabelled: torch.Tensor) -> torch.Tensor:
        """The mixtures ``(B_u / 2, 1, H, W)`` of a newly drawn λ for each pair."""
        if len(unlabelled) % 2:
            found = f"{len(unlabelled)} unlabelled images"
            mend = "Choose an even unlabelled_batch_size: ICT mixes one half with the other."
            raise InputError("the batch", found, "an even number", mend)
        # Drawn on the CPU, so that the draw does not depend on the device.
        concentration = torch.full((len(unlabelled) // 2, 1, 1, 1), float(self.alpha))
        share = torch.distributions.Beta(concentration, concentration).sample()
        self.share = share.to(unlabelled.device, unlabelled.dtype)
        return self.mix(unlabelled)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        """``(1 - λ) x0 + λ x1`` of the halves of ``(B, …)``, ``(B / 2, …)``, with the λ of this iteration."""
        first, second = x.chunk(2)
        return torch.lerp(first, second, self.share.to(x.dtype))

    def unsupervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
        """Mean squared difference over mixtures, classes and pixels, 0-d in [0, 1]."""
        return mse_loss(batch.outputs_unlabelled[0].softmax(1), self.mix(self.teach(batch.unlabelled)))
