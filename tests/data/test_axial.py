"""Axial slices: which, in what orientation and window, and how a cohort without validation is shared out."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from grn_monai.data import AxialSliceDataset, holdout_list
from grn_monai.errors import InputError
from tests.data.readers.test_series import COLUMNS, ROWS, SLICES, save, simpleitk

SHAPE = (8, 6, 4)


def scan(folder: Path, name: str = "a", codes: str = "RAS") -> dict[str, Any]:
    """A CT of random HU and a label in slices 1 and 2, in files of some orientation."""
    rng = np.random.default_rng(0)
    grey = rng.integers(-300, 400, SHAPE).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 2:5, 1] = 2
    label[5, 1, 2] = 4
    item = {}
    for key, array in (("image", grey), ("label", label)):
        image = nib.Nifti1Image(array, np.diag([2, 2, 5, 1]))
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt(tuple("RAS")), nib.orientations.axcodes2ornt(tuple(codes))
        )
        path = folder / f"{name}_{codes}_{key}.nii.gz"
        nib.save(image.as_reoriented(turn), path)
        item[key] = str(path)
    return {**item, "subject": name}


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR"])
def test_slices_are_axial_whatever_the_order_of_the_voxels(tmp_path: Path, codes: str) -> None:
    item = scan(tmp_path, codes=codes)
    straight = scan(tmp_path)
    slices = AxialSliceDataset([item], size=(8, 8), window=(-100, 300))
    grey, label = (np.asanyarray(nib.load(straight[key]).dataobj) for key in ("image", "label"))
    assert len(slices) == 4
    for k in range(4):
        # 8 × 6 pixels fit into 8 × 8 with a column of air on both sides.
        expected = np.full((8, 8), -1.0)
        expected[:, 1:7] = np.clip((grey[..., k] + 100) / 200 - 1, -1, 1)
        np.testing.assert_allclose(slices[k]["image"][0], expected, atol=1e-6)
        np.testing.assert_array_equal(slices[k]["label"][0][:, 1:7], label[..., k])
        assert (slices[k]["scan"], slices[k]["index"]) == (Path(item["image"]).name[:-7], k)
    assert slices[0]["image"].dtype == torch.float32
    assert slices[0]["label"].dtype == torch.uint8
    assert slices.describe() == {"scans": 1, "labelled": 1, "slices": 4}


def test_a_series_gives_the_slices_that_simpleitk_reads(tmp_path: Path) -> None:
    save(tmp_path / "s")
    values, affine = simpleitk(tmp_path / "s")
    image = nib.as_closest_canonical(nib.Nifti1Image(values, affine))
    slices = AxialSliceDataset([{"image": str(tmp_path / "s")}], size=(16, 16), window=(-1024, 200))
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    assert len(slices) == image.shape[2]
    assert sorted(image.shape) == sorted((COLUMNS, ROWS, SLICES))
    extent = np.array(image.shape[:2]) * spacing[:2]
    height, width = np.rint(16 * extent / extent.max()).astype(int)
    item = slices[1]["image"][0]
    filled = np.argwhere(item.numpy() > -1)
    assert (np.ptp(filled, axis=0) + 1 == (height, width)).all()
    # Rounding to whole units and resizing leave the mean.
    expected = np.clip((np.asarray(image.dataobj)[..., 1] + 1024) / 612 - 1, -1, 1).mean()
    inner = item[item > -1]
    assert float(inner.mean()) == pytest.approx(expected, abs=0.05)


def test_cache_is_shared_contiguous_and_of_whole_units(tmp_path: Path) -> None:
    item = scan(tmp_path)
    cache = tmp_path / "cache"
    slices = AxialSliceDataset([item], size=(8, 8), cache_dir=cache)
    before = slices[0]["image"]
    files = sorted(cache.glob("*.npy"))
    volume = np.load(next(f for f in files if ".image" in f.name), mmap_mode="r")
    assert volume.dtype == np.int16
    assert volume.shape == (4, 8, 6)
    assert volume[1].flags.c_contiguous
    again = AxialSliceDataset([item], size=(8, 8), window=(-50, 50), cache_dir=cache)
    assert (again[0]["image"] != before).any()
    assert sorted(cache.glob("*.npy")) == files  # another window needs no other file
    other = AxialSliceDataset([item], size=(8, 8), label_values={2: 1}, cache_dir=cache)
    assert set(other[1]["label"].unique().tolist()) == {0, 1}
    assert len(list(cache.glob("*.npy"))) == len(files) + 1
    copy = pickle.loads(pickle.dumps(slices))  # as a worker gets it
    np.testing.assert_array_equal(copy[0]["image"], before)


def test_which_slices(tmp_path: Path) -> None:
    data = [scan(tmp_path, "a"), scan(tmp_path, "b", "LPS")]
    every = AxialSliceDataset(data, size=(8, 8))
    assert [every.locate(i) for i in (0, 3, 4, -1)] == [(0, 0), (0, 3), (1, 0), (1, 3)]
    marked = AxialSliceDataset(data, size=(8, 8), only_labelled=True)
    assert [marked.locate(i) for i in range(len(marked))] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [marked[i]["index"] for i in range(4)] == [1, 2, 1, 2]
    assert len(AxialSliceDataset(data, size=(8, 8), step=3)) == 4
    with pytest.raises(IndexError):
        every.locate(8)
    with pytest.raises(InputError, match="no slice with a label"):
        AxialSliceDataset(data, size=(8, 8), only_labelled=True, label_values={3: 1})


def test_refused(tmp_path: Path) -> None:
    item = scan(tmp_path)
    other = scan(tmp_path, "b", "SAR")
    for data, options, words in (
        ([], {}, "no scans"),
        ([{"label": item["label"]}], {}, "item 0 without a file name"),
        ([{"image": item["image"], "label": other["label"]}], {}, "expected the shape of its image"),
        ([item], {"window": (5, 5)}, "hu_window"),
        ([item], {"step": 0}, "step"),
        ([item], {"size": (0, 8)}, "slice_size"),
    ):
        with pytest.raises(InputError, match=words):
            AxialSliceDataset(data, **options)
    with pytest.raises(InputError, match="unknown label values 2, 4"):
        AxialSliceDataset([item], num_classes=2)[0]


def cohort(folder: Path, validation: bool, subjects: int = 10) -> Path:
    items = []
    for n in range(subjects):
        for part in ("x", "y"):  # two scans of each subject
            for kind in ("image", "label"):
                nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), folder / f"{n}{part}_{kind}.nii")
            paths = {kind: f"{n}{part}_{kind}.nii" for kind in ("image", "label")}
            items.append({**paths, "subject": f"s{n}", "scan": f"s{n}{part}"})
    content: dict[str, Any] = {"labels": {"0": "background"}, "training": items}
    if validation:
        content |= {"training": items[:-2], "validation": items[-2:]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def subjects(items: list[dict[str, Any]]) -> set[str]:
    return {item["subject"] for item in items}


def test_a_tenth_of_the_subjects_is_held_out_by_the_seed(tmp_path: Path) -> None:
    folder = cohort(tmp_path, validation=False)
    train, held = (holdout_list(folder, section, seed=3) for section in ("training", "validation"))
    assert (len(train), len(held)) == (18, 2)
    assert not subjects(train) & subjects(held)
    assert all("label" in item for item in (*train, *held))
    assert held == holdout_list(folder, "validation", seed=3)
    chosen = {min(subjects(holdout_list(folder, "validation", seed=seed))) for seed in range(8)}
    assert len(chosen) > 2
    assert len(holdout_list(folder, "validation", validation_fraction=0.3)) == 6
    half = holdout_list(folder, "training", fraction=0.5, seed=3)
    assert len(half) in (8, 10)
    assert subjects(half) < subjects(train)


def test_a_section_of_validation_is_used_as_it_is(tmp_path: Path) -> None:
    folder = cohort(tmp_path, validation=True)
    assert subjects(holdout_list(folder, "validation", fraction=0.2)) == {"s9"}
    assert len(holdout_list(folder, "training")) == 18


def test_holdout_refuses(tmp_path: Path) -> None:
    folder = cohort(tmp_path, validation=False, subjects=1)
    with pytest.raises(InputError, match="one subject, and no section validation"):
        holdout_list(folder, "training")
    with pytest.raises(InputError, match="validation_fraction"):
        holdout_list(folder, "validation", validation_fraction=0)
    with pytest.raises(InputError, match="section"):
        holdout_list(folder, "test")
