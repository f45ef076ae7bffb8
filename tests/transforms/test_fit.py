"""Axial slices fitted to a network's size: proportions, places in the world, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Orientationd

from grn_monai.errors import InputError
from grn_monai.transforms import DecideLabelsd, FitSlices, FitSlicesd
from grn_monai.transforms.fit import SliceFit, slice_fit


def smooth(shape: tuple[int, int, int], affine: np.ndarray) -> MetaTensor:
    """A volume whose values are the world positions along R and A, in units of the volume's extent."""
    grid = np.stack([*np.meshgrid(*map(np.arange, shape), indexing="ij"), np.ones(shape)])
    world = np.einsum("ij,jxyz->ixyz", affine, grid)[:2] / 100
    return MetaTensor(torch.from_numpy(world).float(), affine=torch.from_numpy(affine))


@pytest.mark.parametrize(
    ("shape", "spacing", "size", "pixel_mm", "inner"),
    [
        ((512, 512), (0.8, 0.8), (256, 256), None, (256, 256)),  # as published
        ((122, 101), (3, 3), (256, 256), None, (256, 212)),  # 101 / 122 · 256 = 211.9
        ((100, 100), (1, 2), (64, 64), None, (32, 64)),  # voxels of 1 × 2 mm: half as wide as high
        ((100, 100), (1, 1), (64, 32), None, (32, 32)),
        ((100, 80), (1.5, 1.5), (64, 64), 2, (75, 60)),  # 150 mm of 2 mm pixels: cut
    ],
)
def test_plan(
    shape: tuple[int, int], spacing: tuple[float, float], size: tuple[int, int], pixel_mm: float, inner: tuple[int, int]
) -> None:
    assert slice_fit(shape, spacing, size, pixel_mm) == SliceFit(shape, inner, size)


@pytest.mark.parametrize("pixel_mm", [None, 2.0, 0.9])
def test_a_fitted_voxel_shows_what_lies_at_its_place(pixel_mm: float | None) -> None:
    turn = np.array([[0.96, -0.28, 0, -30], [0.28, 0.96, 0, 20], [0, 0, 1, 5], [0, 0, 0, 1]])
    volume = smooth((40, 31, 3), turn @ np.diag([1.3, 1.6, 4, 1]))
    fitted = FitSlices((48, 40), pixel_mm)(volume)
    assert fitted.shape == (2, 48, 40, 3)
    expected = smooth((48, 40, 3), np.asarray(fitted.affine)).numpy()
    found = fitted.numpy()
    inside = found[0] != -1
    inner = np.zeros_like(inside)  # away from the rim, where interpolation has one side only
    rows, columns = np.flatnonzero(inside.any((1, 2))), np.flatnonzero(inside.any((0, 2)))
    inner[rows[0] + 3 : rows[-1] - 2, columns[0] + 3 : columns[-1] - 2] = True
    assert inner.sum() > 800
    np.testing.assert_allclose(found[:, inner], expected[:, inner], atol=2e-3)


@pytest.mark.parametrize(("size", "pixel_mm"), [((48, 40), None), ((64, 64), 0.8), ((24, 24), 2.5), ((32, 32), 1.0)])
def test_the_way_back_ends_on_the_scan(size: tuple[int, int], pixel_mm: float | None) -> None:
    volume = smooth((40, 31, 3), np.diag([1.3, 1.6, 4, 1]))
    fit = FitSlices(size, pixel_mm)
    back = fit.inverse(fit(volume))
    assert back.shape == volume.shape
    np.testing.assert_array_equal(np.asarray(back.affine), np.asarray(volume.affine))
    assert back.applied_operations == []
    middle = (slice(None), slice(14, 26), slice(11, 20))
    np.testing.assert_allclose(back.numpy()[middle], volume.numpy()[middle], atol=5e-3)


def test_what_was_cut_comes_back_as_background() -> None:
    volume = MetaTensor(torch.ones(1, 40, 40, 2), affine=torch.eye(4))
    fit = FitSlices((20, 20), 1.0)
    back = fit.inverse(fit(volume)).numpy()[0]
    assert back.sum() == 20 * 20 * 2
    assert (back[10:30, 10:30] == 1).all()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_invertd_brings_probabilities_of_any_channels_to_the_order_of_the_file(axes: tuple[int, ...]) -> None:
    affine = np.diag([-1.5, 1.5, 3, 1])[:, [*axes, 3]]
    image = MetaTensor(torch.rand(1, 21, 18, 24), affine=torch.from_numpy(affine))
    steps = Compose([Orientationd("image", axcodes="RAS", labels=None), FitSlicesd("image", (32, 32))])
    item = steps({"image": image})
    item["pred"] = MetaTensor(torch.cat([item["image"], 1 - item["image"]])).copy_meta_from(item["image"])
    back = Invertd("pred", steps, "image", nearest_interp=False)(item)["pred"]
    assert back.shape == (2, 21, 18, 24)
    np.testing.assert_allclose(np.asarray(back.affine), affine)
    assert np.corrcoef(back[0].ravel(), image.ravel())[0, 1] > 0.8


def test_bad_options() -> None:
    for size, pixel_mm in (((0, 4), None), ((4,), None), ((4, 4), 0), ((4, 4), -1)):
        with pytest.raises(InputError):
            FitSlices(size, pixel_mm)


def test_decisions() -> None:
    decide = DecideLabelsd("pred", 0.4)
    one = MetaTensor(torch.tensor([[[0.39, 0.4, 0.41]]]), affine=torch.eye(4) * 2)
    out = decide({"pred": one})["pred"]
    assert out.tolist() == [[[0, 0, 1]]]
    assert out.dtype == torch.uint8
    assert out.affine[0, 0] == 2
    three = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.25, 0.3], [0.1, 0.25, 0.4]])
    assert decide({"pred": three})["pred"].tolist() == [[1, 0, 2]]
    with pytest.raises(InputError, match="threshold"):
        DecideLabelsd("pred", 1.0)
