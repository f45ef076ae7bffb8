"""SignedDistanceUNet: the plain network inside and its second head."""

from __future__ import annotations

import torch
from monai.networks.nets import UNet

from grn_monai.networks import SignedDistanceUNet, count_parameters


def make() -> SignedDistanceUNet:
    torch.manual_seed(0)
    return SignedDistanceUNet(UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2)))


def test_parameters_are_the_plain_networks_and_a_transposed_convolution() -> None:
    network = make()
    assert count_parameters(network.unet) == 661_727
    assert count_parameters(network.head) == 32 * 6 * 9 + 6
    assert network.head.conv.stride == (2, 2)
    assert network.head.conv.kernel_size == (3, 3)


def test_in_evaluation_it_is_the_plain_network() -> None:
    network, x = make().eval(), torch.rand(2, 1, 32, 48)
    assert torch.equal(network(x), network.unet(x))


def test_maps_come_from_the_input_of_the_logits_layer() -> None:
    network, x, seen = make().train(), torch.rand(2, 1, 32, 48), []
    network.unet.model[2].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits, maps = network(x)
    assert torch.equal(logits, network.unet(x))
    assert maps.shape == (2, 6, 32, 48)
    torch.testing.assert_close(maps, network.head(seen[0]).tanh())
    assert maps.abs().max() < 1


def test_both_gives_maps_in_evaluation_too() -> None:
    network, x = make().eval(), torch.rand(1, 1, 32, 32)
    logits, maps = network.both(x)
    assert torch.equal(logits, network(x))
    assert maps.shape == (1, 6, 32, 32)
