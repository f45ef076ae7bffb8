"""SemiSupervisedTrainer by itself and under a small method: ramp, start, hooks, statistics, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet

from grn_monai.engines import SemiSupervisedTrainer
from grn_monai.engines.semi_supervised_trainer import TwoStreams, ramp_up
from grn_monai.errors import InputError
from tests.engines.contract import LOSS, adam, assert_same_weights, same, weights
from tests.engines.semi.contract import SemiContract, deep_segmentor, iterate, planned, two_streams


class Confident(SemiSupervisedTrainer):
    """The smallest method: unlabelled images should have sharp segmentations."""

    def unsupervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
        p = batch.outputs_unlabelled[0].softmax(1)
        return (p * (1 - p)).mean()


class TestContract(SemiContract):
    trainer = Confident


def make(trainer: type[SemiSupervisedTrainer] = Confident, **options: Any) -> SemiSupervisedTrainer:
    network = options.pop("network", None) or deep_segmentor()
    defaults = {"device": "cpu", "max_epochs": 1, "train_data_loader": [], "loss_function": LOSS, "decollate": False}
    return trainer(**{**defaults, "network": network, "optimizer": adam(network), **options})


def test_the_ramp() -> None:
    assert ramp_up(0.0) == pytest.approx(math.exp(-5))
    assert ramp_up(0.5) == pytest.approx(math.exp(-1.25))
    assert ramp_up(1.0) == ramp_up(1.5) == 1
    assert ramp_up(-1.0) == ramp_up(0.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [math.exp(-5 * (1 - t / 8) ** 2) for t in range(1, 9)]),
        ({"ramp": 0.5}, [math.exp(-5 * (1 - min(t / 4, 1)) ** 2) for t in range(1, 9)]),
        ({"start": 0.25}, [0, 0, *(math.exp(-5 * (1 - t / 8) ** 2) for t in range(3, 9))]),
    ],
)
def test_the_weight_of_each_iteration(options: dict[str, float], expected: list[float]) -> None:
    """Of a run of 8 iterations: 1 at the last, whatever the number of epochs and whatever a loader's length."""
    trainer = planned(make(max_weight=2.0, **options), 8)
    trainer.state.max_epochs, trainer.state.epoch_length = 4, 2
    found = []
    for t in range(1, 9):
        trainer.state.iteration = t
        found.append(trainer.weight(trainer) / 2)
    assert found == pytest.approx(expected)
    assert found[-1] == 1


@pytest.mark.parametrize("trainer", [SemiSupervisedTrainer, Confident])
def test_without_weight_it_is_monais_training(trainer: type[SemiSupervisedTrainer]) -> None:
    torch.manual_seed(0)
    networks = [deep_segmentor().double() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    batch = two_streams()
    mine = planned(make(trainer, network=networks[0], max_weight=0.0), 3)
    theirs = SupervisedTrainer(
        device="cpu", max_epochs=3, train_data_loader=[batch], network=networks[1], optimizer=adam(networks[1]),
        loss_function=LOSS, decollate=False,
    )  # fmt: skip
    for _ in range(3):
        iterate(mine, batch)
    theirs.run()
    assert_same_weights((networks[0], networks[1]))
    torch.testing.assert_close(mine.state.output["loss"], theirs.state.output["loss"])
    assert mine.state.output["unsupervised_loss"] == mine.state.output["unsupervised_weight"] == 0


def test_hooks_see_what_the_network_made_of_each_half() -> None:
    seen: list[TwoStreams] = []

    class Flipped(SemiSupervisedTrainer):
        def view(self, engine: SemiSupervisedTrainer, unlabelled: torch.Tensor) -> torch.Tensor:
            return unlabelled[:3].flip(-1)

        def after_step(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> None:
            seen.append(batch)

    network = deep_segmentor()
    start = weights(network)
    trainer, batch = planned(make(Flipped, network=network), 3), two_streams(2, 4, torch.float32)
    iterate(trainer, batch)
    (streams,) = seen
    assert not same(start, weights(network))
    network.load_state_dict(dict(zip(network.state_dict(), start, strict=True)))
    assert torch.equal(streams.images, batch["image"])
    assert torch.equal(streams.unlabelled, batch["unlabeled"])
    assert torch.equal(streams.view, batch["unlabeled"][:3].flip(-1))
    torch.testing.assert_close(streams.outputs[0], network(batch["image"]))
    torch.testing.assert_close(streams.outputs_unlabelled[0], network(streams.view))
    assert trainer.state.output["pred"].shape == (2, 7, 32, 32)


def test_both_halves_go_through_the_network_in_one_pass() -> None:
    network = UNet(2, 1, 7, (4, 8, 8), (2, 2), norm="batch")
    sizes: list[int] = []
    network.register_forward_hook(lambda _, args, out: sizes.append(len(args[0])))
    trainer = planned(make(network=network), 3)
    iterate(trainer, two_streams(2, 3, torch.float32))
    assert sizes == [5]
    assert network.state_dict()["model.0.adn.N.num_batches_tracked"] == 1


def test_a_term_without_weight_is_not_computed() -> None:
    calls: list[int] = []

    class Counted(Confident):
        def unsupervised_loss(self, engine: SemiSupervisedTrainer, batch: TwoStreams) -> torch.Tensor:
            calls.append(engine.state.iteration)
            return super().unsupervised_loss(engine, batch)

    trainer = make(Counted, start=0.5, max_epochs=4, train_data_loader=[two_streams(dtype=torch.float32)])
    found = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda e: found.append(e.state.output["unsupervised_loss"].item())
    )
    trainer.run()
    assert calls == [3, 4]
    assert [bool(value) for value in found] == [False, False, True, True]


@pytest.mark.parametrize("value", ["much", None, float("inf"), float("nan")])
def test_a_weight_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="max_weight: found"):
        make(max_weight=value)
