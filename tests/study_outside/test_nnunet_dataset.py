from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from grn_monai.data import datalist
from grn_monai.errors import InputError
from grn_monai.study.outside.nnunet_dataset import export_dataset
from tests.study_outside.conftest import AFFINE, save


def stems(folder: Path, end: str) -> list[str]:
    names = sorted(path.name for path in folder.iterdir())
    assert all(name.endswith(end) for name in names)
    return [name.removesuffix(end) for name in names]


@pytest.mark.parametrize(("fraction", "seed"), [(0.25, 0), (0.5, 0), (0.5, 1), (1.0, 0)])
def test_same_labelled_scans_as_a_run(cohort: Path, tmp_path: Path, fraction: float, seed: int) -> None:
    folder = export_dataset(cohort, tmp_path, fraction, seed)
    labelled = [item["scan"] for item in datalist(cohort, "training", fraction=fraction, seed=seed)]
    assert json.loads((folder / "splits_final.json").read_text()) == [{"train": labelled, "val": ["v_1"]}]
    assert stems(folder / "imagesTr", "_0000.nii.gz") == sorted([*labelled, "v_1"])  # nothing of unlabelled ones
    assert stems(folder / "labelsTr", ".nii.gz") == sorted([*labelled, "v_1"])
    assert stems(folder / "imagesTs", "_0000.nii.gz") == ["x_1", "y_1"]
    about = json.loads((folder / "dataset.json").read_text())
    assert about["numTraining"] == len(labelled) + 1


def test_what_nnunet_is_told(cohort: Path, tmp_path: Path) -> None:
    about = json.loads((export_dataset(cohort, tmp_path) / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "US"}
    assert list(about["labels"].items())[:2] == [("background", 0), ("dermis", 1)]
    assert sorted(about["labels"].values()) == list(range(7))
    assert about["file_ending"] == ".nii.gz"


def test_voxels_and_grid_stay(cohort: Path, tmp_path: Path) -> None:
    folder = export_dataset(cohort, tmp_path)
    for name, source in (("imagesTr/a_1_0000", "images/a_1"), ("labelsTr/a_1", "labels/a_1")):
        ours, theirs = nib.load(folder / f"{name}.nii.gz"), nib.load(cohort / f"{source}.nii.gz")
        np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
        np.testing.assert_allclose(ours.affine, AFFINE, atol=1e-6)
    assert nib.load(folder / "labelsTr/a_1.nii.gz").get_data_dtype() == np.uint8


def test_other_formats_become_plain_nifti(cohort: Path, tmp_path: Path) -> None:
    other = tmp_path / "cohort"
    shutil.copytree(cohort, other)
    image = sitk.ReadImage(str(other / "images/x_1.nii.gz"))
    sitk.WriteImage(image, str(other / "images/x_1.mha"))
    four = nib.Nifti1Image(np.asarray(nib.load(other / "images/y_1.nii.gz").dataobj)[..., None], AFFINE)
    nib.save(four, other / "images/y_1.nii.gz")
    file = other / "dataset.json"
    file.write_text(file.read_text().replace("images/x_1.nii.gz", "images/x_1.mha"))
    folder = export_dataset(other, tmp_path / "raw")
    for name in ("x_1", "y_1"):
        made, source = nib.load(folder / f"imagesTs/{name}_0000.nii.gz"), nib.load(cohort / f"images/{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(made.dataobj), np.asarray(source.dataobj))
        np.testing.assert_allclose(made.affine, AFFINE, atol=1e-5)


def test_validation_can_be_predicted_too(cohort: Path, tmp_path: Path) -> None:
    folder = export_dataset(cohort, tmp_path, sections=("test", "validation"))
    assert stems(folder / "imagesVal", "_0000.nii.gz") == ["v_1"]


def test_a_second_start_writes_nothing_again(cohort: Path, tmp_path: Path) -> None:
    folder = export_dataset(cohort, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}
    assert export_dataset(cohort, tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")} == before


def test_a_label_off_its_grid_is_refused(cohort: Path, tmp_path: Path) -> None:
    other = tmp_path / "cohort"
    shutil.copytree(cohort, other)
    moved = AFFINE.copy()
    moved[0, 3] += 1
    save(other / "labels/v_1.nii.gz", np.asarray(nib.load(cohort / "labels/v_1.nii.gz").dataobj), moved)
    with pytest.raises(InputError, match=r"v_1\.nii\.gz: found an affine"):
        export_dataset(other, tmp_path / "raw")
    assert not (tmp_path / "raw/Dataset001_Study/dataset.json").exists()
