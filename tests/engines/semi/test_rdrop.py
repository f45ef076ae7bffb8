"""RDropTrainer: the contract of both kinds, three iterations written out, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from grn_monai.engines import RDropTrainer
from grn_monai.errors import InputError
from tests.engines.contract import LOSS, adam, assert_same_weights, assert_scalars
from tests.engines.semi.contract import SemiContract, deep_segmentor, iterate, planned, two_streams


class TestContract(SemiContract):
    trainer = RDropTrainer

    def parts(self) -> dict[str, Any]:
        network = deep_segmentor(dropout=0.1)
        return {"network": network, "optimizer": adam(network)}


class TestTwoNetworks(SemiContract):
    trainer = RDropTrainer
    networks = ("network", "second_network")

    def parts(self) -> dict[str, Any]:
        network, second = deep_segmentor(), deep_segmentor()
        parts = {"network": network, "second_network": second, "optimizer": adam(network, second)}
        # The contract's bounds are those of one loss, and L_sup is the sum of two.
        return {**parts, "loss_function": lambda p, y: LOSS(p, y) / 2, "max_weight": 0.2}


def make(network: nn.Module | None = None, second: nn.Module | None = None, **options: Any) -> RDropTrainer:
    network = deep_segmentor(dropout=0.1) if network is None else network
    defaults = {"device": "cpu", "max_epochs": 1, "train_data_loader": [], "loss_function": LOSS, "decollate": False}
    optimizer = adam(network) if second is None else adam(network, second)
    parts = {"network": network, "second_network": second, "optimizer": optimizer}
    return RDropTrainer(**{**defaults, **parts, **options})


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p‖q) of probabilities ``(B, C, H, W)``: summed over classes, mean over pixels."""
    return sum((p[:, c] * (p[:, c] / q[:, c]).log()).mean() for c in range(p.shape[1]))


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("compat_axis", [False, True])
def test_three_iterations_equal_the_algorithm_written_out(two: bool, compat_axis: bool) -> None:
    torch.manual_seed(0)
    dropout = 0.0 if two else 0.1
    network, other = (deep_segmentor(dropout=dropout).double() for _ in range(2))
    first = copy.deepcopy(network)
    second = copy.deepcopy(other) if two else first
    trainer = planned(make(network, other if two else None, compat_axis=compat_axis), 3)
    assert trainer.max_weight == 4
    optimizer = adam(first, second) if two else adam(first)
    batch = two_streams(2, 3)
    for step in range(3):
        torch.manual_seed(step)
        weight = iterate(trainer, batch)
        torch.manual_seed(step)
        images = torch.cat((batch["image"], batch["unlabeled"]))
        a, b = first(images), second(images)
        losses = LOSS(a[:2], batch["label"]) + LOSS(b[:2], batch["label"])
        supervised = losses if two else losses / 2
        if compat_axis:
            p, q = a[2:].softmax(3), b[2:].softmax(3)
            unsupervised = 0.5 * ((p * (p / q).log()).mean() + (q * (q / p).log()).mean())
            elements = unsupervised
        else:
            p, q = a[2:].softmax(1), b[2:].softmax(1)
            unsupervised = 0.5 * (divergence(p, q) + divergence(q, p))
            elements = unsupervised / 7
        loss = supervised + weight * unsupervised
        assert unsupervised > 0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected = {"loss": loss, "supervised_loss": supervised, "unsupervised_loss": unsupervised}
        assert_scalars(trainer.state.output, {**expected, "kl_element_mean": elements})
    assert_same_weights((network, first), *([(other, second)] if two else []))


def test_both_passes_have_their_own_dropout() -> None:
    network = deep_segmentor(dropout=0.1)
    trainer, batch = planned(make(network), 3), two_streams(dtype=torch.float32)
    for _ in range(3):
        iterate(trainer, batch)
        assert trainer.state.output["unsupervised_loss"] > 1e-5
    assert list(trainer.modules) == []


def test_the_prediction_is_that_of_the_first_network() -> None:
    first, second = deep_segmentor(), deep_segmentor()
    trainer, batch = planned(make(first, second), 3), two_streams(dtype=torch.float32)
    expected = first(batch["image"])
    iterate(trainer, batch)
    torch.testing.assert_close(trainer.state.output["pred"], expected)


def test_two_equal_networks_agree_at_first() -> None:
    first = deep_segmentor()
    trainer = planned(make(first, copy.deepcopy(first)), 3)
    iterate(trainer, two_streams(dtype=torch.float32))
    assert trainer.state.output["unsupervised_loss"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("network", [deep_segmentor(), nn.Sequential(nn.Conv2d(1, 7, 1), nn.Dropout(0.0))])
def test_one_network_without_dropout_is_refused(network: nn.Module) -> None:
    with pytest.raises(InputError, match="network: found no dropout"):
        make(network)


def test_the_network_itself_is_no_second_one() -> None:
    network = deep_segmentor()
    with pytest.raises(InputError, match="second_network: found the network itself"):
        make(network, network)


def test_an_optimizer_without_the_second_network_is_refused() -> None:
    first, second = deep_segmentor(), deep_segmentor()
    with pytest.raises(ValueError, match="tensors of `second_network` are not in it"):
        make(first, second, optimizer=adam(first))
