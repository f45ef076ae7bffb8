"""MultiScaleUNet: the plain network inside, its heads, and the perturbations of their inputs."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNet
from torch.nn.functional import conv2d

from grn_monai.networks import MultiScaleUNet, count_parameters
from grn_monai.networks.multi_scale_unet import feature_dropout, feature_noise
from grn_monai.networks.unet_features import unet_features


def make() -> MultiScaleUNet:
    torch.manual_seed(0)
    return MultiScaleUNet(UNet(2, 1, 7, (4, 8, 8, 8, 8), (2, 2, 2, 2)))


def test_parameters_are_the_plain_networks_and_three_heads() -> None:
    network = MultiScaleUNet(UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2)))
    assert count_parameters(network.unet) == 661_727
    assert count_parameters(network.heads) == sum(7 * (9 * c + 1) for c in (16, 32, 64))
    plain = UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2))
    plain.load_state_dict(network.unet.state_dict())


def test_in_evaluation_it_is_the_plain_network() -> None:
    network, x = make().eval(), torch.rand(2, 1, 32, 48)
    assert torch.equal(network(x), network.unet(x))


def test_in_training_it_gives_four_maps_of_the_images_size() -> None:
    network, x = make().train(), torch.rand(2, 1, 32, 48)
    maps = network(x)
    assert [tuple(m.shape) for m in maps] == [(2, 7, 32, 48)] * 4
    assert torch.equal(maps[0], network.unet(x))  # the logits see no perturbation
    for m, side in zip(maps[1:], (2, 4, 8), strict=True):  # nearest: constant in blocks
        blocks = m.unfold(2, side, side).unfold(3, side, side).flatten(4)
        assert torch.equal(blocks, blocks[..., :1].expand_as(blocks))
    assert not torch.equal(maps[1], network(x)[1])


def test_without_perturbations_a_map_is_the_convolution_of_its_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("feature_noise", "feature_dropout"):
        monkeypatch.setattr(f"grn_monai.networks.multi_scale_unet.{name}", lambda x: x)
    network, x = make().train(), torch.rand(2, 1, 32, 32)
    network.dropout = 0.0
    maps = network(x)[1:]
    _, decoded = unet_features(network.unet, x)
    for m, d, head in zip(maps, decoded, network.heads, strict=True):
        expected = conv2d(d, head.weight, head.bias, padding=1)
        torch.testing.assert_close(m[..., :: 32 // d.shape[2], :: 32 // d.shape[3]], expected)


def test_d3_sees_dropout_of_half_its_values() -> None:
    network, seen = make().train(), []
    network.heads[2].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.rand(4, 1, 128, 128)
    network(x)
    d3 = unet_features(network.unet, x)[1][2]
    dropped = seen[0] == 0
    assert dropped.float().mean().item() == pytest.approx(0.5, abs=0.03)
    torch.testing.assert_close(seen[0][~dropped], 2 * d3[~dropped])


def test_noise_is_one_draw_for_the_batch_within_its_bounds() -> None:
    torch.manual_seed(0)
    factor = feature_noise(torch.ones(3, 8, 16, 16))
    assert torch.equal(factor[0], factor[2])
    assert 0.7 <= factor.min() < 0.72
    assert 1.28 < factor.max() <= 1.3
    assert factor.mean().item() == pytest.approx(1, abs=0.02)
    assert feature_noise(torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_dropout_takes_the_strongest_places_of_every_channel() -> None:
    x = torch.tensor([[0.5, 0.65, 0.95, 1.0]]).reshape(1, 1, 1, 4) * torch.tensor([0.5, 1.5]).reshape(1, 2, 1, 1)
    for _ in range(20):  # the share lies between 0.7 and 0.9
        out = feature_dropout(x)
        assert torch.equal(out[..., :2], x[..., :2])
        assert (out[..., 2:] == 0).all()


def test_dropouts_share_is_drawn_between_its_bounds() -> None:
    torch.manual_seed(0)
    x = torch.linspace(0, 1, 1001).reshape(1, 1, 1, -1)
    kept = torch.tensor([feature_dropout(x).amax() for _ in range(300)])
    assert 0.7 - 1e-3 <= kept.min() < 0.71
    assert 0.89 < kept.max() <= 0.9
    batch = torch.cat((x, 2 * x))
    assert torch.equal(*(feature_dropout(batch) > 0).chunk(2))  # of each image's own largest


def test_shallow_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 levels"):
        MultiScaleUNet(UNet(2, 1, 7, (4, 8, 8), (2, 2)))
