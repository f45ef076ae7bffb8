"""EnhancedSegmentor: S(G(x)) and S(x) from one module, any size."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from grn_monai.networks import EnhancedSegmentor, ResNetGenerator


@pytest.fixture
def network() -> EnhancedSegmentor:
    torch.manual_seed(0)
    generator = ResNetGenerator(base_channels=4)
    generator(torch.randn(4, 1, 64, 64))
    return EnhancedSegmentor(generator, UNet(2, 1, 7, (4, 8, 8), (2, 2))).eval()


def test_forward_is_s_of_g(network: EnhancedSegmentor) -> None:
    x = torch.randn(2, 1, 64, 96)
    torch.testing.assert_close(network(x), network.segmentor(network.generator(x)))


def test_without_sge_it_is_s(network: EnhancedSegmentor) -> None:
    x = torch.randn(2, 1, 64, 96)
    network.sge = False
    torch.testing.assert_close(network(x), network.segmentor(x))
    torch.testing.assert_close(network(x), network.segment(x))


def test_the_shared_passes_equal_the_separate_ones(network: EnhancedSegmentor) -> None:
    x = torch.randn(2, 1, 50, 70)
    raw, sge = network.both(x)
    torch.testing.assert_close(raw, network.segment(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sge, network(x), rtol=1e-4, atol=1e-5)
    enhanced, logits = network.enhance_and_segment(x)
    torch.testing.assert_close(enhanced, network.enhance(x))
    torch.testing.assert_close(logits, network(x))


@pytest.mark.parametrize("size", [(33, 64), (31, 31), (1, 5), (128, 130)])
def test_any_size_is_padded_and_cropped_back(network: EnhancedSegmentor, size: tuple[int, int]) -> None:
    x = torch.randn(1, 1, *size)
    assert network(x).shape == (1, 7, *size)
    assert network.enhance(x).shape == x.shape


def test_padding_repeats_the_edge() -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert torch.equal(EnhancedSegmentor(Spy(), nn.Identity(), size_divisor=4)(x), x)
    expected = torch.tensor([[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5.0]])
    assert torch.equal(seen[0][0, 0], expected)


def test_one_state_dict_holds_both_parts(network: EnhancedSegmentor) -> None:
    assert {k.split(".")[0] for k in network.state_dict()} == {"generator", "segmentor"}


def test_bad_divisor() -> None:
    with pytest.raises(ValueError, match="size_divisor"):
        EnhancedSegmentor(nn.Identity(), nn.Identity(), size_divisor=0)
