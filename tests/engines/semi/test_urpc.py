"""URPCTrainer: the contract, three iterations written out, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from grn_monai.engines import URPCTrainer
from grn_monai.errors import InputError
from grn_monai.losses import segmentation_loss
from grn_monai.networks import MultiScaleUNet
from tests.engines.contract import LOSS, adam, assert_same_weights, assert_scalars
from tests.engines.semi.contract import SemiContract, deep_segmentor, iterate, planned, two_streams


def parts() -> dict[str, Any]:
    network = MultiScaleUNet(deep_segmentor())
    return {"network": network, "optimizer": adam(network)}


class TestContract(SemiContract):
    trainer = URPCTrainer

    def parts(self) -> dict[str, Any]:
        return parts()


def make(**options: Any) -> URPCTrainer:
    defaults = {"device": "cpu", "max_epochs": 1, "train_data_loader": [], "loss_function": LOSS, "decollate": False}
    return URPCTrainer(**{**defaults, **parts(), **options})


def cross_entropy_and_dice(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    p, y = logits.softmax(1), F.one_hot(labels[:, 0], 7).movedim(-1, 1)
    common, squares = (p * y).sum((0, 2, 3)), (p**2).sum((0, 2, 3)) + y.sum((0, 2, 3))
    dice = 1 - (2 * common + 1e-5) / (squares + 1e-5)
    return F.cross_entropy(logits, labels[:, 0]) + dice.mean()


def test_three_iterations_equal_the_algorithm_written_out() -> None:
    torch.manual_seed(0)
    network = MultiScaleUNet(deep_segmentor()).double()
    unet, heads = deep_segmentor().double(), nn.ModuleList(nn.Conv2d(c, 7, 3, padding=1) for c in (4, 8, 8)).double()
    unet.load_state_dict(network.unet.state_dict())
    heads.load_state_dict(network.heads.state_dict())
    features: dict[int, torch.Tensor] = {}
    for i in (1, 2, 3):
        decoder = unet.get_submodule("model.1.submodule" + ".1.submodule" * (i - 1) + ".2")
        decoder.register_forward_hook(lambda _, __, out, i=i: features.update({i: out}))
    trainer = planned(
        make(network=network, optimizer=adam(network), loss_function=segmentation_loss("dice_ce"), max_weight=5.0), 3
    )
    optimizer = torch.optim.Adam([*unet.parameters(), *heads.parameters()], lr=2e-3, betas=(0.5, 0.999))
    batch = two_streams(2, 3)
    for step in range(3):
        torch.manual_seed(step)
        weight = iterate(trainer, batch)

        logits = [unet(torch.cat((batch["image"], batch["unlabeled"])))]
        torch.manual_seed(step)
        d1 = features[1] * (1 + torch.empty(features[1].shape[1:]).uniform_(-0.3, 0.3).double())
        share = torch.empty(()).uniform_(0.7, 0.9).double()
        means = features[2].mean(1, keepdim=True)
        d2 = torch.where(means >= share * means.amax((2, 3), keepdim=True), 0, features[2])
        d3 = F.dropout(features[3], 0.5)
        for head, d in zip(heads, (d1, d2, d3), strict=True):
            logits.append(F.interpolate(head(d), (32, 32)))
        supervised = torch.stack([cross_entropy_and_dice(x[:2], batch["label"]) for x in logits]).sum() / 8
        p = [x[2:].softmax(1) for x in logits]
        mean = sum(p) / 4
        consistency = torch.zeros((), dtype=torch.float64)
        for s in p:
            d = (mean * (mean.log() - s.log())).sum(1, keepdim=True)
            consistency += ((mean - s) ** 2 * (-d).exp()).mean() / ((-d).exp().mean() + 1e-8) + d.mean()
        unsupervised = consistency / 4
        loss = supervised + weight * unsupervised
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert_scalars(
            trainer.state.output, {"loss": loss, "supervised_loss": supervised, "unsupervised_loss": unsupervised}
        )
    assert_same_weights((network.unet, unet), (network.heads, heads))


def test_the_prediction_is_the_main_heads() -> None:
    trainer, batch = make(), two_streams(dtype=torch.float32)
    expected = trainer.network.unet(batch["image"])
    trainer._iteration(planned(trainer, 1), batch)
    torch.testing.assert_close(trainer.state.output["pred"], expected)


def test_a_plain_network_is_refused() -> None:
    network = deep_segmentor()
    with pytest.raises(InputError, match="network: found UNet; expected a MultiScaleUNet, which URPCTrainer trains"):
        make(network=network, optimizer=adam(network))


def test_an_optimizer_without_the_heads_is_refused() -> None:
    network = MultiScaleUNet(deep_segmentor())
    with pytest.raises(ValueError, match="6 trainable parameter tensors of `network`"):
        make(network=network, optimizer=adam(network.unet))
