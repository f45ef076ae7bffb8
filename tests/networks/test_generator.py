"""ResNetGenerator: the counts that methods and design fix, shapes, range, modes and bad input."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNet

from grn_monai.errors import InputError
from grn_monai.networks import ResidualBlock, ResNetGenerator


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("base_channels", "parameters"), [(12, 1_306_993), (20, 3_626_321), (64, 37_089_025)])
def test_parameter_count(base_channels: int, parameters: int) -> None:
    assert count(ResNetGenerator(base_channels=base_channels)) == parameters


def test_default_is_the_compact_preset() -> None:
    assert count(ResNetGenerator()) == 3_626_321


def test_segmentor_parameter_count() -> None:
    assert count(UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2))) == 661_727


@pytest.mark.parametrize("shape", [(1, 1, 32, 64), (2, 1, 96, 32)])
def test_shape_kept_and_range(shape: tuple[int, ...]) -> None:
    generated = ResNetGenerator(base_channels=4).eval()(torch.randn(shape) * 10)
    assert generated.shape == shape
    assert generated.abs().max() <= 1


def test_eval_mode_takes_batch_one_and_does_not_mix_samples() -> None:
    torch.manual_seed(0)
    generator = ResNetGenerator(base_channels=4)
    generator(torch.randn(4, 1, 64, 64))  # fill the running statistics
    generator.eval()
    batch = torch.randn(3, 1, 64, 64)
    torch.testing.assert_close(generator(batch)[1:2], generator(batch[1:2]), rtol=1e-4, atol=1e-5)


def test_channels() -> None:
    assert ResNetGenerator(3, 2, base_channels=4).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 32, 32)


def test_wrong_size_names_the_size_to_pad_to() -> None:
    with pytest.raises(InputError, match=r"\(33, 64\).*multiples of 32.*\(64, 64\)"):
        ResNetGenerator(base_channels=4)(torch.zeros(1, 1, 33, 64))


@pytest.mark.parametrize("bad", [{"base_channels": 0}, {"in_channels": 0}, {"num_res_blocks": -1}])
def test_bad_options(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        ResNetGenerator(**bad)


def test_residual_block_is_identity_when_its_last_norm_is_zero() -> None:
    block = ResidualBlock(4).eval()
    torch.nn.init.zeros_(block.body[-1].weight)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_every_parameter_gets_a_gradient() -> None:
    generator = ResNetGenerator(base_channels=4)
    generator(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in generator.parameters())
