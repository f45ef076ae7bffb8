"""Features of MONAI's U-Net: those of hooks on its modules, with the shapes of the papers' network."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import UNet

from grn_monai.networks.unet_features import check_depth, unet_features


@pytest.mark.parametrize("units", [0, 2])
def test_features_are_those_that_hooks_see(units: int) -> None:
    torch.manual_seed(0)
    unet = UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=units).eval()
    seen = {}
    names = {
        "d1": "model.1.submodule.2",
        "d2": "model.1.submodule.1.submodule.2",
        "d3": "model.1.submodule.1.submodule.1.submodule.2",
    }
    for key, name in names.items():
        unet.get_submodule(name).register_forward_hook(lambda _, __, out, key=key: seen.update({key: out}))
    unet.model[2].register_forward_pre_hook(lambda _, args: seen.update(top=args[0]))
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        logits = unet(x)
        stock = dict(seen)
        top, decoded = unet_features(unet, x)
        assert torch.equal(unet.model[2](top), logits)
    assert [tuple(d.shape[1:]) for d in decoded] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert tuple(top.shape[1:]) == (32, 32, 32)
    for got, key in zip((top, *decoded), ("top", "d1", "d2", "d3"), strict=True):
        assert torch.equal(got, stock[key])


def test_other_networks_are_refused() -> None:
    check_depth("Heads", UNet(2, 1, 2, (4, 4, 4, 4, 4), (2, 2, 2, 2)), 3)
    with pytest.raises(ValueError, match="Heads is built on a monai UNet of at least 5 levels, got one of 3 levels"):
        check_depth("Heads", UNet(2, 1, 2, (4, 4, 4), (2, 2)), 3)
    with pytest.raises(ValueError, match="got Linear"):
        check_depth("Heads", torch.nn.Linear(1, 1), 1)
