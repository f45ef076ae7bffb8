"""SASSNetTrainer: the contract, three iterations written out, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from grn_monai.engines import SASSNetTrainer
from grn_monai.errors import InputError
from grn_monai.losses import signed_distance_maps
from grn_monai.networks import MapDiscriminator, SignedDistanceUNet
from tests.engines.contract import LOSS, adam, assert_same_weights, assert_scalars
from tests.engines.semi.contract import SCALARS, SemiContract, deep_segmentor, iterate, planned, two_streams


def parts(**given: Any) -> dict[str, Any]:
    network = given.get("network") or SignedDistanceUNet(deep_segmentor())
    discriminator = given.get("discriminator") or MapDiscriminator(map_channels=6, channels=4)
    return {
        "network": network,
        "optimizer": adam(network),
        "discriminator": discriminator,
        "discriminator_optimizer": adam(discriminator),
    }


class TestContract(SemiContract):
    trainer = SASSNetTrainer
    scalar_keys = (*SCALARS, "discriminator_loss", "sdm_loss")
    networks = ("network", "discriminator")

    def parts(self) -> dict[str, Any]:
        return parts()


def make(**options: Any) -> SASSNetTrainer:
    defaults = {"device": "cpu", "max_epochs": 1, "train_data_loader": [], "loss_function": LOSS, "decollate": False}
    return SASSNetTrainer(**{**defaults, **parts(**options), **options})


def layered(labels: torch.Tensor) -> torch.Tensor:
    """Labels in layers, of which the second image lacks one."""
    rows = torch.arange(labels.shape[2]) * 7 // labels.shape[2]
    labels = rows.reshape(1, 1, -1, 1).expand_as(labels).clone()
    labels[1][labels[1] == 4] = 0
    return labels


@pytest.mark.parametrize(("empty", "sdm_weight"), [("one", 0.3), ("zero", 2.0)])
def test_three_iterations_equal_the_algorithm_written_out(empty: str, sdm_weight: float) -> None:
    torch.manual_seed(0)
    network = SignedDistanceUNet(deep_segmentor()).double()
    discriminator = MapDiscriminator(map_channels=6, channels=4, dropout=0.0).double()
    s, head = deep_segmentor().double(), nn.ConvTranspose2d(8, 6, 3, 2, 1, 1).double()
    d = MapDiscriminator(map_channels=6, channels=4, dropout=0.0).double()
    s.load_state_dict(network.unet.state_dict())
    head.load_state_dict(network.head.conv.state_dict())
    d.load_state_dict(discriminator.state_dict())
    top: list[torch.Tensor] = []
    s.model[2].register_forward_pre_hook(lambda _, args: top.append(args[0]))
    options = {"max_weight": 2.0, "empty": empty, "sdm_weight": sdm_weight}
    trainer = planned(make(network=network, discriminator=discriminator, **options), 3)
    of_s, of_d = adam(s, head), adam(d)
    batch = two_streams(2, 3)
    batch["label"] = layered(batch["label"])
    x, u = batch["image"], batch["unlabeled"]
    target = signed_distance_maps(batch["label"], 7, float(empty == "one"))
    for _ in range(3):
        weight = iterate(trainer, batch)

        segmentation = LOSS(s(x), batch["label"])
        sdm = ((head(top[-1]).tanh() - target) ** 2).mean()
        s(u)
        adversarial = F.cross_entropy(d(head(top[-1]).tanh(), u), torch.ones(3, dtype=torch.long))
        loss = segmentation + sdm_weight * sdm + weight * adversarial
        of_s.zero_grad()
        loss.backward()
        of_s.step()
        with torch.no_grad():
            s(torch.cat((x, u)))
            maps = head(top[-1]).tanh()
        judged = F.cross_entropy(d(maps, torch.cat((x, u))), torch.tensor([1, 1, 0, 0, 0]))
        of_d.zero_grad()
        judged.backward()
        of_d.step()
        expected = {"loss": loss, "sdm_loss": sdm, "unsupervised_loss": adversarial, "discriminator_loss": judged}
        assert_scalars(trainer.state.output, expected)
    assert_same_weights((network.unet, s), (network.head.conv, head), (discriminator, d))


def test_the_prediction_is_the_plain_networks() -> None:
    trainer, batch = make(), two_streams(dtype=torch.float32)
    expected = trainer.network.unet(batch["image"])
    trainer._iteration(planned(trainer, 1), batch)
    torch.testing.assert_close(trainer.state.output["pred"], expected)


def test_maps_of_labels_are_computed_once_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def spy(labels: torch.Tensor, *args: Any) -> torch.Tensor:
        calls.append(len(labels))
        return signed_distance_maps(labels, *args)

    monkeypatch.setattr("grn_monai.losses.signed_distance.signed_distance_maps", spy)
    trainer = make()
    iterate(planned(trainer, 1), two_streams(2, 3, torch.float32))
    assert calls == [2]


def test_a_plain_network_is_refused() -> None:
    with pytest.raises(InputError, match="network: found UNet; expected a SignedDistanceUNet"):
        make(network=deep_segmentor())


@pytest.mark.parametrize("option", [{"sdm_weight": -0.1}, {"sdm_weight": float("nan")}, {"empty": "two"}])
def test_options_outside_their_range_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(option))):
        make(**option)


def test_an_optimizer_without_the_head_is_refused() -> None:
    network = SignedDistanceUNet(deep_segmentor())
    with pytest.raises(ValueError, match="2 trainable parameter tensors of `network`"):
        make(network=network, optimizer=adam(network.unet))
