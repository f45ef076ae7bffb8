"""What every bundle has to do, run through monai.bundle; inherited by the tests of each."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from grn_monai.errors import InputError, find_input_error
from tests.bundles.conftest import EXTRA, ROOT, SMALL, run, workflow

PHANTOM = ROOT / "tests" / "data" / "plus" / "SpinePhantomFreehandReconstructed.mha"
SLICES = {"slice_size": SMALL["slice_size"], "device": "cpu"}


def read_history(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def same_grid(a: Path, b: Path) -> bool:
    first, second = sitk.ReadImage(str(a)), sitk.ReadImage(str(b))
    return first.GetSize() == second.GetSize() and all(
        np.allclose(getattr(first, f)(), getattr(second, f)(), atol=1e-4)
        for f in ("GetSpacing", "GetOrigin", "GetDirection")
    )


class BundleContract:
    bundle: str
    checkpoint = "model.pt"
    highest_loss = 1.0

    @property
    def extra(self) -> dict[str, Any]:
        return EXTRA[self.bundle]

    @pytest.mark.parametrize(
        ("configs", "kind"),
        [(("train",), "train"), (("train", "evaluate"), "train"), (("inference",), "infer")],
    )
    def test_properties_are_complete(self, configs: tuple[str, ...], kind: str, cohort: Path, tmp_path: Path) -> None:
        options = {"dataset_dir": str(cohort), "output_dir": str(tmp_path), **self.extra}
        flow = workflow(self.bundle, *configs, workflow_type=kind, **options)
        assert flow.check_properties() == []

    def test_training_leaves_models_history_and_record(self, trained: dict[str, Path]) -> None:
        folder = trained[self.bundle]
        rows = read_history(folder)
        assert [r["epoch"] for r in rows] == ["1", "2"]
        assert all(0 < float(r["train_loss"]) < self.highest_loss and 0 < float(r["val_dice_loss"]) < 1 for r in rows)
        record = json.loads((folder / "run.json").read_text())
        assert record["status"] == "completed"
        assert record["seed"] == 0
        assert record["versions"]["monai"] == "1.6.1"
        assert record["resolved"]["fraction"] == self.extra.get("fraction", 1.0)
        assert record["config"]["slice_size"] == [32, 32]
        assert list((folder / "tensorboard").glob("events*"))
        for name in ("models/model.pt", "checkpoint.pt"):
            torch.load(folder / name, weights_only=True)
        assert not list(folder.rglob(".*"))

    def test_a_finished_run_is_not_trained_again_but_can_go_on(
        self, trained: dict, cohort: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(trained[self.bundle], tmp_path / "run")
        options = {"dataset_dir": str(cohort), "output_dir": str(tmp_path / "run"), **SMALL, **self.extra}
        run(self.bundle, "train", **{**options, "epochs": 3})
        rows = read_history(tmp_path / "run")
        assert [r["epoch"] for r in rows] == ["1", "2", "3"]
        assert json.loads((tmp_path / "run" / "run.json").read_text())["first_epoch"] == 3

    def test_overrides_reach_the_training(self, cohort: Path, tmp_path: Path) -> None:
        options = {**SMALL, **self.extra, "epochs": 1, "batch_size": 4, "fraction": 0.5, "seed": 1}
        flow = run(self.bundle, "train", dataset_dir=str(cohort), output_dir=str(tmp_path), **options)
        trainer = flow.parser.get_parsed_content("train#trainer")
        assert trainer.state.epoch == 1
        assert trainer.state.batch["image"].shape[1:] == (1, 32, 32)
        assert trainer.state.epoch_length == (20 + 16) // 4  # one of two subjects, both planes
        assert str(trainer.state.device) == "cpu"

    def test_evaluation_scores_every_kind_and_saves_predictions(
        self, trained: dict, cohort: Path, tmp_path: Path
    ) -> None:
        run(
            self.bundle,
            "train",
            "evaluate",
            dataset_dir=str(cohort),
            output_dir=str(trained[self.bundle]),
            eval_dir=str(tmp_path),
            **SLICES,
            **{k: v for k, v in self.extra.items() if k != "fraction"},  # evaluation does not ask for it
        )
        metrics = json.loads((tmp_path / "metrics.json").read_text())
        assert {"slice", "volume", "decoded", "sagittal", "transverse"} <= set(metrics)
        assert metrics["slice"]["n"] == 2 * (20 + 16)
        assert metrics["decoded"]["n"] == 2
        assert all(0 <= v <= 1 for v in metrics["decoded"]["dice"].values())
        for item in json.loads((cohort / "dataset.json").read_text())["test"]:
            image = cohort / item["image"]
            saved = tmp_path / "predictions" / image.name.replace(".nii.gz", "_seg.nii.gz")
            assert same_grid(saved, image)
            assert nib.load(saved).get_data_dtype() == np.uint8

    def test_false_on_the_command_line_is_false(self, trained: dict, cohort: Path, tmp_path: Path) -> None:
        """monai.bundle hands `--resume false` over as a text."""
        shutil.copytree(trained[self.bundle], tmp_path / "run")
        options = {"dataset_dir": str(cohort), "output_dir": str(tmp_path / "run"), **SMALL, **self.extra}
        run(self.bundle, "train", **{**options, "epochs": 1}, resume="false", compile="false")
        assert [r["epoch"] for r in read_history(tmp_path / "run")] == ["1"]

    def test_validation_every_second_epoch(self, cohort: Path, tmp_path: Path) -> None:
        options = {"dataset_dir": str(cohort), "output_dir": str(tmp_path), **SMALL, **self.extra}
        run(self.bundle, "train", **options, val_interval=2)
        assert [bool(r["val_dice_loss"]) for r in read_history(tmp_path)] == [False, True]

    def test_a_changed_cohort_is_not_resumed_in_silence(self, trained: dict, cohort: Path, tmp_path: Path) -> None:
        shutil.copytree(trained[self.bundle], tmp_path / "run")
        shutil.copytree(cohort, tmp_path / "cohort")  # the same files at another place and time
        options = {"dataset_dir": str(tmp_path / "cohort"), "output_dir": str(tmp_path / "run"), **SMALL, **self.extra}
        with pytest.raises(RuntimeError) as info:
            run(self.bundle, "train", **options)
        assert "checkpoint of another run (data" in str(find_input_error(info.value))

    def test_another_slice_size_than_in_training_is_refused(self, trained: dict, cohort: Path, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError) as info:
            self.inference(trained, cohort, tmp_path, slice_size=[64, 64])
        assert "trained with slice_size [32, 32]" in str(find_input_error(info.value))

    def inference(self, trained: dict, source: Path, out: Path, *overlays: str, **options: Any) -> Any:
        checkpoint = trained[self.bundle] / "models" / self.checkpoint
        options = {"ckpt_path": str(checkpoint), **SLICES, **self.extra, **options}
        return run(
            self.bundle,
            "inference",
            *overlays,
            workflow_type="infer",
            dataset_dir=str(source),
            output_dir=str(out),
            **options,
        )

    def test_inference_on_a_real_volume_keeps_its_geometry(self, trained: dict, tmp_path: Path) -> None:
        self.inference(trained, PHANTOM, tmp_path)
        saved = tmp_path / "SpinePhantomFreehandReconstructed_seg.nii.gz"
        assert same_grid(saved, PHANTOM)
        values = np.unique(np.asanyarray(nib.load(saved).dataobj))
        assert set(values.tolist()) <= set(range(7))

    def test_decoded_layers_are_in_order(self, trained: dict, cohort: Path, tmp_path: Path) -> None:
        self.inference(trained, cohort, tmp_path)
        files = sorted(tmp_path.glob("*_seg.nii.gz"))
        assert len(files) == 2
        for file in files:
            lines = np.asanyarray(nib.load(file).dataobj).reshape(-1, 40).astype(int)
            for line in lines:
                layers = line[line > 0]
                assert (np.diff(layers) >= 0).all()
                inside = np.flatnonzero(line)
                assert not len(inside) or (np.diff(inside) == 1).all()

    def test_a_bad_scan_is_listed_and_the_others_are_segmented(
        self, trained: dict, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scans = tmp_path / "scans"
        scans.mkdir()
        good = next((cohort / "images").glob("*.nii.gz"))
        (scans / "b_good.nii.gz").write_bytes(good.read_bytes())
        (scans / "a_empty.nii.gz").touch()
        (scans / "c_cut.nii.gz").write_bytes(good.read_bytes()[:2000])
        nib.save(nib.Nifti1Image(np.zeros((4, 4), np.uint8), np.eye(4)), scans / "d_flat.nii.gz")
        with pytest.raises((SystemExit, RuntimeError)) as stop:
            self.inference(trained, scans, tmp_path / "out")
        error: BaseException | None = stop.value
        while error is not None and not isinstance(error, SystemExit):
            error = error.__cause__
        assert isinstance(error, SystemExit)
        assert error.code == 1
        text = capsys.readouterr().err
        assert "3 of 4 scans failed" in text
        assert all(name in text for name in ("a_empty.nii.gz", "c_cut.nii.gz", "d_flat.nii.gz"))
        assert [p.name for p in (tmp_path / "out").glob("*.nii.gz")] == ["b_good_seg.nii.gz"]

    def test_missing_input_and_missing_model_are_clear(self, trained: dict, cohort: Path, tmp_path: Path) -> None:
        for source, options, words in (
            (tmp_path / "nothing.mha", {}, "nothing.mha: found no such file"),
            (cohort, {"ckpt_path": str(tmp_path / "no.pt")}, "no.pt: found no file"),
        ):
            with pytest.raises((InputError, RuntimeError)) as info:
                self.inference(trained, source, tmp_path / "out", **options)
            cause = find_input_error(info.value)
            assert isinstance(cause, InputError)
            assert words in str(cause)

    def test_metadata_fits_the_network(self, tmp_path: Path) -> None:
        metadata = json.loads((ROOT / "bundles" / self.bundle / "configs" / "metadata.json").read_text())
        flow = workflow(
            self.bundle, "inference", workflow_type="infer", **self.extra, device="cpu", output_dir=str(tmp_path)
        )
        network = flow.parser.get_parsed_content("network_def").eval()
        image = metadata["network_data_format"]["inputs"]["image"]
        pred = metadata["network_data_format"]["outputs"]["pred"]
        out = network(torch.zeros(1, image["num_channels"], 64, 32))
        assert out.shape == (1, pred["num_channels"], 64, 32)
        assert len(pred["channel_def"]) == pred["num_channels"]
