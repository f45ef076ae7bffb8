"""Slice by slice inference: every slice at its place, probabilities, and the two modes of a network with generator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from grn_monai.errors import InputError
from grn_monai.inferers import AxialInferer
from grn_monai.networks import EnhancedSegmentor


class Halves(nn.Module):
    """G: half of the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


class Shifted(nn.Module):
    """S: two classes, whose logits tell the value and how many slices came together."""

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.classes, self.batches = classes, list[int]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        return torch.cat([x + k for k in range(self.classes)], 1)


@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_of_every_slice(classes: int) -> None:
    volume = torch.randn(1, 1, 8, 6, 5)
    network = Shifted(classes)
    found = AxialInferer((8, 6), batch_size=2)(volume, network)
    logits = torch.cat([volume + k for k in range(classes)], 1)
    torch.testing.assert_close(found, logits.sigmoid() if classes == 1 else logits.softmax(1))
    assert network.batches == [2, 2, 1]


def test_modes_of_a_network_with_generator() -> None:
    volume = torch.randn(1, 1, 32, 32, 3)
    network = EnhancedSegmentor(Halves(), Shifted())
    raw, sge, own = (AxialInferer((32, 32), sge=mode)(volume, network) for mode in (False, True, None))
    torch.testing.assert_close(raw, volume.sigmoid())
    torch.testing.assert_close(sge, (volume / 2).sigmoid())
    torch.testing.assert_close(own, sge)  # what the network itself is set to
    with pytest.raises(InputError, match="sge"):
        AxialInferer((32, 32), sge=True)(volume, Shifted())
    with pytest.raises(InputError, match="infer_batch_size"):
        AxialInferer((32, 32), batch_size=0)
