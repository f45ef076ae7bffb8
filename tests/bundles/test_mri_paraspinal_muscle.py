"""The paraspinal MR bundle: training in 2D and 3D, resume, GRN+, evaluation, and inference in the scan's geometry."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from data_prep.simulate.lumbar import LumbarSettings, simulate_lumbar
from data_prep.split import write_folds
from grn_monai.errors import find_input_error
from grn_monai.labels import MRI_MUSCLES
from tests.bundles.conftest import ROOT, run, workflow
from tests.bundles.contract import read_history, same_grid
from tests.bundles.test_resume import differences

BUNDLE = "mri_paraspinal_muscle"
NETWORK: dict[str, Any] = {"spacing": [4.0, 4.0, 10.0], "patch_size": [32, 32], "channels": [4, 8, 16], "device": "cpu"}
SMALL: dict[str, Any] = {**NETWORK, "iterations": 4, "val_every": 2, "batch_size": 2}
THREE_D: dict[str, Any] = {"patch_size": [32, 32, 8]}
GRN: dict[str, Any] = {"base_channels": 4}


@pytest.fixture(scope="module")
def mri(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mri")
    settings = LumbarSettings(modality="mri", split=(3, 1, 2), shape=(56, 56, 6), spacing_mm=(4.0, 4.0, 10.0), seed=3)
    simulate_lumbar(folder, settings, workers=1, progress=False)
    return folder


@pytest.fixture(scope="module")
def model(mri: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(BUNDLE, "train", dataset_dir=str(mri), output_dir=str(folder), **SMALL)
    return folder


def test_training_leaves_models_history_and_record(model: Path) -> None:
    rows = read_history(model)
    assert [(r["epoch"], r["iteration"]) for r in rows] == [("1", "2"), ("2", "4")]
    assert all(0 < float(r["val_dice_loss"]) < 1 for r in rows)
    record = json.loads((model / "run.json").read_text())
    assert (record["status"], record["resolved"]["epochs"]) == ("completed", 2)
    saved = torch.load(model / "models" / "model.pt", weights_only=True)
    assert saved["options"]["spacing"] == "[4.0, 4.0, 10.0]"


def test_the_default_is_the_published_training(mri: Path, tmp_path: Path) -> None:
    flow = workflow(BUNDLE, "train", dataset_dir=str(mri), output_dir=str(tmp_path), device="cpu")
    get = flow.parser.get_parsed_content
    assert (get("epochs") * get("val_every"), get("patch_size"), get("spacing")) == (30000, [256, 256], [0.39, 0.39, 5])
    group = get("optimizer").param_groups[0]
    assert (group["lr"], group["weight_decay"], type(get("optimizer")).__name__) == (1e-3, 1e-4, "AdamW")
    layers = [type(m).__name__ for m in get("network").modules()]
    assert {"ResidualUnit", "LeakyReLU", "InstanceNorm2d", "ConvTranspose2d"} <= set(layers)
    assert not any("Pool" in name or "Upsample" in name for name in layers)
    assert flow.check_properties() == []


def test_three_d_and_deeper_by_overlay(mri: Path, tmp_path: Path) -> None:
    flow = workflow(BUNDLE, "train", "three_d", "deeper", dataset_dir=str(mri), output_dir=str(tmp_path), device="cpu")
    get = flow.parser.get_parsed_content
    assert (get("patch_size"), get("crop_size"), get("batch_size")) == ([256, 256, 32], [256, 256, 32], 2)
    names = [type(m).__name__ for m in get("network").modules()]
    assert names.count("ConvTranspose3d") == 5
    small = {**SMALL, **THREE_D, "iterations": 2}
    run(BUNDLE, "train", "three_d", dataset_dir=str(mri), output_dir=str(tmp_path), **small)
    options = {"dataset_dir": str(mri), "output_dir": str(tmp_path), **NETWORK, **THREE_D}
    run(BUNDLE, "train", "three_d", "evaluate", **options, surface_distances="false")
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    with pytest.raises(RuntimeError) as info:
        infer(mri, tmp_path / "out", tmp_path / "models" / "model.pt")
    assert "trained with spatial_dims 3" in str(find_input_error(info.value))


def test_a_resumed_run_equals_an_uninterrupted_one(mri: Path, tmp_path: Path) -> None:
    options = {**SMALL, "dataset_dir": str(mri), "flip_sides": "true"}
    run(BUNDLE, "train", "augment", **options, output_dir=str(tmp_path / "whole"))
    for epochs in (1, 2):
        run(BUNDLE, "train", "augment", **options, epochs=epochs, output_dir=str(tmp_path / "parts"))
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")]
    for state in states:  # the patience follows the number of epochs
        state["modules"].pop("early_stop")
    assert differences(*states) == []
    with pytest.raises(RuntimeError) as info:
        run(BUNDLE, "train", "augment", **options, rotation=5.0, output_dir=str(tmp_path / "parts"))
    assert "another run (rotation '15.0', now '5.0')" in str(find_input_error(info.value))


def test_evaluation_scores_every_muscle_in_the_scans_geometry(model: Path, mri: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(mri), "output_dir": str(model), "eval_dir": str(tmp_path), **NETWORK}
    run(BUNDLE, "train", "evaluate", **options, largest_component="true")
    with open(tmp_path / "muscles.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["muscle"] for row in rows} >= set(MRI_MUSCLES.values()) - {"background"}
    truth = nib.load(mri / "labels" / f"{rows[0]['scan']}.nii.gz")
    voxels = np.count_nonzero(np.asanyarray(truth.dataobj) == 1)
    volume = voxels * float(np.prod(truth.header.get_zooms())) / 1000
    row = next(r for r in rows if r["scan"] == rows[0]["scan"] and r["muscle"] == MRI_MUSCLES[1])
    assert float(row["truth_volume_ml"]) == pytest.approx(volume, rel=1e-4)
    for item in json.loads((mri / "dataset.json").read_text())["test"]:
        image = mri / item["image"]
        assert same_grid(tmp_path / "predictions" / image.name.replace(".nii.gz", "_seg.nii.gz"), image)


def test_folds_are_trained_and_tested_apart(mri: Path, tmp_path: Path) -> None:
    write_folds(mri, 3, out=tmp_path / "cv")
    options = {**SMALL, "dataset_dir": str(tmp_path / "cv"), "split": "fold_2.json", "iterations": 2}
    run(BUNDLE, "train", **options, output_dir=str(tmp_path / "run"))
    split = json.loads((tmp_path / "cv" / "fold_2.json").read_text())
    trained = set(json.loads((tmp_path / "run" / "run.json").read_text())["scans"])
    assert trained == {item["scan"] for item in split["training"]}
    run(
        BUNDLE, "train", "evaluate", **options, output_dir=str(tmp_path / "run"), surface_distances="false"
    )  # fmt: skip
    with open(tmp_path / "run" / "evaluation" / "muscles.csv", newline="") as file:
        tested = {row["subject"] for row in csv.DictReader(file)}
    assert tested == set(split["split"]["test_subjects"])
    assert not tested & {item["subject"] for item in split["training"]}


def test_grn_plus_trains_and_both_modes_are_scored(mri: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(mri), "output_dir": str(tmp_path), **GRN}
    run(BUNDLE, "train", "grn_plus", **{**SMALL, **options, "iterations": 2})
    assert {"val_dice_loss", "val_dice_loss_sge", "loss_sge"} <= set(read_history(tmp_path)[0])
    for sge, folder in (("true", "evaluation_sge"), ("false", "evaluation")):
        run(BUNDLE, "train", "grn_plus", "evaluate", **NETWORK, **options, sge=sge, surface_distances="false")
        assert (tmp_path / folder / "metrics.json").is_file()
    for sge, name in (("true", "model.pt"), ("false", "model_raw.pt")):
        infer(mri, tmp_path / "out", tmp_path / "models" / name, "sge", **GRN, sge=sge)
    flow = workflow(BUNDLE, "train", "grn_plus", **{**SMALL, **options})
    image = flow.parser.get_parsed_content("train#dataset")[0][0]["image"]
    assert -1 <= float(image.min()) < float(image.max()) <= 1


@pytest.mark.parametrize(
    ("configs", "options", "words"),
    [
        (("train", "grn_plus", "three_d"), THREE_D, "spatial_dims with grn_plus.yaml"),
        (("train",), {"patch_size": [30, 32]}, "Give `--patch_size [32,32]`"),
        (("train",), {"patch_size": [32, 32, 8]}, "expected 2 whole numbers"),
        (("train", "three_d"), {"patch_size": [32, 32, 7]}, "Give `--patch_size [32,32,8]`"),
        (("train",), {"spatial_dims": 4}, "spatial_dims: found 4"),
        (("train",), {"split": "fold_9.json"}, "fold_9.json: found no such file"),
    ],
)
def test_options_that_do_not_fit(
    mri: Path, tmp_path: Path, configs: tuple[str, ...], options: dict[str, Any], words: str
) -> None:
    with pytest.raises((RuntimeError, ValueError)) as info:
        run(BUNDLE, *configs, **{**SMALL, "dataset_dir": str(mri), "output_dir": str(tmp_path), **options})
    assert words in str(find_input_error(info.value))
    assert not (tmp_path / "checkpoint.pt").exists()


# Inference.


def infer(source: Path, out: Path, ckpt: Path, *overlays: str, **options: Any) -> Any:
    return run(
        BUNDLE, "inference", *overlays, workflow_type="infer", **{**NETWORK, **options}, dataset_dir=str(source),
        output_dir=str(out), ckpt_path=str(ckpt),
    )  # fmt: skip


class GreyOracle(nn.Module):
    """Class k where the grey value is 100 k: what a perfect network would say of a picture of its own labels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-(((x - 100 * k) / 20) ** 2) for k in range(7)], dim=1)


