"""TwoPlaneInferer(sge=...): S(x) or S(G(x)) for one call, with the network as it is."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from grn_monai.errors import InputError
from grn_monai.inferers import TwoPlaneInferer
from grn_monai.networks import EnhancedSegmentor


def network(sge: bool) -> EnhancedSegmentor:
    torch.manual_seed(4)
    return EnhancedSegmentor(
        nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 7, 3, padding=1), sge=sge, size_divisor=8
    ).eval()


@pytest.fixture
def volume() -> torch.Tensor:
    return torch.rand(1, 1, 5, 6, 11, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("enhanced", [True, False])
def test_it_overrules_the_network_and_leaves_it_alone(volume: torch.Tensor, own: bool, enhanced: bool) -> None:
    model = network(own)
    options = {"size": None, "return_enhanced": enhanced, "return_agreement": True}
    for sge in (True, False):
        expected = TwoPlaneInferer(**options)(volume, network(sge))
        found = TwoPlaneInferer(**options, sge=sge)(volume, model)
        assert found.keys() == expected.keys()
        assert ("sge_counts" in found) is sge
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        assert model.sge is own
    both = [TwoPlaneInferer(size=None, sge=sge)(volume, model) for sge in (True, False)]
    assert (both[0] - both[1]).abs().max() > 0.01
    assert torch.equal(TwoPlaneInferer(size=None)(volume, model), both[0 if own else 1])


def test_calls_of_either_kind_share_a_network(volume: torch.Tensor) -> None:
    model = network(True)
    expected = {sge: TwoPlaneInferer(size=None, sge=sge)(volume, model) for sge in (True, False)}
    wrong = []

    def ask(sge: bool) -> None:
        for _ in range(10):
            if not torch.equal(TwoPlaneInferer(size=None, sge=sge)(volume, model), expected[sge]):
                wrong.append(sge)

    threads = [threading.Thread(target=ask, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_plain_segmentor_has_nothing_to_enhance(volume: torch.Tensor) -> None:
    plain = network(True).segmentor
    assert torch.equal(TwoPlaneInferer(size=None, sge=False)(volume, plain), TwoPlaneInferer(size=None)(volume, plain))
    with pytest.raises(InputError, match=r"^sge: found Conv2d; expected a network with a method enhance"):
        TwoPlaneInferer(size=None, sge=True)(volume, plain)


def test_a_network_that_always_enhances_is_not_asked_for_less(volume: torch.Tensor) -> None:
    class Always(nn.Module):
        def enhance(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.enhance(x).repeat(1, 7, 1, 1)

    assert torch.equal(
        TwoPlaneInferer(size=None, sge=True)(volume, Always()), TwoPlaneInferer(size=None)(volume, Always())
    )
    with pytest.raises(InputError, match="expected a network with a method segment"):
        TwoPlaneInferer(size=None, sge=False)(volume, Always())


@pytest.mark.parametrize("own", [True, False])
def test_a_torchscript_file_takes_it_too(volume: torch.Tensor, own: bool) -> None:
    """As MONAI Label loads models/model.ts."""
    model, script = network(own), torch.jit.script(network(own))
    for sge in (None, True, False):
        options = {"size": None, "return_enhanced": True, "return_agreement": True, "sge": sge}
        found, expected = (TwoPlaneInferer(**options)(volume, m) for m in (script, model))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value)
