"""Volume to slices and back: axes by hand, resampling against scipy and a closed form, inverse and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from scipy.ndimage import map_coordinates

from grn_monai.errors import InputError
from grn_monai.transforms import (
    PLANES,
    SlicesToVolume,
    SlicesToVolumed,
    VolumeToSlices,
    VolumeToSlicesd,
    resize_slices,
    take_slice,
    volume_to_slices,
)

X, Y, Z = 3, 4, 5


def volume(channels: int = 1) -> torch.Tensor:
    return torch.arange(channels * X * Y * Z, dtype=torch.float32).reshape(channels, X, Y, Z)


def test_axes_by_hand() -> None:
    v = volume(2)
    sagittal, transverse = (volume_to_slices(v, plane, None) for plane in PLANES)
    assert sagittal.shape == (X, 2, Z, Y)
    assert transverse.shape == (Y, 2, Z, X)
    for x, y, z in np.ndindex(X, Y, Z):
        assert sagittal[x, 1, z, y] == v[1, x, y, z] == transverse[y, 1, z, x]


@pytest.mark.parametrize("plane", PLANES)
def test_take_slice_equals_the_stack_and_is_a_view(plane: str, tmp_path: Path) -> None:
    v = volume(2)
    stack = volume_to_slices(v, plane, None)
    np.save(tmp_path / "v.npy", v.numpy())
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    for i in range(stack.shape[0]):
        assert torch.equal(take_slice(v, plane, i), stack[i])
        part = take_slice(mapped, plane, i)
        np.testing.assert_array_equal(part, stack[i].numpy())
        assert isinstance(part, np.memmap), "nothing was read ahead"


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_identity_where_sizes_agree(plane: str, mode: str) -> None:
    v = volume(7)
    native = (Z, Y if plane == "sagittal" else X)
    slices = VolumeToSlices(plane, native, mode)(v)
    assert torch.equal(SlicesToVolume(plane, (X, Y, Z), mode)(slices), v)


def test_enlarging_is_bilinear_at_pixel_centres() -> None:
    image = torch.rand(1, 1, 6, 9, generator=torch.Generator().manual_seed(0))
    out = resize_slices(image, (15, 20))
    rows = ((np.arange(15) + 0.5) * 6 / 15 - 0.5).clip(0, 5)
    cols = ((np.arange(20) + 0.5) * 9 / 20 - 0.5).clip(0, 8)
    expected = map_coordinates(image.numpy()[0, 0], np.meshgrid(rows, cols, indexing="ij"), order=1)
    np.testing.assert_allclose(out.numpy()[0, 0], expected, atol=1e-6)


def test_shrinking_is_antialiased() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 1, 64, 64)
    out = resize_slices(stripes, (16, 16))
    assert (out - 0.5).abs().max() < 0.1, "plain bilinear sampling would give aliases of 0 or 1 spread"
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    expected = (torch.arange(16) + 0.5) * 4 - 0.5
    torch.testing.assert_close(resize_slices(ramp, (16, 16))[0, 0, 3, 2:-2], expected[2:-2])


def test_nearest_keeps_labels() -> None:
    labels = torch.randint(0, 7, (4, 1, 10, 11), dtype=torch.uint8)
    out = resize_slices(labels, (23, 5), "nearest")
    assert out.dtype == torch.uint8
    rows, cols = ((np.arange(23) + 0.5) * 10 / 23).astype(int), ((np.arange(5) + 0.5) * 11 / 5).astype(int)
    np.testing.assert_array_equal(out.numpy(), labels.numpy()[:, :, rows][..., cols])


@pytest.mark.parametrize("plane", PLANES)
def test_probabilities_stay_probabilities(plane: str) -> None:
    maps = torch.rand(X if plane == "sagittal" else Y, 7, 16, 16).softmax(1)
    back = SlicesToVolume(plane, (X, Y, Z))(maps)
    torch.testing.assert_close(back.sum(0), torch.ones(X, Y, Z))
    assert back.min() >= 0


@pytest.mark.parametrize("plane", PLANES)
def test_smooth_volume_survives_the_round_trip(plane: str) -> None:
    axis = torch.linspace(0, 1, 24)
    smooth = (axis[:, None, None] + 2 * axis[None, :, None] + torch.sin(3 * axis))[None]
    transform = VolumeToSlices(plane, (48, 48))
    change = (transform.inverse(transform(smooth)).as_tensor() - smooth).abs()
    assert change[:, 2:-2, 2:-2, 2:-2].max() < 5e-3
    assert change.max() < 0.06, "at the border, less than half the step from voxel to voxel"


def test_range_of_slices() -> None:
    v = volume()
    for plane in PLANES:
        whole = volume_to_slices(v, plane, (8, 8))
        assert torch.equal(volume_to_slices(v, plane, (8, 8), start=1, stop=3), whole[1:3])


def test_invertd_takes_predictions_with_other_channels() -> None:
    affine = torch.diag(torch.tensor([0.2, 0.3, 0.4, 1.0], dtype=torch.float64))
    cut = Compose([VolumeToSlicesd("image", "transverse", (10, 6))])
    item = cut({"image": MetaTensor(volume(), affine=affine)})
    item["pred"] = MetaTensor((item["image"].as_tensor() > 30).to(torch.uint8).repeat(1, 2, 1, 1))
    pred = Invertd("pred", cut, orig_keys="image")(item)["pred"]
    assert pred.shape == (2, X, Y, Z)
    assert pred.dtype == torch.uint8
    assert torch.equal(pred.affine, affine)
    assert set(pred.unique().tolist()) == {0, 1}


def test_dictionary_twins_with_one_mode_per_key() -> None:
    item = {"image": volume(), "label": (volume() % 7).to(torch.uint8)}
    out = VolumeToSlicesd(("image", "label"), "sagittal", (9, 9), ("bilinear", "nearest"))(item)
    assert (out["image"].dtype, out["label"].dtype) == (torch.float32, torch.uint8)
    back = SlicesToVolumed(("image", "label"), "sagittal", (X, Y, Z), ("bilinear", "nearest"))(out)
    assert back["image"].shape == back["label"].shape == (1, X, Y, Z)


def test_refusals() -> None:
    with pytest.raises(InputError, match="'coronal'; expected 'sagittal' or 'transverse'"):
        VolumeToSlices("coronal")
    with pytest.raises(InputError, match="slice mode"):
        resize_slices(torch.zeros(1, 1, 4, 4), (8, 8), "cubic")
    with pytest.raises(InputError, match=r"expected \(4, K, H, W\)"):
        SlicesToVolume("transverse", (X, Y, Z))(torch.zeros(X, 1, Z, Y))
    with pytest.raises(InputError, match="Give one volume"):
        VolumeToSlices("sagittal")(torch.zeros(X, Y, Z))
