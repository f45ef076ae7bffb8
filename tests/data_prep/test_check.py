"""`data_prep check` finds each planted fault, and all of them at once."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_prep.cli import main

NAMES = [f"s{n}" for n in range(1, 7)]


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([0.5, 0.5, 0.25, 1]) if affine is None else affine), path)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    items = []
    for name in NAMES:
        save(tmp_path / "images" / f"{name}.nii.gz", rng.integers(0, 255, (5, 4, 6), dtype=np.uint8))
        save(tmp_path / "labels" / f"{name}.nii.gz", rng.integers(0, 3, (5, 4, 6), dtype=np.uint8))
        items.append(
            {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", "subject": name, "scan": name}
        )
    content = {"labels": {"0": "background", "1": "a", "2": "b"}, "training": items[:4], "test": items[4:]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return tmp_path


def faults(cohort: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    code = main(["check", str(cohort)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  - ")]
    assert code == (1 if lines else 0)
    return lines


def test_sound(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(cohort)]) == 0
    assert "no faults" in capsys.readouterr().out


def test_each_fault(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(cohort / "labels/s1.nii.gz", np.zeros((5, 4, 7), np.uint8))
    moved = np.diag([0.5, 0.5, 0.25, 1.0])
    moved[0, 3] = 3
    save(cohort / "labels/s2.nii.gz", np.ones((5, 4, 6), np.uint8), moved)
    save(cohort / "labels/s3.nii.gz", np.full((5, 4, 6), 9, np.uint8))
    (cohort / "images/s4.nii.gz").write_bytes((cohort / "images/s4.nii.gz").read_bytes()[:100])
    (cohort / "labels/s5.nii.gz").unlink()
    save(cohort / "images/s6.nii.gz", np.full((5, 4, 6), 7, np.uint8))
    found = faults(cohort, capsys)
    assert len(found) == 6
    for name, word in (
        ("s1", "shape"), ("s2", "mm"), ("s3", "9"), ("s4", "s4.nii.gz"), ("s5", "does not exist"), ("s6", "7"),
    ):  # fmt: skip
        assert any(f"{name}.nii.gz" in line and word in line for line in found), (name, found)


def test_values_that_are_not_finite(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = np.ones((5, 4, 6), np.float32)
    data[0, 0, 0] = np.nan
    save(cohort / "images/s1.nii.gz", data)
    (line,) = faults(cohort, capsys)
    assert "s1.nii.gz" in line
    assert "NaN" in line


def test_gap_in_the_label_values(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    content["labels"] = {"0": "background", "2": "b"}
    (cohort / "dataset.json").write_text(json.dumps(content))
    found = faults(cohort, capsys)
    assert len(found) == 6
    assert "label values 1, but the cohort's labels are 0, 2" in found[0]


def test_leak_duplicate_and_missing_key(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    content["test"][0]["subject"] = "s1"
    content["test"].append(content["training"][1])
    del content["training"][3]["label"]
    (cohort / "dataset.json").write_text(json.dumps(content))
    found = "\n".join(faults(cohort, capsys))
    assert "subject s1 is in training and test" in found
    assert "subject s2 is in training and test" in found
    assert "scan s2 of subject s2 is listed twice: training[1] (s2.nii.gz) and test[2] (s2.nii.gz)" in found
    assert "training[3] (s4.nii.gz) has no `label`" in found


def test_split_file_is_found_in_the_cohort(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((cohort / "dataset.json").read_text())
    content["training"][0]["image"] = "images/none.nii.gz"
    (cohort / "broken.json").write_text(json.dumps(content))
    assert main(["check", str(cohort), "--split", "broken.json"]) == 1
    assert main(["check", str(cohort), "--split", str(cohort / "broken.json")]) == 1
    assert main(["check", str(cohort)]) == 0
    capsys.readouterr()
    assert main(["check", str(cohort), "--split", "nowhere.json"]) == 2
    assert "nowhere.json" in capsys.readouterr().err


def test_empty_cohort(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": {"0": "background"}, "training": []}')
    assert faults(tmp_path, capsys) == ["  - no section lists a scan"]


def test_unusable_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
