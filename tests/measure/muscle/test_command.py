"""The command, from files to tables and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from grn_monai.cli import main
from grn_monai.errors import InputError
from grn_monai.measure.muscle.folders import measure_muscle_folders
from grn_monai.measure.muscle.levels import read_levels
from grn_monai.measure.muscle.names import parse_names
from grn_monai.measure.muscle.surfaces import NO_PYVISTA
from grn_monai.metrics.files import read_rows
from tests.measure.muscle.test_scan import AFFINE, NAMES, boxes

TABLES = {"muscles.csv", "areas.csv", "levels.csv", "sides.csv", "muscle.json"}


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two scans: `a`, and `b` stored with its axes turned and flipped, which holds no right psoas."""
    labels, hu = boxes()
    items = []
    for name in "ab":
        folder = tmp_path / "cohort"
        if name == "b":
            labels = np.where(labels == 2, 0, labels).astype(np.uint8)
        parts = (nib.Nifti1Image(hu.astype(np.int16), AFFINE), nib.Nifti1Image(labels, AFFINE))
        for kind, image in zip(("images", "labels"), parts, strict=True):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            turned = image.as_reoriented([[1, -1], [2, 1], [0, -1]]) if name == "b" else image
            nib.save(turned, folder / kind / f"{name}.nii.gz")
        item: dict[str, Any] = {"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"}
        items.append(item | {"subject": f"s{name}", "scan": name, "levels": {"L3": 115, "L4": 107}})
    content = {"labels": {"0": "background", **{str(k): v for k, v in NAMES.items()}}, "modality": {"0": "CT"}}
    (tmp_path / "cohort/dataset.json").write_text(json.dumps(content | {"training": [], "test": items}))
    return tmp_path / "cohort"


