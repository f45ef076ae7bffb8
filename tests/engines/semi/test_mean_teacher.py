"""MeanTeacherTrainer: the contract, three iterations written out, the teacher, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from grn_monai.engines import MeanTeacherTrainer, student_or_teacher, teacher_of
from grn_monai.engines.semi._teacher import noisy
from grn_monai.errors import InputError
from tests.engines.contract import LOSS, adam, assert_same_weights, assert_scalars, parameters, same, weights
from tests.engines.semi.contract import SemiContract, deep_segmentor, iterate, planned, two_streams


class TestContract(SemiContract):
    trainer = MeanTeacherTrainer
    networks = ("network", "teacher")


class TestWithDropoutAndBatchNorm(TestContract):
    def parts(self) -> dict[str, Any]:
        network = UNet(2, 1, 7, (4, 8, 8), (2, 2), norm="batch", dropout=0.1)
        return {"network": network, "optimizer": adam(network), "start": 0.0}


def make(network: nn.Module | None = None, **options: Any) -> MeanTeacherTrainer:
    network = deep_segmentor() if network is None else network
    defaults = {"device": "cpu", "max_epochs": 1, "train_data_loader": [], "loss_function": LOSS, "decollate": False}
    return MeanTeacherTrainer(**{**defaults, "network": network, "optimizer": adam(network), "start": 0.0, **options})


def moved(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """The average written out."""
    for average, now in zip(teacher.parameters(), student.parameters(), strict=True):
        average.data = decay * average.data + (1 - decay) * now.data


@pytest.mark.parametrize("decay", [0.99, 0.6])
def test_four_iterations_equal_the_algorithm_written_out(decay: float) -> None:
    torch.manual_seed(0)
    network = deep_segmentor().double()
    student, teacher = copy.deepcopy(network), copy.deepcopy(network)
    trainer = planned(make(network, max_weight=5.0, ema_decay=decay), 4)
    optimizer, batch = adam(student), two_streams(2, 3)
    for step in range(4):
        torch.manual_seed(step)
        weight = iterate(trainer, batch)
        torch.manual_seed(step)
        noise = (0.2 * torch.randn(3, 1, 32, 32, dtype=torch.float64)).clamp(-0.4, 0.4)
        supervised = LOSS(student(batch["image"]), batch["label"])
        p = student(batch["unlabeled"]).softmax(1)
        target = teacher(batch["unlabeled"] + noise).softmax(1).detach()
        unsupervised = ((p - target) ** 2).mean()
        loss = supervised + weight * unsupervised
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moved(teacher, student, min(1 - 1 / (step + 1), decay))
        assert_scalars(
            trainer.state.output, {"loss": loss, "supervised_loss": supervised, "unsupervised_loss": unsupervised}
        )
    assert_same_weights((network, student), (trainer.teacher, teacher))
    assert not same(parameters(network), parameters(trainer.teacher))


def test_the_term_is_left_out_until_its_start() -> None:
    """By default for the thirtieth part of the run."""
    network = deep_segmentor()
    trainer = planned(make(network, start=MeanTeacherTrainer(**_arguments()).start), 60)
    batch, passes, values = two_streams(dtype=torch.float32), [], []
    trainer.teacher.register_forward_hook(lambda *_: passes.append(trainer.state.iteration))
    for _ in range(4):
        iterate(trainer, batch)
        values.append([trainer.state.output[k].item() for k in ("unsupervised_loss", "unsupervised_weight")])
    assert passes == [3, 4]
    assert values[0] == values[1] == [0, 0]
    assert all(v > 0 for row in values[2:] for v in row)


def _arguments() -> dict[str, Any]:
    network = deep_segmentor()
    return {
        "device": "cpu", "max_epochs": 1, "train_data_loader": [], "network": network, "optimizer": adam(network),
        "loss_function": LOSS,
    }  # fmt: skip


def test_the_teacher_starts_as_the_student_follows_it_and_gets_no_gradient() -> None:
    other = deep_segmentor()
    network = deep_segmentor()
    trainer = planned(make(network, teacher=other), 4)
    assert trainer.teacher is other
    assert same(weights(network), weights(other))
    batch = two_streams(dtype=torch.float32)
    iterate(trainer, batch)
    assert same(weights(network), weights(other))  # a = 0 after the first step
    before = parameters(other)
    iterate(trainer, batch)
    now = parameters(other)
    halves = [(a + b) / 2 for a, b in zip(before, parameters(network), strict=True)]
    for a, b in zip(now, halves, strict=True):
        torch.testing.assert_close(a, b)
    assert not any(p.requires_grad or p.grad is not None for p in other.parameters())
    assert all(p.requires_grad for p in network.parameters())


def test_the_teacher_keeps_its_dropout_and_its_own_statistics() -> None:
    network = UNet(2, 1, 7, (4, 8, 8), (2, 2), norm="batch", dropout=0.5)
    trainer = planned(make(network, noise=0.0), 4)
    trainer.teacher.eval()
    batch = two_streams(dtype=torch.float32)
    iterate(trainer, batch)
    assert trainer.teacher.training
    images = batch["unlabeled"]
    assert not torch.equal(trainer.teach(images), trainer.teach(images))
    assert trainer.teach(images).sum(1).allclose(torch.ones(()))
    mean = "model.0.adn.N.running_mean"
    assert not torch.equal(network.state_dict()[mean], trainer.teacher.state_dict()[mean])


def test_noise_has_its_deviation_and_is_cut_at_twice_that() -> None:
    torch.manual_seed(0)
    noise = noisy(torch.zeros(4, 1, 200, 200), 0.2)
    assert noise.abs().max() == pytest.approx(0.4)
    # A unit normal: 0.7385 of its variance lies within two deviations, 4 · 0.0455 at the cuts; 0.9594² together.
    assert noise.std().item() == pytest.approx(0.2 * 0.9594, rel=0.01)
    assert abs(noise.mean().item()) < 2e-3
    assert torch.equal(noisy(torch.ones(1, 1, 2, 2), 0.0), torch.ones(1, 1, 2, 2))


def test_without_weight_it_is_the_supervised_training() -> None:
    torch.manual_seed(0)
    network = deep_segmentor().double()
    student, batch = copy.deepcopy(network), two_streams()
    trainer, optimizer = planned(make(network, max_weight=0.0), 3), adam(student)
    for _ in range(3):
        iterate(trainer, batch)
        loss = LOSS(student(batch["image"]), batch["label"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_same_weights((network, student))


def test_who_is_validated() -> None:
    student, teacher = deep_segmentor(), deep_segmentor()
    assert student_or_teacher("student", student, teacher) is student
    assert student_or_teacher("teacher", student, teacher) is teacher
    with pytest.raises(InputError, match="infer_with: found 'both'; expected 'student' or 'teacher'"):
        student_or_teacher("both", student, teacher)


def test_a_copy_is_a_copy() -> None:
    network = deep_segmentor()
    teacher = teacher_of(network)
    assert same(weights(network), weights(teacher))
    assert not {id(p) for p in network.parameters()} & {id(p) for p in teacher.parameters()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise": -0.1}, "noise: found -0.1"),
        ({"noise": float("nan")}, "noise: found nan"),
        ({"ema_decay": 1.0}, "ema_decay: found 1.0"),
        ({"ema_decay": -0.1}, "ema_decay: found -0.1"),
        ({"teacher": nn.Conv2d(1, 7, 3)}, "teacher: found another network"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make(**options)


def test_the_student_is_no_teacher() -> None:
    network = deep_segmentor()
    with pytest.raises(InputError, match="teacher: found the student itself"):
        make(network, teacher=network)
