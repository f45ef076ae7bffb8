"""Whole scans: what is listed, what a transform gets, and what becomes a failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.data import DataLoader

from grn_monai.data import ScanDataset, SliceDataset, scan_list
from grn_monai.data.cohort import load_cohort
from grn_monai.data.names import item_names
from grn_monai.errors import InputError
from grn_monai.transforms import LoadScand
from tests.data.test_volume import grey, save


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """One training scan and three test scans, the last without label; keys that are null or of mixed types."""
    items = []
    for n in range(4):
        save(tmp_path / f"us{n}.nii.gz", grey())
        save(tmp_path / f"us{n}_l.nii.gz", grey() % 7)
        items.append({"image": f"us{n}.nii.gz", "label": f"us{n}_l.nii.gz", "subject": n, "side": None})
    del items[3]["label"]
    items[1]["side"] = "left"
    content = {"labels": {"0": "background"}, "training": items[:1], "test": items[1:]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def load(*keys: str) -> LoadScand:
    return LoadScand(keys, allow_missing_keys=True)


@pytest.mark.parametrize("names", [("a.nii.gz", "a.mha"), ("s1/us.nii.gz", "s2/us.nii.gz"), ("a.nii", "a.nii")])
def test_images_of_one_name_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(InputError) as info:
        ScanDataset([{"image": "other.nii.gz"}, *({"image": name} for name in names)], dict)
    message = str(info.value)
    assert all(name in message for name in names)
    assert message.endswith("Give each scan a file name of its own.")


def test_only_known_keys_reach_the_transform(cohort: Path) -> None:
    seen: list[dict[str, Any]] = []
    scans = ScanDataset(scan_list(cohort), lambda item: seen.append(item))
    for i in range(3):
        scans[i]
    assert [set(item) for item in seen] == [{"image", "label", "subject", "scan"}] * 2 + [{"image", "subject", "scan"}]
    assert [(item["subject"], item["scan"]) for item in seen] == [("1", "us1"), ("2", "us2"), ("3", "us3")]


def test_null_keys_collate(cohort: Path) -> None:
    batches = list(DataLoader(ScanDataset(scan_list(cohort), load("image")), batch_size=1))
    assert [batch["scan"] for batch in batches] == [["us1"], ["us2"], ["us3"]]
    assert not any("side" in batch for batch in batches)
    plain = ScanDataset([{"image": str(cohort / "us0.nii.gz"), "label": None, "scan": None}], load("image", "label"))
    (batch,) = DataLoader(plain, batch_size=1)
    assert (batch["subject"], batch["scan"]) == (["us0"], ["us0"])


def test_an_item_without_label_is_a_failure_of_its_own(cohort: Path) -> None:
    scans = ScanDataset(scan_list(cohort), LoadScand(("image", "label")), keys=("image", "label"))
    assert np.asarray(scans[1]["label"]).max() == 6
    failure = scans[2]["failure"]
    assert "us3.nii.gz: found no label; expected" in failure
    assert failure.endswith("Name its label file in the cohort file, or take the scan out of this section.")
    assert "scan 1 of 1: found no image" in ScanDataset([{"label": "a.nii"}], dict)[0]["failure"]


def test_missing_files_stop_nothing_else(cohort: Path) -> None:
    (cohort / "us0.nii.gz").unlink()  # training
    (cohort / "us1.nii.gz").unlink()
    (cohort / "us2_l.nii.gz").unlink()
    scans = ScanDataset(scan_list(cohort), load("image", "label"))
    assert "us1.nii.gz: found no such file" in scans[0]["failure"]
    assert "us2_l.nii.gz: found no such file" in scans[1]["failure"]
    assert scans[2]["image"].shape == (1, 5, 6, 7)


def test_other_sections_do_not_matter(cohort: Path) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    content["training"] = [{"subject": 9}, *content["training"], *content["training"]]
    (cohort / "dataset.json").write_text(json.dumps(content))
    assert len(scan_list(cohort)) == 3
    with pytest.raises(InputError, match=r"2 faults: training\[0\] has no `image`"):
        scan_list(cohort, "training")


def test_names_agree_with_slices_and_cohort(cohort: Path) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    for item in content["test"]:
        del item["subject"]
    content["test"][0]["scan"] = "left"
    content["training"] = []
    (cohort / "dataset.json").write_text(json.dumps(content))
    items = scan_list(cohort)
    whole, slices = ScanDataset(items, load("image")), SliceDataset(items, size=None)
    expected = [("left", "left"), ("us2", "us2"), ("us3", "us3")]
    assert [item_names(item) for item in load_cohort(cohort)[0]["test"]] == expected
    assert [(item["subject"], item["scan"]) for item in (whole[i] for i in range(3))] == expected
    assert list(dict.fromkeys((item["subject"], item["scan"]) for item in slices)) == expected
