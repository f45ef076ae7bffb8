"""nnU-Net itself, where it is installed: `make setup-nnunet`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.data import read_volume
from grn_monai.errors import InputError
from grn_monai.metrics import dice_per_slice
from grn_monai.study.outside import nnunet
from grn_monai.study.outside.nnunet_tools import find_nnunet

try:
    NNUNET: Path | None = find_nnunet()
except InputError:
    NNUNET = None

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NNUNET is None, reason="nnU-Net is not installed: make setup-nnunet"),
]


def test_train_predict_score_and_go_on(study: Path, cohort: Path) -> None:
    own = ["--fraction", "0.5", "--seed", "0", "--device", "cpu", "--threads", "1", "--workers", "1"]
    own += ["--preset", "small", "--epochs", "2", "--iterations", "2", "--nnunet", str(NNUNET)]
    assert nnunet.main([str(study), *own]) == 0
    folder = study.parent / "out/outside/nnunet_2d_small/50pct/seed_0"
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "completed"
    assert record["nnunet"]["nnunetv2"]
    assert record["planned"]["batch_size"] == 4
    assert record["planned"]["normalization"] == ["ZScoreNormalization"]

    # The scores are those of the files that nnU-Net wrote.
    with open(folder / "evaluation/test_raw/slices.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if (row["scan"], row["plane"]) == ("x_1", "sagittal")]
    predicted = folder / "evaluation/test_raw/predictions/x_1.nii.gz"
    true = cohort / "labels/x_1.nii.gz"
    np.testing.assert_allclose(nib.load(predicted).affine, nib.load(true).affine, atol=1e-5)
    volumes = [read_volume(file, kind="label")[0].numpy() for file in (predicted, true)]
    expected = dice_per_slice(*volumes, "sagittal").mean(axis=1)
    np.testing.assert_allclose([float(row["dice_mean"]) for row in rows], expected, atol=1e-5)
    assert expected.mean() > 0  # it predicts something that is there

    fold = next((folder / "nnUNet_results").glob("*/*/fold_0"))
    assert not list(fold.glob("*.part"))
    log = max(fold.glob("training_log_*.txt")).read_text()
    assert log.count("Epoch time") == 2
    assert "1 training and 2 validation" not in log
    assert "2 training and 1 validation cases" in log

    # As after a kill at the end of the training: it goes on from the checkpoint, and trains no epoch twice.
    for stage in ("training", "predict_test", "test_raw"):
        del record["stages"][stage]
    (folder / "run.json").write_text(json.dumps(record))
    assert nnunet.main([str(study), *own]) == 0
    assert max(fold.glob("training_log_*.txt")).read_text().count("Epoch time") == 0
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
