"""Both prediction modes by the same windows."""

from __future__ import annotations

import torch
from monai.inferers import SliceInferer
from torch import nn

from grn_monai.inferers.both import BothInferer
from grn_monai.networks import EnhancedSegmentor


class Plus(nn.Module):
    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = amount

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.amount


def test_raw_and_enhanced_come_back_on_the_volumes_grid() -> None:
    network = EnhancedSegmentor(Plus(10), Plus(1), size_divisor=4)
    volume = torch.rand(1, 1, 9, 7, 3, generator=torch.Generator().manual_seed(0))
    inferer = BothInferer(SliceInferer(roi_size=(4, 4), spatial_dim=2, sw_batch_size=4, overlap=0.25, mode="gaussian"))
    out = inferer(volume, network)
    assert torch.allclose(out["pred"], volume + 1, atol=1e-5)
    assert torch.allclose(out["pred_sge"], volume + 11, atol=1e-5)
