"""ICTTrainer: the contract, three iterations written out, its mixtures, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from grn_monai.engines import ICTTrainer
from grn_monai.errors import InputError
from tests.engines.contract import LOSS, adam, assert_same_weights, assert_scalars
from tests.engines.semi.contract import SemiContract, deep_segmentor, iterate, planned, two_streams
from tests.engines.semi.test_mean_teacher import moved


class TestContract(SemiContract):
    trainer = ICTTrainer
    networks = ("network", "teacher")


def make(network: nn.Module | None = None, **options: object) -> ICTTrainer:
    network = deep_segmentor() if network is None else network
    defaults = {"device": "cpu", "max_epochs": 1, "train_data_loader": [], "loss_function": LOSS, "decollate": False}
    return ICTTrainer(**{**defaults, "network": network, "optimizer": adam(network), **options})


def test_three_iterations_equal_the_algorithm_written_out() -> None:
    torch.manual_seed(0)
    network = deep_segmentor().double()
    student, teacher = copy.deepcopy(network), copy.deepcopy(network)
    trainer = planned(make(network, max_weight=5.0, alpha=0.7), 3)
    optimizer, batch = adam(student), two_streams(2, 4)
    u = batch["unlabeled"]
    for step in range(3):
        torch.manual_seed(step)
        weight = iterate(trainer, batch)
        torch.manual_seed(step)
        share = torch.distributions.Beta(torch.full((2,), 0.7), torch.full((2,), 0.7)).sample().double()
        supervised = LOSS(student(batch["image"]), batch["label"])
        unsupervised = 0
        for k in range(2):
            first, second = u[k : k + 1], u[k + 2 : k + 3]
            p = student((1 - share[k]) * first + share[k] * second).softmax(1)
            target = (1 - share[k]) * teacher(first).softmax(1) + share[k] * teacher(second).softmax(1)
            unsupervised = unsupervised + ((p - target.detach()) ** 2).mean() / 2
        loss = supervised + weight * unsupervised
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moved(teacher, student, min(1 - 1 / (step + 1), 0.99))
        expected = {"loss": loss, "supervised_loss": supervised, "unsupervised_loss": unsupervised}
        assert_scalars(trainer.state.output, expected)
    assert_same_weights((network, student), (trainer.teacher, teacher))


class Ramp(nn.Module):
    """Class probabilities that are linear in the image."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = 0.5 + self.slope * x
        return torch.cat((p, *[(1 - p) / 6] * 6), dim=1).log()


def test_a_map_that_is_linear_in_the_image_is_consistent() -> None:
    trainer = planned(make(Ramp().double(), alpha=1.0), 3)
    iterate(trainer, two_streams())
    assert trainer.state.output["unsupervised_loss"].item() == pytest.approx(0, abs=1e-12)


def test_the_student_sees_labelled_images_and_mixtures_alone() -> None:
    network = deep_segmentor()
    trainer, batch = planned(make(network), 3), two_streams(3, 4, torch.float32)
    seen: list[torch.Tensor] = []
    network.register_forward_hook(lambda _, args, out: seen.append(args[0].detach()))
    trainer.teacher.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    iterate(trainer, batch)
    student, teacher = seen
    assert torch.equal(student[:3], batch["image"])
    assert torch.equal(teacher, batch["unlabeled"])
    share, (first, second) = trainer.share, batch["unlabeled"].chunk(2)
    assert share.shape == (2, 1, 1, 1)
    assert ((share >= 0) & (share <= 1)).all()
    torch.testing.assert_close(student[3:], (1 - share) * first + share * second)


def test_shares_are_drawn_anew_for_each_pair_and_from_the_named_distribution() -> None:
    torch.manual_seed(0)
    trainer = make(alpha=0.2)
    images = torch.zeros(4000, 1, 1, 1)
    trainer.view(trainer, images)
    share = trainer.share
    assert len(share) == 2000
    assert len(share.unique()) > 1500  # in float32 many are 0 or 1
    assert share.mean().item() == pytest.approx(0.5, abs=0.03)
    # Beta(a, a) has variance 1 / (4 (2 a + 1)).
    assert share.var().item() == pytest.approx(1 / (4 * 1.4), rel=0.05)
    trainer.view(trainer, images)
    assert not torch.equal(share, trainer.share)


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan")])
def test_bad_options(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha: found"):
        make(alpha=alpha)


@pytest.mark.parametrize("n", [1, 3])
def test_halves_have_to_be_equal(n: int) -> None:
    trainer = planned(make(), 3)
    with pytest.raises(InputError, match=f"found {n} unlabelled images?; expected an even number"):
        iterate(trainer, two_streams(2, n, torch.float32))
