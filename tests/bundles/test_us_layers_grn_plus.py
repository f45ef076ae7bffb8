"""The bundle contract for GRN+, and what only it has: SGE, two best models, the enhanced volume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from grn_monai.metrics.files import read_rows
from tests.bundles.conftest import ROOT, run
from tests.bundles.contract import PHANTOM, SLICES, BundleContract, read_history, same_grid


class TestGRNPlus(BundleContract):
    bundle = "us_layers_grn_plus"

    def test_history_has_both_stages_and_both_modes(self, trained: dict[str, Path]) -> None:
        rows = read_history(trained[self.bundle])
        names = ("stage1_loss", "grad_norm_generator", "grad_norm_segmentor", "val_dice_loss", "val_dice_loss_sge")
        assert all(float(row[name]) > 0 for row in rows for name in names)

    def test_both_best_models_hold_both_networks(self, trained: dict[str, Path]) -> None:
        for name in ("model.pt", "model_raw.pt"):
            state = torch.load(trained[self.bundle] / "models" / name, weights_only=True)["model"]
            assert {k.split(".")[0] for k in state} == {"generator", "segmentor"}

    def test_sge_and_raw_differ_and_sge_is_the_default(self, trained: dict[str, Path], tmp_path: Path) -> None:
        flow = self.inference(trained, PHANTOM, tmp_path / "sge")
        assert flow.parser.get_parsed_content("network_def").sge
        flow = self.inference(trained, PHANTOM, tmp_path / "raw", "no_sge")
        assert not flow.parser.get_parsed_content("network_def").sge
        one, two = (np.asanyarray(nib.load(next((tmp_path / d).glob("*_seg.nii.gz"))).dataobj) for d in ("sge", "raw"))
        assert (one != two).any()

    def test_switches_as_texts(self, trained: dict[str, Path], tmp_path: Path) -> None:
        flow = self.inference(trained, PHANTOM, tmp_path, sge="false", save_enhanced="false")
        assert not flow.parser.get_parsed_content("network_def").sge
        assert [p.name for p in tmp_path.glob("*.nii.gz")] == ["SpinePhantomFreehandReconstructed_seg.nii.gz"]

    def test_the_enhanced_volume_lies_on_the_scan(self, trained: dict[str, Path], tmp_path: Path) -> None:
        self.inference(trained, PHANTOM, tmp_path, save_enhanced=True)
        saved = tmp_path / "SpinePhantomFreehandReconstructed_enhanced.nii.gz"
        assert same_grid(saved, PHANTOM)
        assert nib.load(saved).get_data_dtype() == np.uint8

    def test_evaluation_tells_what_the_generator_does(
        self, trained: dict[str, Path], cohort: Path, tmp_path: Path
    ) -> None:
        def evaluate(name: str, *overlays: str, **options: str) -> Path:
            where = {"dataset_dir": str(cohort), "output_dir": str(trained[self.bundle])}
            options |= {"eval_dir": str(tmp_path / name), "surface_distances": "false"}
            run(self.bundle, "train", "evaluate", *overlays, **where, **SLICES, **self.extra, **options)
            return tmp_path / name

        folder = evaluate("sge")
        content = json.loads((folder / "enhancement.json").read_text())
        assert {"l1_percent", "layers", "regions", "boundaries", "inner", "histograms", "pictures"} <= set(content)
        assert content["n_scans"] == content["n_labelled"] == 2
        assert content["l1_percent"]["mean"] > 0
        assert {"cnr", "gcnr", "sharpness_per_mm"} <= set(content["boundaries"]["deep fascial membrane | muscle"])
        assert len(read_rows(folder / "enhancement.csv")) == 2 * (1 + 6 + 2 + 5 + 1)
        assert [entry["role"] for entry in content["pictures"]] == ["lowest", "lowest", "highest", "highest"]
        assert all((folder / entry["file"]).read_bytes().startswith(b"\x89PNG") for entry in content["pictures"])
        assert [p.name for p in (folder / "predictions").glob("*_enhanced*")] == []
        for other in (evaluate("raw", "no_sge"), evaluate("off", measure_enhancement="false")):
            assert (other / "metrics.json").exists()
            assert list(other.glob("enhancement*")) == []

    def test_a_changed_option_with_an_old_checkpoint_is_refused(
        self, trained: dict[str, Path], cohort: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(RuntimeError) as info:
            self.inference(trained, cohort, tmp_path, base_channels=6)
        assert "weights of another network" in str(info.getrepr(chain=True))


def test_command_line_ends_on_one_clear_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", "configs/train.yaml"]
    done = subprocess.run(
        [*command, "--dataset_dir", str(tmp_path / "none"), "--output_dir", str(tmp_path / "out")],
        cwd=ROOT / "bundles" / "us_layers_grn_plus",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "none" in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.pt"))
