"""Mean Teacher: the student agrees with the average of its past selves on noisy images."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import mse_loss

from ..semi_supervised_trainer import SemiSupervisedTrainer, TwoStreams
from ._teacher import TeacherTrainer, check_noise, noisy

__all__ = ["MeanTeacherTrainer"]


class MeanTeacherTrainer(TeacherTrainer):
    """``L = L_sup + w(t) · mean (p_student(u) - p_teacher(u + noise))²``, mean over images, classes and pixels.

    The student sees the unlabelled images u as they are.

    Args:
        start: as in ``SemiSupervisedTrainer``; by default 1/30, the 1,000 of 30,000 iterations of the reference code.
        noise: standard deviation of the teacher's noise, which is cut at twice that, in the units of the images. The
            reference has 0.1 for images in [0, 1]; ours lie in [-1, 1], so that 0.2 is as much.
        **kwargs: as in ``TeacherTrainer`` and ``SemiSupervisedTrainer``.

    Raises:
        InputError: for a negative noise, and whatever ``TeacherTrainer`` refuses.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", 2017, as the public reference code for
    medical images (SSL4MIS) reads it.
    """

    method = "mean_teacher"

    def __init__(self, *args: Any, start: float = 1 / 30, noise: float = 0.2, **kwargs: Any) -> None:
        check_noise(noise)
        self.noise = noise
        super().__init__(*args, start=start, **kwargs)

    def unsupervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
        """Mean squared difference of the class probabilities of student and teacher, 0-d in [0, 1]."""
        target = self.teach(noisy(batch.unlabelled, self.noise))
        return mse_loss(batch.outputs_unlabelled[0].softmax(1), target)
