"""Parameters and operations against counts by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from grn_monai.networks import ResNetGenerator, count_flops, count_parameters


def test_a_convolution_by_hand() -> None:
    conv = nn.Conv2d(3, 5, kernel_size=3, stride=2, padding=1)
    assert count_parameters(conv) == 5 * 3 * 3 * 3 + 5
    # Two operations for each of 27 products, for 5 channels at 4 x 6 places, for 2 images.
    assert count_flops(conv, (2, 3, 8, 12)) == 2 * 27 * 5 * (4 * 6) * 2


def test_a_transposed_convolution_and_a_product_by_hand() -> None:
    up = nn.ConvTranspose2d(4, 2, kernel_size=2, stride=2)
    assert count_flops(up, (1, 4, 8, 8)) == 2 * (4 * 2 * 2 * 2) * (8 * 8)  # every input value meets every weight
    assert count_flops(nn.Linear(10, 7), (3, 10)) == 2 * 3 * 10 * 7


def test_what_is_not_counted() -> None:
    rest = nn.Sequential(nn.BatchNorm2d(2), nn.PReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2))
    assert count_flops(rest, (1, 2, 8, 8)) == 0


def test_shared_and_frozen_parameters() -> None:
    layer = nn.Linear(4, 4)
    layer.requires_grad_(False)
    assert count_parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 20


def test_generator_and_its_sizes() -> None:
    generator = ResNetGenerator(base_channels=20)
    assert count_parameters(generator) == 3_626_321
    small = count_flops(generator, (1, 1, 64, 64))
    assert count_flops(generator, (3, 1, 64, 128)) == 6 * small


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_buffers_stay(training: bool) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout())
    module.train(training)
    module[1].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    count_flops(module, (1, 1, 8, 8))
    assert [part.training for part in module.modules()] == [training, training, False, training]
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_modes_stay_after_an_error_and_a_compiled_module_counts_as_it_is() -> None:
    conv = nn.Conv2d(1, 2, 3).train()
    plain = count_flops(conv, (1, 1, 8, 8))
    with pytest.raises(RuntimeError):
        count_flops(conv, (1, 3, 8, 8))
    assert conv.training
    conv.compile()
    assert count_flops(conv, (1, 1, 8, 8)) == plain == 2 * 9 * 2 * 36
