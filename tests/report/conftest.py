"""A small run folder as trainings and evaluators leave it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.metrics import LayerEvaluation
from tests.metrics.layered import layered_truth, perturbed

SHAPE = (12, 10, 40)
SPACING = (0.2, 0.25, 0.15)
METHODS = {"unet": 2.5, "grn_plus": 1.5, "grn_plus_sge": 0.8}


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*SPACING, 1])), path)


def _write_run(folder: Path) -> None:
    rng = np.random.default_rng(0)
    evaluations = {name: LayerEvaluation() for name in METHODS}
    items = []
    for i, scan in enumerate(["a_1", "a_2", "b_1", "c_1"]):
        truth = layered_truth(i, SHAPE)
        image = (truth * 30 + rng.integers(0, 30, SHAPE)).astype(np.uint8)
        save(folder / f"cohort/images/{scan}.nii.gz", image)
        save(folder / f"cohort/labels/{scan}.nii.gz", truth)
        paths = {"image": f"images/{scan}.nii.gz", "label": f"labels/{scan}.nii.gz"}
        items.append({**paths, "subject": scan[0], "scan": scan})
        for k, (name, shift) in enumerate(METHODS.items()):
            sagittal, transverse, fused, decoded = (perturbed(truth, 100 * k + 10 * i + j, shift) for j in range(4))
            predictions = {
                "slice": {"sagittal": sagittal, "transverse": transverse},
                "volume": fused,
                "decoded": decoded,
            }
            evaluations[name].add(scan[0], scan, truth, predictions, SPACING)
            save(folder / f"evaluation/{name}/predictions/{scan}_seg.nii.gz", decoded)
        save(folder / f"evaluation/grn_plus_sge/predictions/{scan}_enhanced.nii.gz", image // 2 + 40)
    for name, evaluation in evaluations.items():
        evaluation.write(folder / "evaluation" / name)
    cohort = {"name": "simulated layers", "labels": {"0": "background"}, "training": [], "test": items}
    (folder / "cohort/dataset.json").write_text(json.dumps(cohort))
    for name in ("unet", "grn_plus"):
        (folder / name).mkdir()
        columns = ["epoch", "iteration", "train_loss", "val_dice_loss"]
        columns += ["stage1_loss", "grad_norm_generator", "val_dice_loss_sge"] if name == "grn_plus" else []
        rows = [[epoch, 10 * epoch, 1 / epoch, *[0.8 / epoch] * (len(columns) - 3)] for epoch in (1, 2, 3, 4)]
        rows[1][3] = ""  # an epoch without validation
        lines = [",".join(map(str, row)) for row in [columns, *rows]]
        (folder / name / "history.csv").write_text("\n".join(lines) + "\n")
        record = {"seed": 7, "command": ["run", "<training>"], "git": {"commit": "0123456789abcdef"}, "seconds": 90.0}
        (folder / name / "run.json").write_text(json.dumps(record))


@pytest.fixture(scope="session")
def _run_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "demo"
    _write_run(folder)
    return folder


@pytest.fixture
def run_dir(_run_template: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(_run_template, tmp_path / "demo"))
