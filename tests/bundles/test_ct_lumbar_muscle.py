"""The lumbar CT bundle through monai.bundle: training on a small simulated cohort, resume, scores, overlays."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow
from torch import nn

from data_prep.simulate.lumbar import LumbarSettings, simulate_lumbar
from grn_monai.errors import find_input_error
from grn_monai.zoo import read_metadata
from tests.bundles.conftest import ROOT, run, workflow
from tests.bundles.contract import read_history, same_grid
from tests.bundles.test_resume import differences

BUNDLE = "ct_lumbar_muscle"
CONFIGS = ROOT / "bundles" / BUNDLE / "configs"
SMALL: dict[str, Any] = {"slice_size": [32, 32], "device": "cpu"}
TRAIN: dict[str, Any] = {**SMALL, "batch_size": 4, "epochs": 2}


@pytest.fixture(scope="module")
def ct_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    settings = LumbarSettings(modality="ct", split=(2, 1, 1), shape=(48, 48, 4), spacing_mm=(7.5, 7.5, 40.0), seed=1)
    simulate_lumbar(folder, settings, workers=1, progress=False)
    return folder


class Trained:
    """A short training with some overlays, made when it is first asked for."""

    def __init__(self, cohort: Path, factory: pytest.TempPathFactory) -> None:
        self.cohort, self.factory, self.made = cohort, factory, dict[tuple[str, ...], Path]()

    def __call__(self, *overlays: str) -> Path:
        if overlays not in self.made:
            self.made[overlays] = self.factory.mktemp("run")
            extra = {"base_channels": 4, "batch_size": 8, "epochs": 1} if "grn_plus" in overlays else {}
            options = {**TRAIN, **extra, "dataset_dir": str(self.cohort), "output_dir": str(self.made[overlays])}
            run(BUNDLE, "train", *overlays, **options)
        return self.made[overlays]


@pytest.fixture(scope="module")
def trained_ct(ct_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    return Trained(ct_cohort, tmp_path_factory)


def evaluate(folder: Path, cohort: Path, *overlays: str, **options: Any) -> None:
    options = {**SMALL, "dataset_dir": str(cohort), "output_dir": str(folder), **options}
    run(BUNDLE, "train", *overlays, "evaluate", **options)


def infer(source: Path, out: Path, *overlays: str, **options: Any) -> ConfigWorkflow:
    options = {**SMALL, "dataset_dir": str(source), "output_dir": str(out), **options}
    return run(BUNDLE, "inference", *overlays, workflow_type="infer", **options)


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def network(config: str = "train", **options: Any) -> nn.Module:
    kind = "train" if config == "train" else "infer"
    built: nn.Module = workflow(BUNDLE, config, workflow_type=kind, **options).parser.get_parsed_content("network_def")
    return built


def numbers(module: nn.Module) -> int:
    """Weights and running statistics, as Keras counts them."""
    buffers = [b for name, b in module.named_buffers() if "num_batches" not in name]
    return sum(t.numel() for t in (*module.parameters(), *buffers))


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_the_first_block_has_the_published_numbers(upsampling: str) -> None:
    net = network(upsampling=upsampling)
    block = net.get_submodule("conv_0")
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    assert [numbers(m) for m in block.modules() if isinstance(m, kinds)] == [160, 64, 2320, 64]
    assert [type(m) for m in block.modules() if not list(m.children())] == [
        *(nn.Conv2d, nn.BatchNorm2d, nn.Dropout, nn.ReLU),
        *(nn.Conv2d, nn.BatchNorm2d, nn.Dropout, nn.ReLU),
    ]
    encoder = [net.get_submodule(f"conv_{0}"), *(net.get_submodule(f"down_{i}") for i in range(1, 5))]
    widths = [[m for m in part.modules() if isinstance(m, nn.Conv2d)][-1].out_channels for part in encoder]
    assert widths == [16, 32, 64, 128, 256]
    assert sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) == 4
    transposed = sum(isinstance(m, nn.ConvTranspose2d) for m in net.modules())
    assert transposed == (4 if upsampling == "transposed" else 0)
    assert sum(isinstance(m, nn.Upsample) for m in net.modules()) == 4 - transposed
    # Inference has no dropout; the weights are the same.
    assert list(network("inference", upsampling=upsampling).state_dict()) == list(net.state_dict())


@pytest.mark.parametrize(
    "configs", [("train",), ("train", "evaluate"), ("train", "grn_plus"), ("inference",), ("inference", "sge")]
)
def test_properties_are_complete(configs: tuple[str, ...], ct_cohort: Path, tmp_path: Path) -> None:
    kind = "train" if "train" in configs else "infer"
    options = {**SMALL, "dataset_dir": str(ct_cohort), "output_dir": str(tmp_path)}
    assert workflow(BUNDLE, *configs, workflow_type=kind, **options).check_properties() == []


def test_metadata_fits_the_network() -> None:
    content = read_metadata(CONFIGS / "metadata.json")
    pred = content["network_data_format"]["outputs"]["pred"]
    out = network("inference").eval()(torch.zeros(1, 1, 64, 32))
    assert out.shape == (1, pred["num_channels"], 64, 32)


def test_defaults_are_those_of_the_paper() -> None:
    train = yaml.safe_load((CONFIGS / "train.yaml").read_text())
    names = ("epochs", "patience", "batch_size", "min_learning_rate", "validation_fraction", "slice_size")
    assert [train[name] for name in names] == [300, 100, 15, 4e-5, 0.1, [256, 256]]


def test_a_checkpoint_knows_every_option_that_changes_the_training() -> None:
    train = yaml.safe_load((CONFIGS / "train.yaml").read_text())
    options = list(train)[list(train).index("device") + 1 : list(train).index("resume")]
    free = {"epochs", "val_interval", "patience", "num_workers", "compile", "sge"}  # sge: of evaluation
    identity = next(h["identity"] for h in train["train"]["handlers"] if "identity" in h)
    assert set(options) - free == set(identity) - {"data"}


def test_training_leaves_models_history_and_record(trained_ct: Callable[..., Path]) -> None:
    folder = trained_ct()
    rows = read_history(folder)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 < float(row["train_loss"]) < 1 and 0 < float(row["val_dice_loss"]) < 1 for row in rows)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "completed"
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert saved["modules"]["schedule"]["0"]["last_epoch"] == 2
    assert saved["modules"]["schedule"]["0"]["min_lrs"] == [4e-5]
    model = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert model["options"]["hu_window"] == "[-160, 240]"


def test_a_resumed_run_equals_an_uninterrupted_one(
    trained_ct: Callable[..., Path], ct_cohort: Path, tmp_path: Path
) -> None:
    options = {**TRAIN, "dataset_dir": str(ct_cohort), "output_dir": str(tmp_path)}
    run(BUNDLE, "train", **{**options, "epochs": 1})
    run(BUNDLE, "train", **options)
    assert [row["epoch"] for row in read_history(tmp_path)] == ["1", "2"]
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (trained_ct(), tmp_path)]
    assert differences(*states) == []
    with pytest.raises(RuntimeError) as info:
        run(BUNDLE, "train", **options, hu_window=[-100, 200])
    assert "hu_window '[-160, 240]', now '[-100, 200]'" in str(find_input_error(info.value))


def test_a_cohort_without_validation_holds_subjects_out(ct_cohort: Path, tmp_path: Path) -> None:
    content = json.loads((ct_cohort / "dataset.json").read_text())
    content["training"] += content.pop("validation")
    for section in ("training", "test"):
        for item in content[section]:
            item.update({key: str(ct_cohort / item[key]) for key in ("image", "label")})
    (tmp_path / "mine.json").write_text(json.dumps({**content, "validation": []}))
    options = {**TRAIN, "epochs": 1, "dataset_dir": str(tmp_path), "split": "mine.json", "output_dir": str(tmp_path)}
    parser = run(BUNDLE, "train", **options).parser
    lists = [parser.get_parsed_content(f"{part}#dataset").data for part in ("train", "validate")]
    subjects = [{item["subject"] for item in items} for items in lists]
    assert [len(s) for s in subjects] == [2, 1]
    assert not subjects[0] & subjects[1]


def test_evaluation_scores_saves_and_draws(trained_ct: Callable[..., Path], ct_cohort: Path, tmp_path: Path) -> None:
    evaluate(trained_ct(), ct_cohort, eval_dir=str(tmp_path))
    item = json.loads((ct_cohort / "dataset.json").read_text())["test"][0]
    image, truth = (nib.load(ct_cohort / item[key]) for key in ("image", "label"))
    prediction = nib.load(tmp_path / "predictions" / Path(item["image"]).name.replace(".nii.gz", "_seg.nii.gz"))
    assert same_grid(Path(prediction.get_filename()), Path(image.get_filename()))
    a, b = (np.asanyarray(x.dataobj) > 0 for x in (prediction, truth))
    [row] = table(tmp_path / "muscles.csv")
    assert row["muscle"] == "lumbar muscle"
    assert float(row["dice"]) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=1e-5)
    voxel = 7.5 * 7.5 * 40 / 1000
    assert float(row["truth_volume_ml"]) == pytest.approx(b.sum() * voxel, rel=1e-4)
    [found] = table(tmp_path / "found.csv")
    assert float(found["lumbar muscle (ml)"]) == pytest.approx(a.sum() * voxel, rel=1e-4)
    assert json.loads((tmp_path / "metrics.json").read_text())
    for name in ("curves.png", f"overlays/{item['scan']}.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_grn_plus_scores_both_modes_and_serves(
    trained_ct: Callable[..., Path], ct_cohort: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained_ct("grn_plus"), tmp_path / "run")
    folder = tmp_path / "run"
    [row] = read_history(folder)
    assert {"train_loss", "stage1_loss", "val_dice_loss", "val_dice_loss_sge"} <= set(row)
    for sge, name in ((True, "evaluation_sge"), (False, "evaluation")):
        evaluate(folder, ct_cohort, "grn_plus", base_channels=4, sge=sge, surface_distances=False)
        assert table(folder / name / "muscles.csv")
        options = {"base_channels": 4, "sge": sge}
        model = folder / "models" / ("model.pt" if sge else "model_raw.pt")
        infer(ct_cohort, tmp_path / name, "sge", ckpt_path=str(model), **options)
        [file] = (tmp_path / name).glob("*_seg.nii.gz")
        scored = folder / name / "predictions" / file.name
        np.testing.assert_array_equal(*(np.asanyarray(nib.load(f).dataobj) for f in (file, scored)))
    with pytest.raises(RuntimeError) as info:
        infer(ct_cohort, tmp_path / "x", ckpt_path=str(folder / "models" / "model.pt"))
    assert "weights of another network" in str(find_input_error(info.value))


def test_five_classes(trained_ct: Callable[..., Path], ct_cohort: Path, tmp_path: Path) -> None:
    folder = trained_ct("autochthon_iliopsoas")
    evaluate(folder, ct_cohort, "autochthon_iliopsoas", eval_dir=str(tmp_path), surface_distances=False)
    names = ["autochthon left", "autochthon right", "iliopsoas left", "iliopsoas right"]
    assert [row["muscle"] for row in table(tmp_path / "muscles.csv")] == names
    [file] = (tmp_path / "predictions").glob("*.nii.gz")
    assert set(np.unique(np.asanyarray(nib.load(file).dataobj))) <= set(range(5))
    with pytest.raises(RuntimeError) as info:
        infer(ct_cohort, tmp_path / "x", ckpt_path=str(folder / "models" / "model.pt"))
    assert "trained with out_channels 5; expected out_channels 1" in str(find_input_error(info.value))


def test_five_classes_by_grn_plus(trained_ct: Callable[..., Path]) -> None:
    state = torch.load(trained_ct("autochthon_iliopsoas", "grn_plus") / "models" / "model.pt", weights_only=True)
    assert state["model"]["segmentor.final_conv.weight"].shape[0] == 5


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"upsampling": "nearest"}, "upsampling: found 'nearest'"),
        ({"hu_window": [240, -160]}, "hu_window: found [240, -160]"),
        ({"slice_size": [8, 8]}, "slice_size"),
        ({"batch_size": 1}, "batch_size: found 1; expected at least 2"),
        ({"label_values": {"1": 7}}, "class 7; expected classes 0 to 4"),
        ({"modality": "MR"}, "as of a CT; expected an MR"),
    ],
)
def test_bad_options_are_named(bad: dict[str, Any], words: str, ct_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises((RuntimeError, ValueError, KeyError)) as info:
        run(BUNDLE, "train", **{**TRAIN, "dataset_dir": str(ct_cohort), "output_dir": str(tmp_path), **bad})
    assert words in str(find_input_error(info.value))
    assert not list(tmp_path.rglob("*.pt"))


def test_bad_scans_are_listed_and_the_others_are_segmented(
    trained_ct: Callable[..., Path], ct_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    image = nib.load(next((ct_cohort / "images").glob("*.nii.gz")))
    array = np.asanyarray(image.dataobj)
    nib.save(image, scans / "b_good.nii.gz")
    nib.save(nib.Nifti1Image(array + np.int16(1024), image.affine), scans / "a_unscaled.nii.gz")
    nib.save(nib.Nifti1Image(array, np.diag([0.001, 0.001, 0.005, 1])), scans / "c_metres.nii.gz")
    with pytest.raises((SystemExit, RuntimeError)):
        infer(scans, tmp_path / "out", ckpt_path=str(trained_ct() / "models" / "model.pt"))
    text = capsys.readouterr().err
    assert "2 of 3 scans failed" in text
    assert "a_unscaled.nii.gz: found values from" in text
    assert "c_metres.nii.gz: found a voxel size of 0.001 × 0.001 × 0.005 mm" in text
    assert [p.name for p in (tmp_path / "out").glob("*.nii.gz")] == ["b_good_seg.nii.gz"]


def test_nothing_found_is_said_in_the_log_and_in_a_row(
    ct_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = network("inference")
    nn.init.zeros_(net.get_parameter("final_conv.weight"))
    nn.init.constant_(net.get_parameter("final_conv.bias"), -5)
    torch.save({"model": net.state_dict()}, tmp_path / "none.pt")
    infer(ct_cohort, tmp_path / "out", ckpt_path=str(tmp_path / "none.pt"))
    [row] = table(tmp_path / "out" / "found.csv")
    assert row["status"] == "nothing found"
    assert float(row["lumbar muscle (ml)"]) == 0
    assert f"{row['scan']}: nothing found" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 1
