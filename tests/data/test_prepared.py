"""Volumes that are prepared once: contents, cache, memory and refusals."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, FgBgToIndicesd, NormalizeIntensityd, RandCropByPosNegLabeld

from grn_monai.data.prepared import PreparedDataset, check_patch
from grn_monai.errors import InputError
from grn_monai.transforms import LoadScand


@pytest.fixture
def data(tmp_path: Path) -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    items = []
    for n in range(3):
        label = np.zeros((10, 9, 5), np.uint8)
        label[4:6, 4:6, 2] = n + 1
        item = {"subject": f"s{n}", "scan": f"scan{n}"}
        for key, values in (("image", rng.normal(100, 20, label.shape).astype(np.float32)), ("label", label)):
            item[key] = str(tmp_path / f"{key}{n}.nii.gz")
            nib.save(nib.Nifti1Image(values, np.eye(4)), item[key])
        items.append(item)
    return items


def chain(std: bool = True) -> Compose:
    last = [NormalizeIntensityd("image")] if std else []
    return Compose([LoadScand(["image", "label"]), *last, FgBgToIndicesd("label")])


def test_contents_and_single_decoding(data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = PreparedDataset(data, chain(), cache_dir=tmp_path / "cache")
    assert len(dataset) == 3
    item = dataset[1]
    grey = nib.load(data[1]["image"]).get_fdata()
    assert np.allclose(item["image"][0].numpy(), (grey - grey.mean()) / grey.std(), atol=1e-5)
    assert item["label"].dtype == torch.uint8
    assert item["label_fg_indices"].tolist() == np.flatnonzero(nib.load(data[1]["label"]).get_fdata()).tolist()
    assert (item["subject"], item["scan"]) == ("s1", "scan1")
    assert len(list((tmp_path / "cache").iterdir())) == 1

    def broken(_: Any) -> Any:
        raise AssertionError("decoded a second time")

    again = PreparedDataset(data, chain(), cache_dir=tmp_path / "cache")
    monkeypatch.setattr(again, "prepare", broken)
    assert torch.equal(again[1]["image"], item["image"])
    with pytest.raises(AssertionError, match="second time"):
        again[0]


def test_a_changed_chain_or_source_is_prepared_anew(data: list, tmp_path: Path) -> None:
    first = PreparedDataset(data, chain(), cache_dir=tmp_path / "cache")[0]["image"]
    assert PreparedDataset(data, chain(False), cache_dir=tmp_path / "cache")[0]["image"].mean() > 50
    image = nib.load(data[0]["image"])
    nib.save(nib.Nifti1Image(np.square(image.get_fdata(dtype=np.float32)), np.eye(4)), data[0]["image"])
    os.utime(data[0]["image"], ns=(1, 1))
    assert not torch.equal(PreparedDataset(data, chain(), cache_dir=tmp_path / "cache")[0]["image"], first)


def test_length_repeats_the_volumes_evenly(data: list) -> None:
    dataset = PreparedDataset(data, chain(), length=7)
    assert [dataset[i]["scan"] for i in range(len(dataset))] == [f"scan{i % 3}" for i in range(7)]
    assert dataset[-1]["scan"] == "scan0"
    with pytest.raises(IndexError):
        dataset[7]


def test_few_files_stay_open_and_workers_open_their_own(data: list) -> None:
    dataset = PreparedDataset(data, chain(), max_open=1)
    for i in range(3):
        dataset[i]
    assert len(dataset._open) == 1
    copied = pickle.loads(pickle.dumps(dataset))
    assert not copied._open
    assert torch.equal(copied[2]["image"], dataset[2]["image"])


def test_a_crop_does_not_change_the_file(data: list, tmp_path: Path) -> None:
    keys = {"fg_indices_key": "label_fg_indices", "bg_indices_key": "label_bg_indices"}
    crop = RandCropByPosNegLabeld(["image", "label"], "label", (3, 3, 1), pos=1, neg=0, num_samples=1, **keys)
    dataset = PreparedDataset(data, chain(), crop.set_random_state(seed=0), cache_dir=tmp_path / "cache")
    [item] = dataset[0]
    assert item["image"].shape == (1, 3, 3, 1)
    assert item["label"].any()
    before = [path.read_bytes() for path in sorted((tmp_path / "cache").iterdir())]
    item["image"].zero_()
    assert [path.read_bytes() for path in sorted((tmp_path / "cache").iterdir())] == before


def test_a_damaged_cache_file_is_made_again(data: list, tmp_path: Path) -> None:
    whole = PreparedDataset(data, chain(), cache_dir=tmp_path / "cache")[0]["image"].clone()
    [entry] = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry.read_bytes()[:300])
    assert torch.equal(PreparedDataset(data, chain(), cache_dir=tmp_path / "cache")[0]["image"], whole)


def test_refusals(data: list, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no scans"):
        PreparedDataset([], chain())
    with pytest.raises(InputError, match="PreparedDataset: found item 1 without a file name for 'image'"):
        PreparedDataset([data[0], {"label": data[1]["label"]}], chain())
    with pytest.raises(InputError, match="length: found 0"):
        PreparedDataset(data, chain(), length=0)
    other = copy.deepcopy(data)
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "small.nii.gz")
    other[2]["label"] = str(tmp_path / "small.nii.gz")
    with pytest.raises(InputError, match="the shape of its image"):
        PreparedDataset(other, chain())


@pytest.mark.parametrize(
    ("size", "dims", "words"),
    [([48, 60], 2, r"\[48,64\]"), ([32], 2, "2 whole numbers"), ("x", 3, "3 whole"), ([32, 32, 0], 3, "3 whole")],
)
def test_check_patch(size: Any, dims: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_patch(size, dims, 16)
    check_patch([64, 32, 16][:dims], dims, 16)
