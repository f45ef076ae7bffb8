from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.errors import InputError
from grn_monai.metrics import dice_per_label, evaluate_folders
from tests.metrics.layered import layered_truth, perturbed

SPACING = (0.2, 0.25, 0.15)


def save(path: Path, array: np.ndarray, spacing: tuple[float, ...] = SPACING) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1])), path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A cohort of three test scans of two subjects, and a prediction of each."""
    items = []
    for i, scan in enumerate(["a_1", "a_2", "b_1"]):
        truth = layered_truth(i)
        rng = np.random.default_rng(i)
        save(
            tmp_path / f"cohort/images/{scan}.nii.gz", (truth * 30 + rng.integers(0, 30, truth.shape)).astype(np.uint8)
        )
        save(tmp_path / f"cohort/labels/{scan}.nii.gz", truth)
        save(tmp_path / f"predictions/{scan}_seg.nii.gz", perturbed(truth, i))
        paths = {"image": f"images/{scan}.nii.gz", "label": f"labels/{scan}.nii.gz"}
        items.append({**paths, "subject": scan[0], "scan": scan})
    cohort = {"labels": {"0": "background"}, "training": [], "test": items}
    (tmp_path / "cohort/dataset.json").write_text(json.dumps(cohort))
    return tmp_path / "cohort", tmp_path / "predictions"


def test_scores_every_scan(folders: tuple[Path, Path], tmp_path: Path) -> None:
    result = evaluate_folders(*folders, tmp_path / "out")
    expected = np.mean([dice_per_label(perturbed(layered_truth(i), i), layered_truth(i)).mean() for i in range(3)])
    assert result.failures == {}
    assert result.scans == ["a_1", "a_2", "b_1"]
    assert list(result.summary) == ["decoded"]
    assert result.summary["decoded"]["mean"] == pytest.approx(expected)
    assert json.loads((tmp_path / "out/metrics.json").read_text())["decoded"]["n_subjects"] == 2


def test_spacing_of_the_file_is_used(folders: tuple[Path, Path], tmp_path: Path) -> None:
    fine = evaluate_folders(*folders, tmp_path / "fine").summary["decoded"]["asd_mm_mean"]
    for folder in (folders[0] / "labels", folders[1]):
        for path in folder.iterdir():
            save(path, np.asarray(nib.load(path).dataobj), tuple(3 * step for step in SPACING))
    coarse = evaluate_folders(*folders, tmp_path / "coarse").summary["decoded"]["asd_mm_mean"]
    assert coarse == pytest.approx(3 * fine, rel=1e-5)


def test_slices_and_monai_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    path = folders[1] / "a_1_seg.nii.gz"
    (folders[1] / "a_1").mkdir()
    path.rename(folders[1] / "a_1" / path.name)  # where MONAI's SaveImage puts it by default
    result = evaluate_folders(*folders, tmp_path / "out", slices=True, kind="volume")
    assert set(result.summary) == {"slice", "volume"}
    assert result.summary["slice"]["n"] == 3 * (14 + 12)


def test_depth_first_files_score_the_same(folders: tuple[Path, Path], tmp_path: Path) -> None:
    straight = evaluate_folders(*folders, tmp_path / "straight", slices=True).summary
    for folder in (folders[0] / "images", folders[0] / "labels", folders[1]):
        for path in folder.iterdir():
            turned = np.moveaxis(np.asarray(nib.load(path).dataobj), 2, 0)[::-1]
            save(path, np.ascontiguousarray(turned), (SPACING[2], *SPACING[:2]))
    turned = evaluate_folders(*folders, tmp_path / "turned", slices=True, depth_axis=0, depth_reversed=True).summary
    assert turned["slice"]["dice"] == pytest.approx(straight["slice"]["dice"])
    for column in ("hd95_mm", "thickness_error_mm"):
        assert turned["decoded"][column] == pytest.approx(straight["decoded"][column], rel=1e-5)


def test_goes_on_past_bad_scans(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[1] / "a_1_seg.nii.gz").unlink()
    save(folders[1] / "b_1_seg.nii.gz", layered_truth(2, (14, 12, 39)))
    result = evaluate_folders(*folders, tmp_path / "out")
    assert result.scans == ["a_2"]
    assert list(result.failures) == ["a_1", "b_1"]
    assert "a_1_seg.nii.gz" in result.failures["a_1"]
    assert "39" in result.failures["b_1"]


def test_a_shifted_grid_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for path in folders[1].iterdir():
        save(path, np.asarray(nib.load(path).dataobj), (0.2, 0.25, 0.16))
    with pytest.raises(InputError, match="no scan that could be scored"):
        evaluate_folders(*folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_arguments(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        evaluate_folders(folders[0], tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="kind"):
        evaluate_folders(*folders, tmp_path / "out", kind="fused")
    with pytest.raises(InputError, match="no such file"):
        evaluate_folders(tmp_path / "nowhere", folders[1], tmp_path / "out")


def test_two_scans_of_one_file_name_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    cohort = json.loads((folders[0] / "dataset.json").read_text())
    (folders[0] / "more").mkdir()
    (folders[0] / "images/a_2.nii.gz").rename(folders[0] / "more/a_1.nii.gz")
    cohort["test"][1]["image"] = "more/a_1.nii.gz"
    (folders[0] / "dataset.json").write_text(json.dumps(cohort))
    with pytest.raises(InputError, match=r"more/a_1\.nii\.gz: found the file name 'a_1' that .*images/a_1\.nii\.gz"):
        evaluate_folders(*folders, tmp_path / "out")
