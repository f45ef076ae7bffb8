"""The command, from files to tables."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from grn_monai.commands.measure import add as add_parser
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES
from grn_monai.measure.agreement import QUALITY_FORMAT
from grn_monai.measure.folders import NO_LAYERS, measure_folders
from grn_monai.measure.quality import CHECKS
from grn_monai.metrics.files import read_rows
from tests.metrics.layered import layered_truth, perturbed

SPACING = (0.2, 0.25, 0.15)
FILES = {"measurements.csv", "scans.csv", "muscle_areas.csv", "left_right.csv", "measurements.json"}


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*SPACING, 1]) if affine is None else affine), path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A cohort of two subjects, each scanned twice on both sides of one site, and predictions."""
    items = []
    for i in range(8):
        subject, side, repeat = "ab"[i // 4], ("left", "R")[i // 2 % 2], i % 2 + 1
        scan = f"{subject}_{side}_{repeat}"
        truth = layered_truth(i)
        grey = (truth * 30 + np.random.default_rng(i).integers(0, 30, truth.shape)).astype(np.uint8)
        save(tmp_path / f"cohort/images/{scan}.nii.gz", grey)
        save(tmp_path / f"cohort/labels/{scan}.nii.gz", truth)
        save(tmp_path / f"predictions/{scan}_seg.nii.gz", perturbed(truth, i))
        paths = {"image": f"images/{scan}.nii.gz", "label": f"labels/{scan}.nii.gz"}
        keys = {"subject": subject, "scan": scan, "side": side, "site": "L3", "repeat": repeat, "status": "cLBP"}
        items.append({**paths, **keys})
    labels = {str(k): v for k, v in LAYER_NAMES.items()}
    cohort = {"labels": labels, "training": [], "test": items, "dynamic_range_db": 50, "simulated": True}
    (tmp_path / "cohort/dataset.json").write_text(json.dumps(cohort))
    return tmp_path / "cohort", tmp_path / "predictions"


def call(*arguments: Any) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    options = parser.parse_args(["measure", *map(str, arguments)])
    return options.run(options)


def content(out: Path) -> dict[str, Any]:
    return json.loads((out / "measurements.json").read_text())


def test_everything_is_written(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (folders[1] / "a_left_1_quality.json").write_text(
        json.dumps(
            {
                "format": QUALITY_FORMAT,
                "plane_disagreement": {"disagreement_percent": 33.3},
                "sge_disagreement": None,
                "layer_order": {"out_of_order_percent": 1.5},
            }
        )
    )
    assert call(*folders, "--out", out) == 0
    assert "8 scans measured" in capsys.readouterr().out
    names = {p.name for p in out.iterdir()}
    assert names == FILES | {"repeatability.csv", "bland_altman.png", "maps"}
    assert len(list((out / "maps").glob("*_thickness.png"))) == 8

    found = content(out)
    assert found["format"] == "grn-monai measurements 1"
    assert found["simulated"] is True
    assert found["failures"] == {}
    assert found["labels"]["6"] == "muscle"
    scan = found["scans"][0]
    assert (scan["subject"], scan["scan"], scan["side"], scan["site"], scan["repeat"], scan["status"]) == (
        "a", "a_left_1", "left", "L3", 1, "cLBP",
    )  # fmt: skip
    assert scan["segmentation"] == "../predictions/a_left_1_seg.nii.gz"
    assert scan["image"] == "../cohort/images/a_left_1.nii.gz"
    assert found["source"]["cohort"] == "../cohort"
    assert found["source"]["predictions"] == "../predictions"
    assert str(tmp_path) not in (out / "measurements.json").read_text() + (out / "scans.csv").read_text()
    assert (out / scan["map"]).read_bytes().startswith(b"\x89PNG")
    flags = {flag["name"]: flag for flag in scan["quality"]["flags"]}
    assert flags["plane_disagreement"]["value"] == 33.3
    assert flags["plane_disagreement"]["level"] == "check"
    assert flags["out_of_order"]["level"] == "ok"
    assert flags["sge_disagreement"]["level"] == "unknown"
    without = {flag["name"]: flag for flag in found["scans"][1]["quality"]["flags"]}  # there is no quality file
    assert {without[name]["level"] for name in ("plane_disagreement", "sge_disagreement", "out_of_order")} == {
        "unknown"
    }
    assert "inference wrote no" in without["plane_disagreement"]["text"]
    labels = perturbed(layered_truth(0), 0)
    along = (labels == 2).sum(axis=2) * SPACING[2]
    assert scan["layers"][1]["thickness_mm"]["mean"] == pytest.approx(along[along > 0].mean(), rel=1e-5)
    assert scan["layers"][1]["echo_db"]["mean"] == pytest.approx(
        (scan["layers"][1]["echo_percent"]["mean"] / 100 - 1) * 50
    )

    rows = read_rows(out / "measurements.csv")
    assert len(rows) == 8 * 6
    assert float(rows[1]["thickness_mean_mm"]) == pytest.approx(scan["layers"][1]["thickness_mm"]["mean"], rel=1e-5)
    assert float(rows[1]["normal_thickness_median_mm"]) > 0
    rows = read_rows(out / "scans.csv")
    assert [row["quality"] for row in rows] == [scan["quality"]["status"] for scan in found["scans"]]
    assert [row["not_checked"] for row in rows] == ["1"] + ["3"] * 7
    assert {row["echo_scale"] for row in rows} == {"8-bit"}
    assert float(rows[0]["plane_disagreement_percent"]) == 33.3
    assert float(rows[0]["muscle_area_sagittal_mean_cm2"]) > 0
    rows = read_rows(out / "left_right.csv")
    muscle = [r for r in rows if r["layer"] == "muscle" and r["measure"] in ("thickness", "volume", "area_sagittal")]
    assert len(muscle) == 6
    assert {(r["note"], r["difference"]) for r in muscle} == {("cut by the field of view in 4 scans", "")}
    thick = next(r for r in rows if r["layer"] == "deep fat" and r["measure"] == "thickness" and r["subject"] == "b")
    by_side = {side: [s["layers"][3]["thickness_mm"]["mean"] for s in found["scans"][4:8] if s["side"] == side]
               for side in ("left", "right")}  # fmt: skip
    assert float(thick["difference"]) == pytest.approx(
        np.mean(by_side["right"]) - np.mean(by_side["left"]), rel=1e-3, abs=1e-5
    )
    rows = read_rows(out / "repeatability.csv")
    fat = [row for row in rows if row["layer"] == "superficial fat"]
    assert {(row["sites"], row["repeats"]) for row in fat} == {("4", "2")}
    muscle = next(row for row in rows if row["layer"] == "muscle" and row["measure"] == "volume")
    assert (muscle["sites"], muscle["left_out_scans"]) == ("0", "8")
    assert muscle["note"].endswith("cut by the field of view in 8 scans")
    assert all(row["unit"] for row in rows)
    rows = read_rows(out / "muscle_areas.csv")
    labels = perturbed(layered_truth(0), 0)
    mine = [r for r in rows if r["scan"] == "a_left_1" and r["plane"] == "transverse"]
    areas = (labels == 6).sum(axis=(0, 2)) * SPACING[0] * SPACING[2] / 100
    assert [int(r["slice"]) for r in mine] == np.flatnonzero(areas).tolist()
    np.testing.assert_allclose([float(r["area_cm2"]) for r in mine], areas[areas > 0], rtol=1e-4)
    np.testing.assert_allclose([float(r["position_mm"]) for r in mine], np.flatnonzero(areas) * SPACING[1], rtol=1e-4)
    assert {r["label"] for r in rows} == {"6"}


def test_labels_of_the_cohort_without_pictures_or_normals(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(folders[0], "--labels", "--out", out, "--maps", "none", "--no-normal", "--section", "all") == 0
    scan = content(out)["scans"][0]
    assert scan["map"] is None
    assert scan["layers"][0]["normal_thickness_mm"] is None
    assert scan["segmentation"] == scan["image"].replace("images", "labels")
    assert not (out / "maps").exists()
    flag = next(flag for flag in scan["quality"]["flags"] if flag["name"] == "plane_disagreement")
    assert flag["level"] == "unknown"
    assert "no prediction" in flag["text"]


def test_a_bad_scan_is_listed_and_the_others_measured(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "a_left_2_seg.nii.gz").write_text("damaged")
    (folders[1] / "b_R_1_seg.nii.gz").unlink()
    save(folders[1] / "b_left_1_seg.nii.gz", np.zeros((3, 3, 3), np.uint8))
    assert call(*folders, "--out", tmp_path / "out", "--maps", "none") == 1
    captured = capsys.readouterr()
    assert "5 scans measured" in captured.out
    assert "3 scans failed" in captured.err
    found = content(tmp_path / "out")
    assert list(found["failures"]) == ["a_left_2", "b_left_1", "b_R_1"]
    assert all(len(line.splitlines()) == 1 for line in found["failures"].values())
    assert len(found["scans"]) == 5


def test_failures_of_scans_of_one_name_are_told_apart(folders: tuple[Path, Path], tmp_path: Path) -> None:
    cohort = json.loads((folders[0] / "dataset.json").read_text())
    for item in cohort["test"]:
        item["scan"], item["subject"] = "visit", item["image"][7:-7]
    (folders[0] / "dataset.json").write_text(json.dumps(cohort))
    for name in ("a_left_2", "b_R_1"):
        (folders[1] / f"{name}_seg.nii.gz").unlink()
    failures = measure_folders(*folders, tmp_path / "out", maps="none").failures
    assert list(failures) == ["a_left_2", "b_R_1"]
    assert failures["a_left_2"].startswith("subject a_left_2, scan visit: ")


def flag_of(scan: dict[str, Any], name: str) -> dict[str, Any]:
    return next(flag for flag in scan["quality"]["flags"] if flag["name"] == name)


def test_compare_is_a_check_of_its_own(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[0] / "labels/a_left_2.nii.gz").unlink()
    save(folders[0] / "labels/a_R_1.nii.gz", np.zeros((2, 2, 2), np.uint8))
    options = ("--out", tmp_path / "out", "--maps", "none", "--limit", "compared_disagreement=0.01")
    assert call(*folders, *options, "--compare", folders[0] / "labels") == 0
    found = content(tmp_path / "out")
    assert found["source"]["compare"] == "../cohort/labels"
    scan = found["scans"][3]
    flag = flag_of(scan, "compared_disagreement")
    prediction, truth = perturbed(layered_truth(3), 3), layered_truth(3)
    tissue = (prediction > 0) | (truth > 0)
    assert flag["value"] == pytest.approx(100 * (prediction != truth)[tissue].mean())
    assert (flag["level"], flag["limit"], flag["title"]) == ("check", 0.01, "Differs from the compared labels")
    assert flag_of(scan, "sge_disagreement")["level"] == "unknown", "not taken for S(x) and S(G(x))"
    for i, words in ((1, "no label volume of scan a_left_2"), (2, "have shape (2, 2, 2)")):
        flag = flag_of(found["scans"][i], "compared_disagreement")
        assert flag["level"] == "unknown"
        assert words in flag["text"]
    plain = measure_folders(*folders, tmp_path / "plain", maps="none").content
    assert "compared_disagreement" not in {flag["name"] for flag in plain["scans"][0]["quality"]["flags"]}


@pytest.mark.parametrize("by", ["option", "file"])
def test_labels_that_are_layers_of_other_names(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    cohort = json.loads((folders[0] / "dataset.json").read_text())
    cohort["labels"] |= {"1": "skin"}
    (folders[0] / "dataset.json").write_text(json.dumps(cohort))
    options = ["--out", tmp_path / "out", "--maps", "none"]
    assert call(*folders, *options) == 0
    assert NO_LAYERS in capsys.readouterr().out.splitlines()
    found = content(tmp_path / "out")
    assert found["notes"] == [NO_LAYERS]
    assert found["layered"] is False
    if by == "file":
        (folders[0] / "dataset.json").write_text(json.dumps(cohort | {"layers": True}))
    assert call(*folders, *options, *["--layers"] * (by == "option")) == 0
    assert NO_LAYERS not in capsys.readouterr().out
    found = content(tmp_path / "out")
    assert (found["layered"], found["notes"]) == (True, [])
    assert found["scans"][0]["layers"][0]["thickness_mm"]["mean"] > 0
    (folders[0] / "dataset.json").write_text(json.dumps(cohort | {"layers": "yes"}))
    with pytest.raises(InputError, match="layers 'yes'; expected true or false"):
        call(*folders, *options)


@pytest.mark.parametrize(("given", "file", "expected"), [(None, False, None), (None, True, True), (False, True, False)])
def test_whether_it_is_simulated(
    folders: tuple[Path, Path], tmp_path: Path, given: bool | None, file: bool, expected: bool | None
) -> None:
    cohort = json.loads((folders[0] / "dataset.json").read_text())
    del cohort["simulated"]
    cohort |= {} if given is None else {"simulated": given}
    cohort["test"] = cohort["test"][:1]
    (folders[0] / "dataset.json").write_text(json.dumps(cohort))
    if file:
        (folders[0] / "simulation.json").write_text("{}")
    assert measure_folders(*folders, tmp_path / "out", maps="none").content["simulated"] is expected


def test_depth_first_files_measure_the_same_and_maps_lie_over_the_scan(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    straight = measure_folders(*folders, tmp_path / "straight", maps="nifti").content
    for folder in (folders[0] / "images", folders[1]):
        for path in folder.glob("*.nii.gz"):
            turned = np.moveaxis(np.asarray(nib.load(path).dataobj), 2, 0)[::-1]
            save(path, np.ascontiguousarray(turned), np.diag([SPACING[2], *SPACING[:2], 1]))
    turned = measure_folders(
        *folders, tmp_path / "turned", maps="nifti", depth_axis=0, depth_reversed=True
    ).content  # fmt: skip
    for a, b in zip(straight["scans"], turned["scans"], strict=True):
        assert a["layers"] == b["layers"]
        assert a["muscle_area_cm2"] == b["muscle_area_cm2"]
    image = nib.load(tmp_path / "straight/maps/a_left_1_thickness.nii.gz")
    truth = perturbed(layered_truth(0), 0)
    assert image.shape == (*truth.shape[:2], 1, 6)
    np.testing.assert_allclose(image.get_fdata()[:, :, 0, 2], (truth == 3).sum(axis=2) * SPACING[2], rtol=1e-6)
    corner = image.affine @ [-0.5, -0.5, 0.5, 1], np.diag([*SPACING, 1]) @ [-0.5, -0.5, truth.shape[2] - 0.5, 1]
    np.testing.assert_allclose(*corner, atol=1e-6)
    assert np.isnan(nib.load(tmp_path / "straight/maps/a_left_1_normal_thickness.nii.gz").get_fdata()[..., 5]).all()


def test_a_folder_of_images_without_a_cohort(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = measure_folders(folders[0] / "images", folders[1], tmp_path / "out", maps="none").content
    assert len(found["scans"]) == 8
    assert found["simulated"] is None
    assert found["left_right"] == found["repeatability"] == []
    assert found["scans"][0]["layers"][0]["name"] == "dermis"
    assert found["scans"][0]["layers"][0]["echo_db"] is None


def test_labels_beside_the_images_are_no_scans(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for path in folders[1].iterdir():
        path.rename(folders[0] / "images" / path.name)
    found = measure_folders(folders[0] / "images", folders[0] / "images", tmp_path / "out", maps="none").content
    assert len(found["scans"]) == 8
    assert found["failures"] == {}


def test_results_of_an_earlier_call_with_repeats_do_not_stay(folders: tuple[Path, Path], tmp_path: Path) -> None:
    measure_folders(*folders, tmp_path / "out", maps="none")
    measure_folders(folders[0] / "images", folders[1], tmp_path / "out", maps="none")
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


def test_maps_and_report_of_an_earlier_call_do_not_stay(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("of something else")
    measure_folders(*folders, out)
    assert (out / "report.html").is_file(), "there were no measurements that it could be of"
    (out / "maps/notes.txt").write_text("mine")
    (folders[1] / "b_R_2_seg.nii.gz").unlink()
    result = measure_folders(*folders, out, maps="nifti")
    assert not (out / "report.html").exists()
    names = {p.name for p in (out / "maps").iterdir()}
    scans = [scan["image"].split("/")[-1][:-7] for scan in result.content["scans"]]
    kinds = ("thickness", "normal_thickness")
    assert names == {"notes.txt"} | {f"{scan}_{kind}.nii.gz" for scan in scans for kind in kinds}
    assert len(scans) == 7
    assert {scan["map"] for scan in result.content["scans"]} == {f"maps/{scan}_thickness.nii.gz" for scan in scans}
    assert {path.name for path in result.written} == (names | FILES | {"repeatability.csv", "bland_altman.png"}) - {
        "notes.txt"}  # fmt: skip


def test_odd_keys_of_items_do_no_harm(folders: tuple[Path, Path], tmp_path: Path) -> None:
    cohort = json.loads((folders[0] / "dataset.json").read_text())
    odd = {"side": ["left"], "site": {"level": 3}, "status": [1], "repeat": ["a"]}
    cohort["test"] = [{**item, **odd} for item in cohort["test"][:2]]
    (folders[0] / "dataset.json").write_text(json.dumps(cohort))
    found = measure_folders(*folders, tmp_path / "out", maps="none").content
    assert found["failures"] == {}
    assert [scan["side"] for scan in found["scans"]] == [None, None]
    assert found["scans"][0]["site"] == "{'level': 3}"


def test_muscles_of_another_modality(tmp_path: Path) -> None:
    labels = np.zeros((12, 12, 8), np.uint8)
    labels[2:6, 2:6], labels[7:9, 2:6] = 1, 8
    image = np.random.default_rng(0).normal(50, 9, labels.shape).astype(np.float32)
    save(tmp_path / "images/ct.nii.gz", image)
    save(tmp_path / "labels/ct.nii.gz", labels)
    items = [{"image": "images/ct.nii.gz", "label": "labels/ct.nii.gz", "subject": "s", "scan": "ct"}]
    names = {"0": "background", "1": "psoas left", "8": "psoas right"}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": names, "training": [], "test": items}))
    found = measure_folders(tmp_path, None, tmp_path / "out").content
    assert found["layered"] is False
    left, right = found["scans"][0]["layers"]
    assert left["volume_ml"] == pytest.approx(2 * right["volume_ml"])
    assert left["area_cm2"]["axial"]["mean"] == pytest.approx(16 * 0.2 * 0.25 / 100, rel=1e-5)
    assert found["scans"][0]["map"] is None
    pair = next(row for row in found["left_right"] if row["measure"] == "area_axial")
    assert (pair["layer"], pair["label"], pair["n_left"], pair["n_right"]) == ("psoas", 1, 1, 1)
    assert pair["asymmetry_percent"] == pytest.approx(-200 / 3)
    row = read_rows(tmp_path / "out/scans.csv")[0]
    assert float(row["psoas_right_area_axial_max_cm2"]) == pytest.approx(8 * 0.2 * 0.25 / 100, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{cohort}", "--out", "{out}"], "neither PREDICTIONS nor --labels"),
        (["{cohort}", "{predictions}", "--labels", "--out", "{out}"], "both PREDICTIONS and --labels"),
        (["{cohort}", "{out}/none", "--out", "{out}"], "none: found no folder"),
        (["{out}/none", "{predictions}", "--out", "{out}"], "none: found no such file or folder"),
        (["{cohort}", "{predictions}", "--out", "{out}", "--limit", "planes=3"], "'planes'; expected one of"),
        (["{cohort}", "{predictions}", "--out", "{out}", "--section", "validation"], "no items in 'validation'"),
        (["{cohort}", "{cohort}", "--out", "{out}"], "no scan that could be measured (8 tried)"),
        (["{cohort}", "{predictions}", "--out", "{out}", "--depth-axis", "7"], "depth_axis"),
    ],
)
def test_bad_input_is_said(folders: tuple[Path, Path], tmp_path: Path, arguments: list[str], words: str) -> None:
    places = {"cohort": folders[0], "predictions": folders[1], "out": tmp_path / "out"}
    with pytest.raises(InputError) as info:
        call(*(argument.format(**places) for argument in arguments))
    assert words in str(info.value)


def test_the_help_names_every_limit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call("--help")
    text = capsys.readouterr().out
    assert all(f"{name} {check.limit:g}" in text for name, check in CHECKS.items())


def test_bad_options_stop_at_once(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        call(*folders, "--out", tmp_path / "out", "--limit", "plane_disagreement")
    cohort = json.loads((folders[0] / "dataset.json").read_text())
    (folders[0] / "dataset.json").write_text(json.dumps({**cohort, "dynamic_range_db": "60 dB"}))
    with pytest.raises(InputError, match="positive number of dB"):
        call(*folders, "--out", tmp_path / "out")
