"""What a label map lacks is said, and islands are removed."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import MetaTensor

from grn_monai.labels import CT_MUSCLES
from grn_monai.transforms.found import ReportMissingd
from grn_monai.transforms.largest import LargestPart, LargestPartd


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 0], "s01: nothing found: no voxel of autochthon left, autochthon right, iliopsoas left, iliopsoas right"),
        ([1, 3], "s01: not found: autochthon right, iliopsoas right"),
        ([1, 2, 3, 4], ""),
    ],
)
def test_missing_structures_are_logged(values: list[int], words: str, caplog: pytest.LogCaptureFixture) -> None:
    image = MetaTensor(torch.zeros(1, 2, 2, 1), meta={"filename_or_obj": "a/s01.nii.gz"})
    pred = torch.tensor([values], dtype=torch.float32)
    logger = logging.getLogger("grn_monai.transforms.found")
    logger.addHandler(caplog.handler)
    out = ReportMissingd("pred", CT_MUSCLES)({"pred": pred, "image": image})
    logger.removeHandler(caplog.handler)
    assert torch.equal(out["pred"], pred)
    assert list(dict.fromkeys(record.getMessage() for record in caplog.records)) == ([words] if words else [])


def test_largest_part_agrees_with_simpleitk() -> None:
    rng = np.random.default_rng(0)
    array = rng.choice(4, size=(12, 11, 7), p=[0.85, 0.05, 0.05, 0.05]).astype(np.uint8)
    before = array.copy()
    cleaned = LargestPart([1, 2])(torch.from_numpy(array)[None])[0].numpy()
    assert np.array_equal(array, before)
    for value in (1, 2):
        parts = sitk.ConnectedComponent(sitk.GetImageFromArray((array == value).astype(np.uint8)), True)
        sizes = np.bincount(sitk.GetArrayFromImage(parts).ravel())[1:]
        assert len(sizes) > 1
        assert np.count_nonzero(cleaned == value) == sizes.max()
        assert not ((cleaned == value) & (array != value)).any()
    assert np.array_equal(cleaned == 3, array == 3)


def test_corners_connect_and_type_and_affine_stay() -> None:
    label = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.diag(torch.tensor([2.0, 2, 5, 1], dtype=torch.float64)))
    label[0, 0, 0, 0] = label[0, 1, 1, 1] = label[0, 3, 3, 3] = 1
    out = LargestPartd("pred", [1, 2])({"pred": label})["pred"]
    assert (out.dtype, out.sum().item()) == (torch.float32, 2)
    assert out[0, 3, 3, 3] == 0
    assert torch.equal(out.affine, label.affine)
