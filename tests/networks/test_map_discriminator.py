"""MapDiscriminator: count, its passes written out, small images."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, leaky_relu, linear

from grn_monai.errors import InputError
from grn_monai.networks import MapDiscriminator, count_parameters


def test_parameter_count_by_hand() -> None:
    convolutions = 64 * 16 * 7 + 64 + 64 * 16 + 64 + sum(16 * c * 2 * c + 2 * c for c in (64, 128, 256))
    assert count_parameters(MapDiscriminator()) == convolutions + 2048 * 2 + 2


def test_layers_written_out() -> None:
    torch.manual_seed(0)
    d = MapDiscriminator(map_channels=6, channels=4).eval()
    maps, images = torch.rand(3, 6, 64, 48), torch.rand(3, 1, 64, 48)
    of_map, of_image, *levels, classify = [m for m in d.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    x = conv2d(maps, of_map.weight, of_map.bias, 2, 1) + conv2d(images, of_image.weight, of_image.bias, 2, 1)
    for level in levels:
        x = leaky_relu(conv2d(x, level.weight, level.bias, 2, 1), 0.2)
    assert x.shape == (3, 32, 4, 3)
    expected = linear(adaptive_avg_pool2d(x, 2).flatten(1), classify.weight, classify.bias)
    torch.testing.assert_close(d(maps, images), expected)


def test_whole_channels_are_dropped_in_training_behind_the_first_two_levels() -> None:
    torch.manual_seed(0)
    d = MapDiscriminator(channels=8).train()
    seen: list[torch.Tensor] = []
    for m in d.modules():
        if isinstance(m, nn.Dropout2d):
            m.register_forward_hook(lambda _, __, out: seen.append(out))
    d(torch.rand(16, 7, 64, 64), torch.rand(16, 1, 64, 64))
    assert [s.shape[1] for s in seen] == [16, 32]
    for s in seen:
        dropped = (s == 0).flatten(2).all(2)
        assert dropped.float().mean().item() == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("size", [(16, 16), (100, 40), (256, 256)])
def test_any_size_gives_two_logits(size: tuple[int, int]) -> None:
    d = MapDiscriminator(channels=2)
    assert d(torch.zeros(2, 7, *size), torch.zeros(2, 1, *size)).shape == (2, 2)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(InputError, match="at least 16"):
        MapDiscriminator(channels=2)(torch.zeros(1, 7, 16, 15), torch.zeros(1, 1, 16, 15))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MapDiscriminator(map_channels=0)
