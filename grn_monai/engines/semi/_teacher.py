"""A student and its teacher: the moving average of the student's weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from grn_monai.errors import InputError
from grn_monai.options import check_choice

from .._common import at_least_float32, unwrapped
from ..semi_supervised_trainer import SemiSupervisedTrainer, TwoStreams

__all__ = ["TeacherTrainer", "check_noise", "noisy", "student_or_teacher", "teacher_of"]


def teacher_of(network: nn.Module) -> nn.Module:
    """A copy of a network whose parameters need no gradient."""
    return copy.deepcopy(unwrapped(network)).requires_grad_(False)


def student_or_teacher(infer_with: str, student: nn.Module, teacher: nn.Module) -> nn.Module:
    """The network that is validated and saved, ``"student"`` or ``"teacher"``; for a bundle's config.

    Raises:
        InputError: for another word.
    """
    check_choice("infer_with", infer_with, ("student", "teacher"))
    return teacher if infer_with == "teacher" else student


def check_noise(noise: float) -> None:
    """Refuse a standard deviation that is none.

    Raises:
        InputError: for a negative one, or no number.
    """
    if not (math.isfinite(noise) and noise >= 0):
        raise InputError("noise", repr(noise), "a number from 0", "Correct the option.")


def noisy(images: torch.Tensor, noise: float) -> torch.Tensor:
    """Images plus Gaussian noise of standard deviation ``noise``, the noise cut at twice that."""
    return images + (noise * torch.randn_like(images)).clamp(-2 * noise, 2 * noise)


class TeacherTrainer(SemiSupervisedTrainer):
    """What methods with a teacher share; by itself it trains on the labelled images alone.

    The teacher starts as a copy of the student (``network``). After each step of the student each of its parameters
    becomes ``a θ' + (1 - a) θ``, ``a = min(1 - 1/t, ema_decay)`` with the iteration ``t`` from 1, so that it is the
    student until ``t = 2``. Buffers (BatchNorm's statistics) are the teacher's own: it stays in training mode, as in
    the reference code of the methods, with its dropout on. It gets no gradient.

    Args:
        teacher: the module that becomes the teacher, of the student's kind, where a config needs it before the trainer
            is made (for validation); its weights are overwritten. By default a copy is made.
        ema_decay: the largest ``a``, in [0, 1).
        **kwargs: as in ``SemiSupervisedTrainer``.

    Raises:
        InputError: for a decay outside its range, or a teacher that is the student or of another kind.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable,
        network: nn.Module,
        optimizer: Optimizer,
        loss_function: Callable,
        teacher: nn.Module | None = None,
        ema_decay: float = 0.99,
        **kwargs: Any,
    ) -> None:
        if not 0 <= ema_decay < 1:
            raise InputError("ema_decay", repr(ema_decay), "a number from 0 below 1", "Correct the option.")
        student = unwrapped(network)
        if teacher is student:
            raise InputError("teacher", "the student itself", "a network of its own", "Give a copy (`teacher_of`).")
        self.teacher = teacher_of(student) if teacher is None else teacher.requires_grad_(False)
        try:
            self.teacher.load_state_dict(student.state_dict())
        except RuntimeError as error:
            found = f"another network ({str(error).splitlines()[1].strip()[:200]})"
            mend = "Give none, or `teacher_of(student)`."
            raise InputError("teacher", found, "a copy of the student", mend) from error
        self.ema_decay = ema_decay
        super().__init__(device, max_epochs, train_data_loader, network, optimizer, loss_function, **kwargs)
        self.teacher.to(self.state.device)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The teacher, which a resumed run needs."""
        return {"teacher": self.teacher}

    @torch.no_grad()
    def teach(self, images: torch.Tensor) -> torch.Tensor:
        """The teacher's class probabilities ``(B, C, H, W)`` of images, in training mode and without gradient."""
        output = self.inferer(images, self.teacher.train())
        return at_least_float32(output if isinstance(output, torch.Tensor) else output[0]).softmax(1)

    @torch.no_grad()
    def after_step(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> None:
        """Move the teacher towards the student."""
        decay = min(1 - 1 / engine.state.iteration, self.ema_decay)
        average: list[torch.Tensor] = list(self.teacher.parameters())
        now: list[torch.Tensor] = list(unwrapped(engine.network).parameters())
        torch._foreach_lerp_(average, now, 1 - decay)
