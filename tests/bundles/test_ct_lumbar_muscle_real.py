"""The inference path of the lumbar CT bundle on real CT, with networks whose answer is known."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import binary_dilation, binary_erosion, center_of_mass
from torch import nn

from grn_monai.data import AxialSliceDataset, read_volume
from grn_monai.labels import TOTALSEGMENTATOR_MUSCLES
from tests.bundles.conftest import ROOT, run
from tests.bundles.contract import same_grid

DATA = ROOT / "tests" / "data" / "totalsegmentator"
CT, SEG, SERIES = DATA / "example_ct_sm.nii.gz", DATA / "example_seg.nii.gz", DATA / "ct_dicom"
LEVELS = (-1.0, -0.5, 0.0, 0.5, 1.0)
HU = (-160, -60, 40, 140, 240)  # the same in the window


class Painted(nn.Module):
    """Logits of five classes for pictures that are painted with the five grey values above."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(LEVELS)[None, :, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -200 * (x - self.levels) ** 2


class Above(nn.Module):
    """Logits of one class: above 140 HU, bone and contrast agent."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 50 * (x - self.level)


def infer(source: Path, out: Path, network: type[nn.Module], *overlays: str, **options: Any) -> None:
    given = {
        "dataset_dir": str(source),
        "output_dir": str(out),
        "device": "cpu",
        "network_def": {"_target_": f"{__name__}.{network.__name__}"},
        "handlers#0#_disabled_": True,  # no weights to load
        **options,
    }
    run("ct_lumbar_muscle", "inference", *overlays, workflow_type="infer", **given)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def canonical(path: Path) -> Any:
    return nib.as_closest_canonical(nib.load(path))


def muscles() -> tuple[np.ndarray, np.ndarray]:
    seg = nib.load(SEG)
    stored = np.asanyarray(seg.dataobj)
    classes = np.zeros(stored.shape, np.uint8)
    for value, label in TOTALSEGMENTATOR_MUSCLES.items():
        classes[stored == value] = label
    return classes, seg.affine


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The muscles of the real CT painted in grey values, on its grid, in files of several orientations, segmented."""
    folder, out = tmp_path_factory.mktemp("painted"), tmp_path_factory.mktemp("out")
    classes, affine = muscles()
    grey = np.array(HU, np.int16)[classes]
    image = nib.Nifti1Image(grey, affine)
    for codes in ("RAS", "LPS", "LAS", "PIR", "SAL"):
        turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(codes)))
        nib.save(image.as_reoriented(turn), folder / f"{codes}.nii.gz")
    infer(folder, out, Painted, "autochthon_iliopsoas")
    for file in folder.iterdir():
        assert same_grid(out / file.name.replace(".nii.gz", "_seg.nii.gz"), file)
    return out


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SAL"])
def test_left_stays_left_whatever_the_order_of_the_voxels(painted: Path, codes: str) -> None:
    truth, affine = muscles()
    first, found = canonical(painted / "RAS_seg.nii.gz"), canonical(painted / f"{codes}_seg.nii.gz")
    assert nib.aff2axcodes(nib.load(painted / f"{codes}_seg.nii.gz").affine) == tuple(codes)
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
    labels = np.asanyarray(found.dataobj)
    np.testing.assert_array_equal(labels, np.asanyarray(first.dataobj))
    for label in range(1, 5):
        assert dice(labels == label, truth == label) > 0.93
        # The paint runs through the other grey values at a muscle's edge; inside, each is itself and nothing else.
        inside = binary_erosion(truth == label, np.ones((3, 3, 1)))
        assert inside.any()
        assert (labels[inside] == label).all()
    # All muscles together have no such edges between them: a shift of a tenth of a voxel would show.
    shift = np.subtract(center_of_mass(labels > 0), center_of_mass(truth > 0))
    assert np.abs(shift).max() < 0.05
    assert not ((labels > 0) & ~binary_dilation(truth > 0, np.ones((3, 3, 1)))).any()
    # World coordinates: R is positive, so the left muscles lie lower along the first axis.
    places = [np.argwhere(labels == label).mean(0)[0] for label in range(1, 5)]
    assert places[0] < places[1]
    assert places[2] < places[3]


def test_nifti_and_dicom_of_one_ct_give_one_result(tmp_path: Path) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(SERIES)))
    image = reader.Execute()
    scans = tmp_path / "scans"
    (scans / "series").mkdir(parents=True)
    for file in SERIES.iterdir():
        (scans / "series" / file.name).write_bytes(file.read_bytes())
    sitk.WriteImage(image, str(scans / "copy.nii.gz"))
    infer(scans, tmp_path / "out", Above)
    series, copy = tmp_path / "out" / "series_seg.nii.gz", tmp_path / "out" / "copy_seg.nii.gz"
    assert same_grid(series, scans / "copy.nii.gz")
    assert same_grid(copy, scans / "copy.nii.gz")
    first, second = (np.asanyarray(nib.load(file).dataobj) for file in (series, copy))
    np.testing.assert_array_equal(first, second)
    truth = sitk.GetArrayFromImage(image).T > 140
    assert truth.sum() > 1000
    assert dice(first > 0, truth) > 0.8  # at half the pixels, as published
    for flipped in (truth[::-1], truth[:, ::-1]):
        assert dice(first > 0, flipped) < 0.5
    with open(tmp_path / "out" / "found.csv", newline="") as file_:
        rows = list(csv.DictReader(file_))
    voxel = np.prod(image.GetSpacing()) / 1000
    assert [row["scan"] for row in rows] == ["copy", "series"]
    assert float(rows[0]["lumbar muscle (ml)"]) == pytest.approx(second.sum() * voxel, rel=1e-4)


def test_real_label_maps_as_they_are() -> None:
    data = [{"image": str(CT), "label": str(SEG)}]
    slices = AxialSliceDataset(data, size=(128, 128), label_values="totalsegmentator")
    assert len(slices) == 30
    truth, _ = muscles()
    # 122 × 101 pixels of 3 mm fit into 128 × 128 with their proportions: 128 × 106, with 11 rows on both sides.
    for k in (0, 15, 29):
        item = slices[k]
        assert item["image"].shape == (1, 128, 128)
        counts = np.bincount(item["label"].numpy().ravel(), minlength=5)[1:]
        expected = np.bincount(truth[..., k].ravel(), minlength=5)[1:] * (128 * 106) / (122 * 101)
        assert np.abs(counts - expected).max() <= 0.05 * expected.max() + 2
        assert (item["image"][0, :, :11] == -1).all()
        assert (item["image"][0, :, 117:] == -1).all()
    assert len(AxialSliceDataset(data, label_values={86: 1}, only_labelled=True)) == (truth == 1).any((0, 1)).sum()


def test_the_real_ct_passes_as_ct_and_not_as_mr() -> None:
    for path in (CT, SERIES):
        volume = read_volume(path, modality="CT")
        assert float(volume.min()) < -900
    assert read_volume(SERIES).shape == (1, 512, 512, 3)
