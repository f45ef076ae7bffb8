"""LoadScan and LoadScand: types, missing keys, and labels that lie elsewhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import list_data_collate

from grn_monai.errors import InputError
from grn_monai.transforms import LoadScan, LoadScand


@pytest.fixture
def item(tmp_path: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    affine = np.diag([0.2, 0.2, 0.15, 1.0])
    nib.save(nib.Nifti1Image(rng.integers(0, 255, (4, 5, 6)).astype(np.uint8), affine), tmp_path / "s.nii.gz")
    nib.save(nib.Nifti1Image(rng.integers(0, 7, (4, 5, 6)).astype(np.uint8), affine), tmp_path / "l.nii.gz")
    return {"image": str(tmp_path / "s.nii.gz"), "label": str(tmp_path / "l.nii.gz"), "subject": "a"}


def test_twins_agree(item: dict[str, str]) -> None:
    both = LoadScand(("image", "label"))(item)
    assert both["subject"] == "a"
    assert (both["image"].dtype, both["label"].dtype) == (torch.float32, torch.uint8)
    assert torch.equal(both["image"], LoadScan()(item["image"]))
    assert torch.equal(both["label"], LoadScan("label")(item["label"]))
    assert both["image"].meta["filename_or_obj"] == item["image"]
    assert item["image"].endswith("s.nii.gz"), "the caller's item is left alone"


def test_unlabelled_item(item: dict[str, str]) -> None:
    del item["label"]
    assert set(LoadScand(("image", "label"), allow_missing_keys=True)(item)) == {"image", "subject"}
    with pytest.raises(KeyError, match="label"):
        LoadScand(("image", "label"))(item)


def test_label_elsewhere_is_refused(item: dict[str, str], tmp_path: Path) -> None:
    array = np.ones((4, 5, 6), np.uint8)
    nib.save(nib.Nifti1Image(array, np.diag([0.2, 0.2, 0.2, 1.0])), tmp_path / "other.nii.gz")
    with pytest.raises(InputError, match=r"other\.nii\.gz.*Resample the label"):
        LoadScand(("image", "label"))({**item, "label": str(tmp_path / "other.nii.gz")})


def test_two_loaded_scans_collate(item: dict[str, str]) -> None:
    load = pickle.loads(pickle.dumps(LoadScand(("image", "label"))))
    batch = list_data_collate([load(item), load(item)])
    assert batch["image"].shape == (2, 1, 4, 5, 6)
    assert batch["image"].meta["filename_or_obj"] == [item["image"]] * 2