class SideOracle(nn.Module):
    """Psoas left in the first half of the first axis, psoas right in the second."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[2] // 2
        out = torch.zeros(x.shape[0], 7, *x.shape[2:])
        out[:, 5, :half], out[:, 6, half:] = 9, 9
        return out


@pytest.fixture
def oracle(tmp_path: Path) -> Any:
    """Runs the inference chain with a network that needs no training."""

    def go(kind: type[nn.Module], source: Path, **options: Any) -> Path:
        overlay, weights, out = tmp_path / "oracle.yaml", tmp_path / "none.pt", tmp_path / "out"
        place = f"{__name__}.{kind.__name__}"
        intensity = "{_target_: ShiftIntensityd, keys: image, offset: 0.0}"
        overlay.write_text(f"network_def:\n  _target_: {place}\n  _mode_: default\nintensity: {intensity}\n")
        torch.save({"model": {}, "options": {}}, weights)
        infer(source, out, weights, str(overlay), **options)
        return out

    return go


def oblique(spacing: tuple[float, float, float], codes: str = "RAS") -> np.ndarray:
    """An affine turned by 20° about S and 10° about R, with its axes named as `codes`."""
    a, b = np.radians(20), np.radians(10)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    axes = nib.orientations.axcodes2ornt(codes)
    order = np.zeros((3, 3))
    for column, (axis, sign) in enumerate(axes):
        order[int(axis), column] = sign
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ order * spacing
    affine[:3, 3] = (12.0, -30.0, 7.0)
    return affine


def blocks(shape: tuple[int, int, int]) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    x, y, z = (n // 4 for n in shape)
    for value in range(1, 7):
        labels[x * (value % 3) + 1 : x * (value % 3) + x, y * (value // 3) + 1 : y * (value // 3) + y, z : 3 * z] = (
            value
        )
    return labels


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
def test_an_oblique_scan_comes_back_on_its_own_grid(oracle: Any, tmp_path: Path, codes: str) -> None:
    labels = blocks((40, 44, 12))
    affine = oblique((1.5, 1.5, 5.0) if codes != "PSR" else (1.5, 5.0, 1.5), codes)
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(100 * labels.astype(np.int16), affine), scan)
    same = oracle(GreyOracle, scan, spacing=[0, 0, 0]) / "scan_seg.nii.gz"
    assert same_grid(same, scan)
    assert nib.load(same).get_data_dtype() == np.uint8
    assert np.array_equal(np.asanyarray(nib.load(same).dataobj), labels)
    # Between two classes an interpolated grey value is that of a third, so with one class only.
    one = (labels == 6).astype(np.int16)
    nib.save(nib.Nifti1Image(100 * one, affine), scan)
    found = np.asanyarray(nib.load(oracle(GreyOracle, scan, spacing=[0.75, 0.75, 2.5]) / "scan_seg.nii.gz").dataobj)
    assert 2 * np.count_nonzero(found & one) / (np.count_nonzero(found) + np.count_nonzero(one)) > 0.95


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "SRP"])
def test_left_and_right_are_the_persons_own(oracle: Any, tmp_path: Path, codes: str) -> None:
    shape = (32, 30, 6) if codes != "SRP" else (6, 32, 30)
    affine = np.diag([*(4.0 * np.array([{"L": -1, "P": -1}.get(c, 1) for c in codes])), 1.0])
    if codes == "SRP":
        affine = np.zeros((4, 4))
        affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 10, 4, -4, 1
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).integers(0, 500, shape).astype(np.int16), affine), scan)
    found = np.asanyarray(nib.load(oracle(SideOracle, scan, spacing=[0, 0, 0]) / "scan_seg.nii.gz").dataobj)
    right = {value: (np.argwhere(found == value) @ affine[:3, :3].T)[:, 0] for value in (5, 6)}
    assert right[5].max() < right[6].min()  # x grows to the person's right
    assert MRI_MUSCLES[5] == "psoas left"


def test_training_sees_the_same_side_whatever_the_file_order(mri: Path, tmp_path: Path) -> None:
    data = json.loads((mri / "dataset.json").read_text())
    for kind in ("images", "labels"):
        (tmp_path / "turned" / kind).mkdir(parents=True)
        for path in (mri / kind).glob("*.nii.gz"):
            turned = nib.load(path).as_reoriented(nib.orientations.axcodes2ornt("LPS"))
            nib.save(turned, tmp_path / "turned" / kind / path.name)
    (tmp_path / "turned" / "dataset.json").write_text(json.dumps(data))
    volumes = []
    for folder in (mri, tmp_path / "turned"):
        flow = workflow(BUNDLE, "train", dataset_dir=str(folder), output_dir=str(tmp_path), **SMALL)
        volumes.append(flow.parser.get_parsed_content("validate#dataset")[0])
    for key in ("image", "label"):
        assert torch.allclose(volumes[0][key].float(), volumes[1][key].float(), atol=1e-3)
    places = {value: (volumes[0]["label"][0] == value).nonzero()[:, 0].float().mean() for value in range(1, 7)}
    assert all(places[left] < places[left + 1] for left in (1, 3, 5))


def test_largest_component_removes_islands(oracle: Any, tmp_path: Path) -> None:
    labels = np.zeros((24, 24, 8), np.uint8)
    labels[2:10, 2:10, 2:6], labels[16:18, 16:18, 2:4], labels[12:14, 2:4, 2:4] = 1, 1, 2
    scan = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(100 * labels.astype(np.int16), np.diag([2.0, 2.0, 6.0, 1.0])), scan)
    counts = []
    for option in ("false", "true"):
        out = oracle(GreyOracle, scan, spacing=[0, 0, 0], largest_component=option) / "scan_seg.nii.gz"
        counts.append(np.bincount(np.asanyarray(nib.load(out).dataobj).ravel(), minlength=3)[1:].tolist())
    assert counts == [[256 + 8, 8], [256, 8]]


def test_nothing_found_is_said(oracle: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey = np.zeros((24, 24, 6), np.int16)
    grey[0, 0, 0] = 10
    nib.save(nib.Nifti1Image(grey, np.diag([2.0, 2.0, 6.0, 1.0])), tmp_path / "empty.nii.gz")
    out = oracle(GreyOracle, tmp_path / "empty.nii.gz", spacing=[0, 0, 0])
    assert "empty: nothing found: no voxel of multifidus left" in capsys.readouterr().out
    with open(out / "found.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["nothing found"]


def test_bad_scans_are_listed_and_the_others_are_segmented(
    model: Path, mri: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    good = next((mri / "images").glob("*.nii.gz"))
    (scans / "good.nii.gz").write_bytes(good.read_bytes())
    data = np.asanyarray(nib.load(good).dataobj)
    for name, size in (("absurd", 4000.0), ("tiny", 0.004)):
        nib.save(nib.Nifti1Image(data, np.diag([size, size, size, 1.0])), scans / f"{name}.nii.gz")
    zero = nib.Nifti1Image(data, None)
    zero.header["pixdim"][1:4] = (0, 0, 5)
    nib.save(zero, scans / "zero.nii.gz")
    raw = (scans / "zero.nii.gz").read_bytes()
    assert raw
    ct = np.where(data > data.mean(), 40, -1000).astype(np.int16)
    nib.save(nib.Nifti1Image(ct, np.diag([4.0, 4.0, 10.0, 1.0])), scans / "ct.nii.gz")
    with pytest.raises((SystemExit, RuntimeError)):
        infer(scans, tmp_path / "out", model / "models" / "model.pt")
    text = capsys.readouterr().err
    assert "4 of 5 scans failed" in text
    for name, words in (("absurd", "4000 × 4000"), ("tiny", "0.004"), ("zero", "voxel size of 0 × 0"), ("ct", "a CT")):
        assert any(f"{name}.nii.gz" in line and words in line for line in text.splitlines()), (name, text)
    assert [path.name for path in (tmp_path / "out").glob("*.nii.gz")] == ["good_seg.nii.gz"]


REAL = ROOT / "tests" / "data" / "totalsegmentator" / "example_mr_sm.nii.gz"


def test_a_real_scan_goes_through(model: Path, tmp_path: Path) -> None:
    infer(REAL, tmp_path, model / "models" / "model.pt")
    saved = tmp_path / "example_mr_sm_seg.nii.gz"
    assert same_grid(saved, REAL)
    assert set(np.unique(np.asanyarray(nib.load(saved).dataobj)).tolist()) <= set(range(7))
