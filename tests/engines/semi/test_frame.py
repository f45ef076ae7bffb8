"""SemiSupervisedTrainer by itself and under a small method: ramp, start, hooks, statistics, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributed
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from grn_monai.engines import DANTrainer, RDropTrainer, SemiSupervisedTrainer, URPCTrainer
from grn_monai.engines.semi_supervised_trainer import TwoStreams, ramp_up
from grn_monai.errors import InputError
from grn_monai.networks import MapDiscriminator, MultiScaleUNet
from tests.engines.contract import LOSS, adam, assert_same_weights, same, weights
from tests.engines.semi.contract import SemiContract, deep_segmentor, iterate, planned, two_streams


def wrapped(network: nn.Module) -> DistributedDataParallel:
    """As if wrapped: without a process group the class cannot be built."""
    wrapper = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = network
    return wrapper


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


def _plain() -> tuple[str, SemiSupervisedTrainer]:
    return "network", make()


def _discriminator() -> tuple[str, SemiSupervisedTrainer]:
    network, discriminator = wrapped(deep_segmentor()), MapDiscriminator(channels=4)
    given = {"discriminator": discriminator, "discriminator_optimizer": adam(discriminator)}
    return "discriminator", make(DANTrainer, network=network, **given)


def _second() -> tuple[str, SemiSupervisedTrainer]:
    network, second = wrapped(deep_segmentor()), deep_segmentor()
    return "second_network", make(RDropTrainer, network=network, second_network=second, optimizer=adam(network, second))


def _heads() -> tuple[str, SemiSupervisedTrainer]:
    return "network", make(URPCTrainer, network=MultiScaleUNet(deep_segmentor()))


CASES = {"plain": _plain, "dan": _discriminator, "rdrop": _second, "urpc": _heads}


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


@pytest.mark.parametrize(("norm", "sizes"), [("instance", [2, 2, 5, 5]), ("batch", [5, 5, 5, 5])])
def test_unlabelled_images_without_weight_go_through_the_network_for_its_batchnorm_alone(
    norm: str, sizes: list[int]
) -> None:
    network = UNet(2, 1, 7, (4, 8, 8), (2, 2), norm=norm)
    seen: list[int] = []
    network.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    trainer = planned(make(network=network, start=0.5), 4)
    for _ in range(4):
        iterate(trainer, two_streams(2, 3, torch.float32))
        assert trainer.state.output["pred"].shape[0] == 2
    assert seen == sizes


def processes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    for name, value in (("is_initialized", True), ("get_world_size", count)):
        monkeypatch.setattr(torch.distributed, name, lambda *_, value=value: value)


@pytest.mark.parametrize("case", CASES)
def test_what_is_trained_outside_ddp_is_refused_with_several_processes(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a process group of its own: the refusal comes first. Two real processes: test_processes.py."""
    name, trainer = CASES[case]()
    processes(monkeypatch, 2)
    with pytest.raises(InputError, match=rf"^{name}: found a network that each process would train by itself"):
        trainer.run()
    processes(monkeypatch, 1)
    trainer._check_processes()


@pytest.mark.parametrize("value", ["much", None, float("inf"), float("nan")])
def test_a_weight_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="max_weight: found"):
        make(max_weight=value)
