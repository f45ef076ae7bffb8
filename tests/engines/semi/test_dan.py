"""DANTrainer: the contract, three iterations written out, and whose parameters get which gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from grn_monai.engines import DANTrainer
from grn_monai.networks import MapDiscriminator
from tests.engines.contract import LOSS, adam, assert_same_weights, assert_scalars, parameters, same
from tests.engines.semi.contract import SCALARS, SemiContract, deep_segmentor, iterate, planned, two_streams


def parts(**given: Any) -> dict[str, Any]:
    network = given.get("network") or deep_segmentor()
    discriminator = given.get("discriminator") or MapDiscriminator(channels=4)
    return {
        "network": network,
        "optimizer": adam(network),
        "discriminator": discriminator,
        "discriminator_optimizer": adam(discriminator),
    }


class TestContract(SemiContract):
    trainer = DANTrainer
    scalar_keys = (*SCALARS, "discriminator_loss")
    networks = ("network", "discriminator")

    def parts(self) -> dict[str, Any]:
        return parts()


def make(**options: Any) -> DANTrainer:
    defaults = {"device": "cpu", "max_epochs": 1, "train_data_loader": [], "loss_function": LOSS, "decollate": False}
    return DANTrainer(**{**defaults, **parts(**options), **options})


@pytest.mark.parametrize("unlabelled", [2, 3])  # the halves need not be equal
def test_three_iterations_equal_the_algorithm_written_out(unlabelled: int) -> None:
    torch.manual_seed(0)
    network, discriminator = deep_segmentor().double(), MapDiscriminator(channels=4, dropout=0.0).double()
    s, d = deep_segmentor().double(), MapDiscriminator(channels=4, dropout=0.0).double()
    s.load_state_dict(network.state_dict())
    d.load_state_dict(discriminator.state_dict())
    trainer = planned(make(network=network, discriminator=discriminator, max_weight=2.0), 3)
    of_s, of_d = adam(s), adam(d)
    batch = two_streams(2, unlabelled)
    x, u = batch["image"], batch["unlabeled"]
    for _ in range(3):
        weight = iterate(trainer, batch)

        supervised = LOSS(s(x), batch["label"])
        adversarial = F.cross_entropy(d(s(u).softmax(1), u), torch.ones(unlabelled, dtype=torch.long))
        loss = supervised + weight * adversarial
        of_s.zero_grad()
        loss.backward()
        of_s.step()
        with torch.no_grad():
            maps_x, maps_u = s(x).softmax(1), s(u).softmax(1)
        right = torch.cat((d(maps_x, x).log_softmax(1)[:, 1], d(maps_u, u).log_softmax(1)[:, 0]))
        of_d.zero_grad()
        (-right.mean()).backward()
        of_d.step()
        expected = {"loss": loss, "unsupervised_loss": adversarial, "discriminator_loss": -right.mean()}
        assert_scalars(trainer.state.output, expected)
    assert_same_weights((network, s), (discriminator, d))


def test_the_discriminator_gets_no_gradient_of_the_segmentors_loss() -> None:
    trainer, batch = make(), two_streams(dtype=torch.float32)
    seen: list[Any] = []
    step = trainer.optimizer.step

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append([p.grad for p in trainer.discriminator.parameters()])
        return step(*args, **kwargs)

    trainer.optimizer.step = spy
    trainer._iteration(planned(trainer, 1), batch)
    assert len(seen) == 1
    assert all(grad is None for grad in seen[0])
    assert all(p.requires_grad for p in trainer.discriminator.parameters())


def test_the_segmentor_hears_the_discriminator_and_is_not_moved_by_its_step() -> None:
    results = []
    for weight in (0.0, 5.0):
        torch.manual_seed(0)
        trainer = make(max_weight=weight)
        planned(trainer, 1)
        trainer.state.iteration = 1
        before = parameters(trainer.discriminator)
        at_d: list[bool] = []
        step = trainer.discriminator_optimizer.step

        def spy(trainer: Any = trainer, step: Any = step, at_d: list[bool] = at_d) -> None:
            now = parameters(trainer.network)
            step()
            at_d.append(same(now, parameters(trainer.network)))

        trainer.discriminator_optimizer.step = spy
        trainer._iteration(trainer, two_streams(dtype=torch.float32))
        assert at_d == [True]
        assert not same(before, parameters(trainer.discriminator))
        results.append(parameters(trainer.network))
    assert not same(*results)


def test_modes_of_both_networks() -> None:
    """The discriminator judges in evaluation mode and learns in training mode; the segmentor the other way round."""
    trainer, batch = make(network=deep_segmentor(dropout=0.2)), two_streams(2, 3, torch.float32)
    seen: list[tuple[str, bool, int]] = []
    for name, module in (("s", trainer.network), ("d", trainer.discriminator)):
        module.register_forward_pre_hook(lambda m, args, name=name: seen.append((name, m.training, len(args[0]))))
    trainer.state.iteration = 1
    trainer._iteration(trainer, batch)
    assert seen == [("s", True, 5), ("d", False, 3), ("s", False, 5), ("d", True, 5)]


def test_optimizers_that_step_the_wrong_network_are_refused() -> None:
    network, discriminator = deep_segmentor(), MapDiscriminator(channels=4)
    given = {"network": network, "discriminator": discriminator}
    with pytest.raises(ValueError, match="`optimizer` must not step `discriminator`"):
        make(**given, optimizer=adam(network, discriminator))
    with pytest.raises(ValueError, match="`discriminator_optimizer` must not step `network`"):
        make(**given, discriminator_optimizer=adam(network, discriminator))
    with pytest.raises(ValueError, match="tensors of `discriminator` are not in it"):
        make(**given, discriminator_optimizer=adam(nn.Linear(1, 1)))
