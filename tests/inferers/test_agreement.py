"""The counts of TwoPlaneInferer against a float64 computation written out voxel by voxel."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from grn_monai.inferers import TwoPlaneInferer
from grn_monai.measure.agreement import agreement
from grn_monai.networks import EnhancedSegmentor

SHAPE = (6, 8, 16)


class Counted(nn.Module):
    """A convolution that counts the images it has seen."""

    def __init__(self, out: int, seed: int, scale: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, out, 3, padding=1)
        self.scale, self.images = scale, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        return self.scale * self.conv(x)


def network(sge: bool) -> EnhancedSegmentor:
    return EnhancedSegmentor(Counted(1, 1, 2.0), Counted(7, 2, 6.0), sge=sge, size_divisor=1).eval()


@pytest.fixture
def volume() -> torch.Tensor:
    return torch.rand(2, 1, *SHAPE, generator=torch.Generator().manual_seed(3)) * 2 - 1


def written_out(volume: torch.Tensor, model: EnhancedSegmentor, size: tuple[int, int] | None) -> dict[str, np.ndarray]:
    """Labels of S(x) and S(G(x)) in each plane, (X, Y, Z), slice by slice in float64."""
    out = {}
    double = volume.double()[0]
    segmentor, generator = model.segmentor.double(), model.generator.double()
    for name, axis in (("sagittal", 0), ("transverse", 1)):
        for mode in ("raw", "sge"):
            labels = np.zeros(SHAPE, np.uint8)
            for i in range(SHAPE[axis]):
                picture = (double[i] if axis == 0 else double[:, i]).T[None, None]  # depth, lateral
                x = picture if size is None else F.interpolate(picture, size, mode="bilinear", antialias=False)
                logits = segmentor(x if mode == "raw" else generator(x))
                maps = logits.softmax(1)
                if size is not None:
                    maps = F.interpolate(maps, picture.shape[2:], mode="bilinear", antialias=True)
                found = maps[0].argmax(0).T.numpy()
                if axis == 0:
                    labels[i] = found
                else:
                    labels[:, i] = found
            out[name, mode] = labels
    segmentor.float(), generator.float()
    return out


def pairs(*both: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    table = np.zeros((7, 7), np.int64)
    for first, second in both:
        for (a, b), count in Counter(zip(first.ravel().tolist(), second.ravel().tolist(), strict=True)).items():
            table[a, b] += count
    return table


@pytest.mark.parametrize("size", [None, (24, 20)])
@pytest.mark.parametrize("sge", [True, False])
def test_counts_equal_those_written_out(volume: torch.Tensor, size: tuple[int, int] | None, sge: bool) -> None:
    model = network(sge)
    out = TwoPlaneInferer(size=size, batch_size=3, return_agreement=True)(volume, model)
    assert ("sge_counts" in out) is sge
    assert out["plane_counts"].shape == (2, 7, 7)
    mode = "sge" if sge else "raw"
    for b in range(2):
        with torch.no_grad():
            labels = written_out(volume[b], model, size)
        expected = pairs((labels["sagittal", mode], labels["transverse", mode]))
        np.testing.assert_array_equal(out["plane_counts"][b].numpy(), expected)
        assert 0 < np.trace(expected) < expected.sum(), "the planes agree in part"
        if sge:
            both = (("sagittal", "raw"), ("sagittal", "sge")), (("transverse", "raw"), ("transverse", "sge"))
            expected = pairs(*((labels[a], labels[c]) for a, c in both))
            np.testing.assert_array_equal(out["sge_counts"][b].numpy(), expected)
            assert 0 < np.trace(expected) < expected.sum()


@pytest.mark.parametrize("sge", [True, False])
@pytest.mark.parametrize("enhanced", [True, False])
def test_the_prediction_stays_bit_for_bit_and_g_runs_once(volume: torch.Tensor, sge: bool, enhanced: bool) -> None:
    model = network(sge)
    plain = TwoPlaneInferer(size=(24, 20), return_enhanced=enhanced, return_planes=True)(volume, model)
    before = model.generator.images, model.segmentor.images
    model.generator.images = model.segmentor.images = 0
    counted = TwoPlaneInferer(size=(24, 20), return_enhanced=enhanced, return_planes=True, return_agreement=True)
    out = counted(volume, model)
    assert all(torch.equal(plain[key], out[key]) for key in plain)
    slices = 2 * (SHAPE[0] + SHAPE[1])
    assert model.generator.images == before[0] == (slices if sge or enhanced else 0)
    assert model.segmentor.images == before[1] + (slices if sge else 0)


def test_one_plane_has_nothing_to_compare(volume: torch.Tensor) -> None:
    out = TwoPlaneInferer("transverse", size=None, return_agreement=True)(volume, network(True))
    assert set(out) == {"pred", "sge_counts"}
    assert out["sge_counts"].sum() == volume.numel()
    plain = TwoPlaneInferer("transverse", size=None, return_agreement=True)(volume, Counted(7, 2, 6.0))
    assert set(plain) == {"pred"}


def test_metatensors_and_identity_generator(volume: torch.Tensor) -> None:
    model = EnhancedSegmentor(nn.Identity(), Counted(7, 2, 6.0), size_divisor=1).eval()
    out = TwoPlaneInferer(size=None, return_agreement=True)(MetaTensor(volume), model)
    numbers = agreement(np.asarray(out["sge_counts"][1]))
    assert numbers["disagreement_percent"] == 0
    assert numbers["mean_dice"] == 1
