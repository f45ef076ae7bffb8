"""UAMTTrainer: the contract, three iterations written out, its uncertainty, and what is refused."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from grn_monai.engines import UAMTTrainer
from grn_monai.errors import InputError
from tests.engines.contract import LOSS, adam, assert_same_weights, assert_scalars
from tests.engines.semi.contract import SemiContract, deep_segmentor, iterate, planned, two_streams
from tests.engines.semi.test_mean_teacher import moved


class TestContract(SemiContract):
    trainer = UAMTTrainer
    networks = ("network", "teacher")

    def parts(self) -> dict[str, Any]:
        network = deep_segmentor(dropout=0.1)
        return {"network": network, "optimizer": adam(network), "passes": 2}


def make(network: nn.Module | None = None, **options: Any) -> UAMTTrainer:
    network = deep_segmentor() if network is None else network
    defaults = {"device": "cpu", "max_epochs": 1, "train_data_loader": [], "loss_function": LOSS, "decollate": False}
    return UAMTTrainer(**{**defaults, "network": network, "optimizer": adam(network), **options})


@pytest.mark.parametrize(("compat", "classes", "scale"), [(False, 7, 10), (True, 2, 40)])
def test_three_iterations_equal_the_algorithm_written_out(compat: bool, classes: int, scale: float) -> None:
    torch.manual_seed(0)
    network = deep_segmentor().double()
    with torch.no_grad():
        network.model[2][0].weight *= scale  # so that some pixels are certain and others not
    student, teacher = copy.deepcopy(network), copy.deepcopy(network)
    trainer = planned(make(network, max_weight=5.0, passes=3, compat_ssl4mis=compat), 3)
    optimizer, batch = adam(student), two_streams(2, 3)
    u = batch["unlabeled"]

    def teach() -> torch.Tensor:
        noise = (0.2 * torch.randn(3, 1, 32, 32, dtype=torch.float64)).clamp(-0.4, 0.4)
        return teacher(u + noise).softmax(1).detach()

    for step in range(3):
        torch.manual_seed(step)
        weight = iterate(trainer, batch)
        torch.manual_seed(step)
        supervised = LOSS(student(batch["image"]), batch["label"])
        p, target = student(u).softmax(1), teach()
        mean = (teach() + teach() + teach()) / 3
        entropy = -sum(mean[:, c] * torch.log(mean[:, c] + 1e-6) for c in range(7))
        threshold = (0.75 + 0.25 * math.exp(-5 * (1 - (step + 1) / 3) ** 2)) * math.log(classes)
        pixels = [(b, i, j) for b, i, j in torch.ones(3, 32, 32).nonzero() if entropy[b, i, j] < threshold]
        squares = [((p[b, :, i, j] - target[b, :, i, j]) ** 2).sum() for b, i, j in pixels]
        assert len(pixels) > 100
        assert step or len(pixels) < 3 * 32 * 32 - 100
        unsupervised = torch.stack(squares).sum() / (classes * len(pixels))
        loss = supervised + weight * unsupervised
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moved(teacher, student, min(1 - 1 / (step + 1), 0.99))
        share = torch.tensor(len(pixels) / (3 * 32 * 32)).double()
        expected = {"loss": loss, "unsupervised_loss": unsupervised, "certain_share": share}
        assert_scalars(trainer.state.output, expected)
    assert_same_weights((network, student), (trainer.teacher, teacher))


class Constant(nn.Module):
    """The same class probabilities everywhere."""

    def __init__(self, probabilities: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).log().reshape(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(x), -1, *x.shape[2:])


@pytest.mark.parametrize(
    ("probabilities", "compat", "certain"),
    [
        # Entropy 1.303: below ¾ ln 7 = 1.459, above ln 2.
        ([0.62, 0.1, 0.1, 0.1, 0.04, 0.02, 0.02], False, 1),
        ([0.62, 0.1, 0.1, 0.1, 0.04, 0.02, 0.02], True, 0),
        # Entropy 1.750: above the threshold at the start, below ln 7 = 1.946 at the end.
        ([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], False, 0),
    ],
)
def test_a_pixel_is_certain_by_the_entropy_over_all_classes(
    probabilities: list[float], compat: bool, certain: float
) -> None:
    trainer = planned(make(Constant(probabilities), compat_ssl4mis=compat, passes=2), 100)
    iterate(trainer, two_streams(dtype=torch.float32))
    assert trainer.state.output["certain_share"] == certain
    assert trainer.state.output["unsupervised_loss"].isfinite()


def test_at_the_end_of_the_run_all_but_the_even_guess_is_certain() -> None:
    trainer = planned(make(Constant([0.4, *[0.1] * 6]), passes=2), 1)
    iterate(trainer, two_streams(dtype=torch.float32))
    assert trainer.state.output["certain_share"] == 1


def test_the_teacher_makes_each_pass_anew() -> None:
    trainer = planned(make(deep_segmentor(dropout=0.5), noise=0.0), 3)
    images: list[torch.Tensor] = []
    trainer.teacher.register_forward_hook(lambda _, args, out: images.append(torch.cat((args[0], out), 1)))
    iterate(trainer, two_streams(2, 3, torch.float32))
    assert [len(x) for x in images] == [6] * 4 + [3]  # two passes at a time
    images = [x for batch in images for x in batch.split(3)]
    assert all(torch.equal(x[:, :1], images[0][:, :1]) for x in images)  # no noise
    assert len({x.sum().item() for x in images}) == 9  # dropout


def test_with_batchnorm_each_pass_is_one_of_its_own() -> None:
    trainer = planned(make(UNet(2, 1, 7, (4, 8, 8), (2, 2), norm="batch"), passes=2), 3)
    sizes: list[int] = []
    trainer.teacher.register_forward_hook(lambda _, args, out: sizes.append(len(args[0])))
    iterate(trainer, two_streams(2, 3, torch.float32))
    assert sizes == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "words"), [({"passes": 0}, "passes: found 0"), ({"noise": -1.0}, "noise: found -1.0")]
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make(**options)
