"""UAMT: Mean Teacher where the teacher is certain."""

from __future__ import annotations

import math
from typing import Any

import torch

from grn_monai.errors import InputError
from grn_monai.losses import masked_consistency, predictive_entropy

from .._common import mixes_samples
from ..semi_supervised_trainer import SemiSupervisedTrainer, TwoStreams, ramp_up
from ._teacher import TeacherTrainer, check_noise, noisy

__all__ = ["UAMTTrainer"]


class UAMTTrainer(TeacherTrainer):
    """``L = L_sup + w(t) · Σ M (p_student(u) - p_teacher(u + noise))² / (C · Σ M)`` over the pixels M that are certain.

    The uncertainty U of a pixel is the entropy of the mean of ``passes`` segmentations by the teacher, each of newly
    noisy images (and, in a network with dropout, under its own mask); a pixel is in M where
    ``U < (¾ + ¼ · exp(-5 (1 - t/T_max)²)) · ln C``. A further pass gives the target. Without dropout the noise is all
    that differs, and U is nearly the plain entropy of one pass.

    The output has the further scalar ``certain_share``, the share of pixels in M.

    Args:
        noise: as in ``MeanTeacherTrainer``.
        passes: segmentations by the teacher for U, from 1.
        compat_ssl4mis: keep the two-class constants of the reference code for any number of classes: 2 for C in the
            denominator and ln 2 for ln C in the threshold.
        **kwargs: as in ``TeacherTrainer`` and ``SemiSupervisedTrainer``.

    Raises:
        InputError: for a negative noise or fewer than one pass, and whatever ``TeacherTrainer`` refuses.

    Source: Yu et al., "Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium Segmentation", 2019;
    number of classes as its author says (UA-MT, issues 7 and 18).
    """

    method = "uamt"

    def __init__(
        self, *args: Any, noise: float = 0.2, passes: int = 8, compat_ssl4mis: bool = False, **kwargs: Any
    ) -> None:
        check_noise(noise)
        if passes < 1:
            raise InputError("passes", repr(passes), "a whole number from 1", "Correct the option.")
        self.noise = noise
        self.passes = passes
        self.compat_ssl4mis = compat_ssl4mis
        super().__init__(*args, **kwargs)

    def unsupervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
        """The masked consistency, 0-d."""
        student = batch.outputs_unlabelled[0].softmax(1)
        classes = 2 if self.compat_ssl4mis else student.shape[1]
        target, *others = self._teach_noisy(batch.unlabelled, 1 + self.passes)
        mean = torch.stack(others).mean(0)
        threshold = (0.75 + 0.25 * ramp_up(engine.progress(engine))) * math.log(classes)
        certain = predictive_entropy(mean) < threshold
        engine.state.output["certain_share"] = certain.to(student.dtype).mean()
        return masked_consistency(student, target, certain, classes)

    def _teach_noisy(self, images: torch.Tensor, times: int) -> list[torch.Tensor]:
        """The teacher's class probabilities of ``times`` newly noisy copies of images, each ``(B, C, H, W)``."""
        copies = [noisy(images, self.noise) for _ in range(times)]
        # Two at a time, as the reference code does: faster, and larger batches need more memory (and on the CPU more
        # time). With BatchNorm an image's result would depend on the other copy.
        step = 1 if mixes_samples(self.teacher) else 2
        passes = [torch.cat(copies[i : i + step]) for i in range(0, times, step)]
        return [p for batch in passes for p in self.teach(batch).split(len(images))]
