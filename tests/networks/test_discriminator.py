"""PatchDiscriminator: count, shapes, receptive field, small images."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import PatchDiscriminator as MonaiPatchDiscriminator

from grn_monai.errors import InputError
from grn_monai.networks import PatchDiscriminator


def test_parameter_count_is_the_published_one() -> None:
    assert sum(p.numel() for p in PatchDiscriminator().parameters()) == 2_764_481


def test_gives_the_last_map_of_monais() -> None:
    torch.manual_seed(0)
    mine = PatchDiscriminator(channels=8)
    monai = MonaiPatchDiscriminator(spatial_dims=2, channels=8, in_channels=1, bias=True)
    monai.load_state_dict(mine.state_dict())
    x = torch.rand(2, 1, 64, 48) * 2 - 1
    torch.testing.assert_close(mine(x), monai(x)[-1])


@pytest.mark.parametrize(("side", "maps"), [(256, 30), (128, 14), (32, 2), (24, 1)])
def test_map_sizes(side: int, maps: int) -> None:
    assert PatchDiscriminator(channels=4)(torch.zeros(2, 1, side, side)).shape == (2, 1, maps, maps)


def test_receptive_field_is_70() -> None:
    d = PatchDiscriminator(channels=4).eval()
    x = torch.rand(1, 1, 256, 256, requires_grad=True)
    d(x)[0, 0, 15, 15].backward()
    assert x.grad is not None
    rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == 70


@pytest.mark.parametrize(("layers", "smallest"), [(3, 24), (2, 12)])
def test_too_small_images_are_refused(layers: int, smallest: int) -> None:
    d = PatchDiscriminator(channels=4, num_layers=layers)
    assert d(torch.zeros(2, 1, smallest, smallest)).shape[-1] == 1
    with pytest.raises(InputError, match=f"at least {smallest}"):
        d(torch.zeros(2, 1, smallest, smallest - 1))


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PatchDiscriminator(channels=0)