def test_everything_is_written(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["muscle", str(cohort), "--labels", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "2 scans measured" in said
    assert "to look at (1, see `check` in muscles.csv): b" in said
    assert {p.name for p in out.iterdir()} == TABLES | {"pictures"}
    assert sorted(p.name for p in (out / "pictures").iterdir()) == [
        f"{kind}_{name}.png" for kind in ("histogram", "overlay") for name in "ab"
    ]
    rows = {(r["scan"], r["muscle"]): r for r in read_rows(out / "muscles.csv")}
    assert float(rows["a", "psoas left"]["volume_ml"]) == pytest.approx(1.8)
    turned = rows["b", "psoas left"]
    assert {k: v for k, v in turned.items() if k not in ("scan", "subject")} == {
        k: v for k, v in rows["a", "psoas left"].items() if k not in ("scan", "subject")
    }
    nothing = rows["b", "psoas right"]
    assert nothing["check"] == "nothing found"
    assert {v for k, v in nothing.items() if k not in ("subject", "scan", "label", "muscle", "check")} == {""}
    areas = [r for r in read_rows(out / "areas.csv") if r["scan"] == "b"]
    assert [float(r["position_mm"]) for r in areas] == [105, 110, 115, 120, 125]
    levels = [r for r in read_rows(out / "levels.csv") if (r["scan"], r["label"]) == ("a", "1")]
    assert [(r["level"], float(r["area_cm2"]), float(r["fat_percent"])) for r in levels] == [
        ("L3", 0.72, 50), ("L4", 0.72, 50),
    ]  # fmt: skip
    sides = [r for r in read_rows(out / "sides.csv") if r["measure"] == "volume"]
    assert [r["asymmetry_percent"] for r in sides] == ["-50", ""]
    found = json.loads((out / "muscle.json").read_text())
    assert found["format"] == "grn-monai muscle 1"
    assert found["settings"]["fat_hu"] == [-190, -30]
    assert found["provenance"]["versions"]["SimpleITK"]
    assert str(tmp_path) not in (out / "muscle.json").read_text()


def test_bad_scans_are_listed_and_the_others_measured(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, hu = boxes()
    predictions = tmp_path / "predictions"
    save(predictions / "a_seg.nii.gz", labels * 0)
    save(predictions / "b_seg.nii.gz", labels)  # not on the grid of its scan
    save(cohort / "images/c.nii.gz", np.clip(hu, 0, 255).astype(np.uint8) + labels)
    save(predictions / "c_seg.nii.gz", labels)
    content = json.loads((cohort / "dataset.json").read_text())
    content["test"] += [{"image": f"images/{n}.nii.gz", "subject": n} for n in "cd"]
    (cohort / "dataset.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    assert main(["muscle", str(cohort), str(predictions), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "1 scan measured" in said.out
    assert "nothing found in 1 scan: a" in said.out
    assert "3 scans failed" in said.err
    failures = json.loads((out / "muscle.json").read_text())["failures"]
    assert list(failures) == ["b", "c", "d"]
    assert "a window or normalised" in failures["c"]
    assert {r["check"] for r in read_rows(out / "muscles.csv")} == {"nothing found"}
    assert not (out / "pictures").exists()


def test_a_folder_needs_modality_and_names(cohort: Path, tmp_path: Path) -> None:
    scans = cohort / "images"
    with pytest.raises(InputError, match="--names"):
        measure_muscle_folders(scans, cohort / "labels", tmp_path / "out")
    with pytest.raises(InputError, match="--modality"):
        measure_muscle_folders(scans, cohort / "labels", tmp_path / "out", names="ct")
    # Other values than those named are left out.
    table = tmp_path / "levels.csv"
    table.write_text("scan,level,position_mm\na,L2,120\n")
    result = measure_muscle_folders(
        scans, cohort / "labels", tmp_path / "out", modality="ct", names="2=psoas", levels=table, pictures=False
    )
    one, two = result.content["scans"]
    assert [m["label"] for m in one["muscles"]] == [2]
    assert one["muscles"][0]["levels"][0]["area_cm2"] == pytest.approx(0.72)
    assert two["muscles"][0]["levels"] == []
    with pytest.raises(InputError, match="values from -900 to 50, as of a CT"):
        measure_muscle_folders(cohort, None, tmp_path / "out", modality="mri")


def test_pictures_of_an_earlier_call_go(cohort: Path, tmp_path: Path) -> None:
    measure_muscle_folders(cohort, None, tmp_path / "out")
    measure_muscle_folders(cohort, None, tmp_path / "out", pictures=False)
    assert not (tmp_path / "out/pictures").exists()


def test_surfaces_without_pyvista_are_a_note(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("grn_monai.measure.muscle.folders.has_pyvista", lambda: False)
    assert main(["muscle", str(cohort), "--labels", "--out", str(tmp_path), "--surfaces", "--no-pictures"]) == 0
    assert NO_PYVISTA in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows|columns"),
        ("scan,level\na,L1\n", "columns scan, level"),
        ("scan,level,position_mm\n", "no rows"),
        ("scan,level,position_mm\na,L1,high\n", "line 2"),
        ("scan,level,position_mm\na,L1,1\na,L1,2\n", "again in line 3"),
    ],
)
def test_bad_tables_of_levels(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "levels.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_levels(tmp_path / "levels.csv")


def test_levels_of_other_scans_or_bad_ones(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "levels.csv").write_text("scan,level,position_mm\nz,L1,1\n")
    with pytest.raises(InputError, match="none of which"):
        measure_muscle_folders(cohort, None, tmp_path / "out", levels=tmp_path / "levels.csv")
    content = json.loads((cohort / "dataset.json").read_text())
    content["test"][0]["levels"] = {"L3": "high"}
    (cohort / "dataset.json").write_text(json.dumps(content))
    result = measure_muscle_folders(cohort, None, tmp_path / "out", pictures=False)
    assert "levels" in result.failures["a"]


def test_names(tmp_path: Path) -> None:
    assert parse_names("totalsegmentator")[88] == "iliopsoas left"
    assert parse_names("2=b right, 1=a") == {1: "a", 2: "b right"}
    file = tmp_path / "metadata.json"
    for content, expected in (
        ({"labels": {"0": "background", "3": "psoas"}}, {3: "psoas"}),
        ({"0": "background", "3": "psoas"}, {3: "psoas"}),
        ({"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "bg", "1": "m"}}}}}, {1: "m"}),
        ({"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "muscle"}}}}}, {1: "muscle"}),
    ):
        file.write_text(json.dumps(content))
        assert parse_names(str(file)) == expected
    for bad in ("unknown", "1=a,1=b", "x=a", "1=", "0=a", "1=a,2=a", "300=a"):
        with pytest.raises(InputError):
            parse_names(bad)
    for text in ("[1]", "{", '{"network_data_format": {}}'):
        file.write_text(text)
        with pytest.raises(InputError):
            parse_names(str(file))


@pytest.mark.parametrize("labels", [True, False])
def test_one_of_predictions_and_labels(labels: bool, cohort: Path, tmp_path: Path) -> None:
    arguments = ["muscle", str(cohort), *([str(tmp_path), "--labels"] if labels else [])]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
