"""A scan and its labels, turned together."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.data.pairs import open_scan
from grn_monai.errors import InputError
from grn_monai.transforms import DepthLast


def save(path: Path, array: np.ndarray, steps: tuple[float, ...] = (0.15, 0.2, 0.25)) -> Path:
    nib.save(nib.Nifti1Image(array, np.diag([*steps, 1])), path)
    return path


def test_scan_and_labels_come_in_the_scan_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (7, 4, 5)).astype(np.uint8)
    labels = rng.integers(0, 7, grey.shape).astype(np.uint8)
    scan = open_scan(save(tmp_path / "a.nii.gz", grey), DepthLast(0, True))
    path = save(tmp_path / "a_seg.nii.gz", labels)
    turned = [np.moveaxis(volume, 0, 2)[:, :, ::-1] for volume in (grey, labels)]
    np.testing.assert_array_equal(scan.values, turned[0])
    np.testing.assert_array_equal(scan.labels(path), turned[1])
    assert scan.spacing_mm == pytest.approx([0.2, 0.25, 0.15])
    assert scan.header.shape == (7, 4, 5)
    deepest = scan.affine @ [1, 2, 6, 1]
    np.testing.assert_allclose(deepest, [0, 0.2, 0.5, 1], atol=1e-6)  # voxel (0, 1, 2) of the file
    plain = open_scan(path, labels=7)
    np.testing.assert_array_equal(plain.values, labels)


def test_another_grid_or_label_is_refused(tmp_path: Path) -> None:
    scan = open_scan(save(tmp_path / "a.nii.gz", np.arange(64, dtype=np.uint8).reshape(4, 4, 4)))
    other = save(tmp_path / "b.nii.gz", np.ones((4, 4, 4), np.uint8), (1, 1, 1))
    with pytest.raises(InputError, match=r"b\.nii\.gz"):
        scan.labels(other)
    wrong = save(tmp_path / "c.nii.gz", np.full((4, 4, 4), 7, np.uint8))
    with pytest.raises(InputError, match=r"c\.nii\.gz"):
        scan.labels(wrong)
    assert scan.labels(wrong, num_classes=8).max() == 7
    with pytest.raises(InputError, match=r"c\.nii\.gz"):
        open_scan(wrong, labels=7)
