"""ScaleEcho: the 8-bit rule, the percentile rule, and that a scan has one scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from grn_monai.errors import InputError
from grn_monai.transforms import ScaleEcho, ScaleEchod


def test_eight_bit_matches_the_released_scripts() -> None:
    grey = torch.arange(256, dtype=torch.float32).reshape(1, 4, 8, 8)
    out = ScaleEcho()(grey)
    assert (out.min(), out.max()) == (-1, 1)
    np.testing.assert_allclose(out.numpy(), ((grey.numpy().astype(np.float64) / 255) - 0.5) / 0.5, atol=2e-7)


def test_eight_bit_scale_does_not_depend_on_the_contents() -> None:
    dark = torch.tensor([[[[0.0, 3.0, 51.0]]]])
    np.testing.assert_allclose(ScaleEcho()(dark).numpy().ravel(), [-1, 3 / 127.5 - 1, -0.6], atol=1e-6)
    assert torch.equal(ScaleEcho()(dark.to(torch.uint8)), ScaleEcho()(dark))


@pytest.mark.parametrize("change", [lambda x: x + 0.25, lambda x: x * 2, lambda x: x - 40, lambda x: x / 255])
def test_other_data_are_clipped_at_percentiles(change: object) -> None:
    grey = change(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 20, 20, 20)).astype(np.float32)))
    low, high = np.percentile(grey.numpy().astype(np.float64), [0.5, 99.5])
    expected = np.clip((grey.numpy() - low) / (high - low) * 2 - 1, -1, 1)
    np.testing.assert_allclose(ScaleEcho()(grey).numpy(), expected, atol=1e-5)


def test_binary_picture_is_not_taken_for_eight_bit() -> None:
    out = ScaleEcho()(torch.tensor([[[[0.0, 1.0, 1.0, 0.0]]]]))
    assert out.flatten().tolist() == [-1, 1, 1, -1]


def test_few_bright_voxels_fall_back_to_the_extremes() -> None:
    grey = torch.full((1, 10, 10, 10), -5.0)
    grey[0, 0, 0, 0] = 3.0
    out = ScaleEcho("percentile")(grey)
    assert (out.min(), out.max()) == (-1, 1)


def test_meta_range_and_restore() -> None:
    grey = MetaTensor(torch.rand(1, 5, 5, 5) * 40 - 20, affine=torch.diag(torch.tensor([1.0, 2, 3, 1])))
    out = ScaleEcho(lower=0, upper=100)(grey)
    assert torch.equal(out.affine, grey.affine)
    assert out.meta["echo_range"] == pytest.approx((float(grey.min()), float(grey.max())))
    np.testing.assert_allclose(ScaleEcho().restore(out).numpy(), grey.numpy(), atol=1e-5)
    assert "echo_range" not in grey.meta


def test_twin_scales_only_its_keys() -> None:
    item = {"image": torch.tensor([[[[0.0, 255.0]]]]), "label": torch.tensor([[[[1, 2]]]])}
    out = ScaleEchod("image")(item)
    assert out["image"].flatten().tolist() == [-1, 1]
    assert out["label"] is item["label"]
    assert item["image"].max() == 255


def test_refusals() -> None:
    with pytest.raises(InputError, match="ScaleEcho mode"):
        ScaleEcho("minmax")
    with pytest.raises(InputError, match="percentiles 60 and 40"):
        ScaleEcho(lower=60, upper=40)
    with pytest.raises(InputError, match="values from -1 to 3"):
        ScaleEcho("uint8")(torch.tensor([-1.0, 3.0]))
    with pytest.raises(InputError, match="constant volume"):
        ScaleEcho("percentile")(torch.ones(1, 3, 3, 3))
