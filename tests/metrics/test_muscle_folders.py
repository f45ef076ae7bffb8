"""`evaluate_folders` and `grn-monai evaluate` of a muscle cohort."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.cli import main
from grn_monai.errors import InputError
from grn_monai.labels import CT_MUSCLES, LAYER_NAMES
from grn_monai.metrics import evaluate_folders
from grn_monai.metrics.files import read_rows
from tests.metrics.test_folders import save

SPACING = (2.0, 5.0, 10.0)


def truth(i: int) -> np.ndarray:
    labels = np.zeros((8, 8, 3), np.uint8)
    labels[:2, :4], labels[3:5, :4], labels[:2, 5:], labels[3:5, 5 : 7 + i] = 1, 2, 3, 4
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A CT cohort of two test scans; of the second, the prediction misses `autochthon left`."""
    items = []
    for i, scan in enumerate(["a", "b"]):
        predicted = truth(i)
        predicted[predicted == 1] = 1 - i
        save(tmp_path / f"cohort/images/{scan}.nii.gz", truth(i).astype(np.int16) * 20, SPACING)
        save(tmp_path / f"cohort/labels/{scan}.nii.gz", truth(i), SPACING)
        save(tmp_path / f"predictions/{scan}_seg.nii.gz", predicted, SPACING)
        items.append({"image": f"images/{scan}.nii.gz", "label": f"labels/{scan}.nii.gz", "subject": scan})
    labels = {str(value): name for value, name in CT_MUSCLES.items()}
    cohort = {"modality": {"0": "CT"}, "labels": labels, "training": [], "test": items}
    (tmp_path / "cohort/dataset.json").write_text(json.dumps(cohort))
    return tmp_path / "cohort", tmp_path / "predictions"


def test_the_labels_of_the_cohort_choose(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", str(folders[0]), str(folders[1]), "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["metrics.json", "muscles.csv"]
    rows = read_rows(out / "muscles.csv")
    assert [(row["scan"], row["muscle"]) for row in rows[3:5]] == [("a", "iliopsoas right"), ("b", "autochthon left")]
    assert [float(row["dice"]) for row in rows] == [1, 1, 1, 1, 0, 1, 1, 1]
    assert float(rows[0]["truth_volume_ml"]) == pytest.approx(24 * 0.1)
    assert rows[4]["conformity"] == ""
    assert rows[4]["hd95_mm"] == "inf"
    printed = capsys.readouterr().out
    assert "volume: mean Dice 0.875" in printed
    assert "autochthon left: Dice 0.500, 1.2 ml of 2.4 ml; prediction has none in 1 of 2 scans" in printed


def test_volumes_of_a_tilted_gantry(folders: tuple[Path, Path], tmp_path: Path) -> None:
    cohort, predictions = folders
    affine = np.diag([*SPACING, 1])
    affine[1, 2] = SPACING[2] * np.tan(np.radians(25))  # slices shifted along Y: sheared, of the same volume
    for path in (cohort / "labels/a.nii.gz", predictions / "a_seg.nii.gz"):
        nib.save(nib.Nifti1Image(truth(0), affine), path)
    evaluate_folders(cohort, predictions, tmp_path / "out")
    row = read_rows(tmp_path / "out/muscles.csv")[0]
    assert [float(row[key]) for key in ("volume_ml", "truth_volume_ml")] == pytest.approx([24 * 0.1] * 2)


def test_all_muscles_as_one(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = evaluate_folders(*folders, tmp_path / "out", one_class=True).summary["volume"]
    assert list(found["muscles"]) == ["lumbar muscle"]
    whole, missed = int((truth(1) > 0).sum()), 24
    expected = 2 * (whole - missed) / (2 * whole - missed)
    assert found["mean"] == pytest.approx((1 + expected) / 2)


def test_options_of_the_other_kind_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not the six layers, with slices, depth_axis"):
        evaluate_folders(*folders, tmp_path / "out", slices=True, depth_axis=2)
    file = folders[0] / "dataset.json"
    cohort = json.loads(file.read_text())
    cohort["labels"] = {str(value): name.title().replace(" ", "_") for value, name in LAYER_NAMES.items()}
    file.write_text(json.dumps(cohort))
    with pytest.raises(InputError, match="the six layers, with one_class"):
        evaluate_folders(*folders, tmp_path / "out", one_class=True)
    cohort["labels"] = {"0": "background", "1": "a", "2": "a"}
    file.write_text(json.dumps(cohort))
    with pytest.raises(InputError, match="names that differ"):
        evaluate_folders(*folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_label_without_a_name_is_a_failure(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predicted = truth(0)
    predicted[0, 0, 0] = 5
    save(folders[1] / "a_seg.nii.gz", predicted, SPACING)
    result = evaluate_folders(*folders, tmp_path / "out")
    assert result.scans == ["b"]
    assert "a_seg.nii.gz" in result.failures["a"]


def test_nothing_anywhere_is_said(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, scan in enumerate("ab"):
        for path in (folders[0] / f"labels/{scan}.nii.gz", folders[1] / f"{scan}_seg.nii.gz"):
            save(path, 0 * truth(i), SPACING)
    assert main(["evaluate", str(folders[0]), str(folders[1]), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "volume: no Dice: neither has any muscle, N = 0" in printed
    assert "psoas right: no Dice, 0.0 ml of 0.0 ml; truth has none in 2 of 2 scans" in printed
    assert "nan" not in printed
