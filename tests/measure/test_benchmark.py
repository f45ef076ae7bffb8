"""benchmarks.measurements: errors that are known beforehand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import measurements
from tests.measure.test_folders import folders, save
from tests.metrics.layered import layered_truth, perturbed

__all__ = ["folders"]  # a fixture of the test below

SPACING = (0.2, 0.25, 0.15)


def test_errors_of_a_layer_that_grew_by_a_voxel() -> None:
    truth = np.zeros((6, 7, 30), np.uint8)
    truth[..., 4:10], truth[..., 10:] = 1, 2
    prediction = truth.copy()
    prediction[..., 10] = 1
    prediction[0, 0] = 0  # and was not found once
    row = measurements.errors_of_scan(prediction, truth, SPACING, 1)
    assert row["truth"] == row["truth_normal"] == pytest.approx(0.9)
    assert row["a_line_error"] == pytest.approx(0.15)
    assert row["normal_error"] == pytest.approx(0.15)
    assert row["a_line_each"] == pytest.approx((41 * 0.15 + 0.9) / 42)
    muscle = measurements.errors_of_scan(prediction, truth, SPACING, 2)
    assert all(np.isnan(value) for value in muscle.values()), "cut by the field of view"


def test_summary() -> None:
    rows = [{"truth": 1.0, **{f"{m}_{k}": e for m in ("a_line", "normal") for k in ("error", "each")}}
            for e in (0.1, -0.3, float("nan"))]  # fmt: skip
    found = measurements.summarise(rows, ["a", "b", "c"])["a_line"]
    assert found["n"] == 2
    assert found["bias_mm"] == pytest.approx(-0.1)
    assert found["mae_mm"] == pytest.approx(0.2)
    assert found["sd_mm"] == pytest.approx(np.std([0.1, -0.3], ddof=1))


def test_command(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, path in enumerate(sorted((folders[0] / "labels").iterdir())):
        save(tmp_path / "perfect" / path.name, layered_truth(i) if i else np.zeros((2, 2, 2), np.uint8))
    cohort = json.loads((folders[0] / "dataset.json").read_text())
    order = [item["scan"] for item in cohort["test"]]
    for i, scan in enumerate(order[1:], 1):
        save(tmp_path / "perfect" / f"{scan}.nii.gz", layered_truth(i))
        save(folders[1] / f"{scan}_seg.nii.gz", perturbed(layered_truth(i), i))
    save(tmp_path / "perfect" / f"{order[0]}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    arguments = ["--cohort", str(folders[0]), "--predictions", f"raw={folders[1]}", f"perfect={tmp_path / 'perfect'}"]
    monkeypatch.setattr(sys, "argv", ["measurements", *arguments, "--threads", "1", "--out", str(tmp_path / "m.json")])
    measurements.main()
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["benchmark"] == "measurements"
    assert found["simulated"] is True
    assert (found["scans"], found["subjects"]) == (7, 2)
    assert list(found["failures"]) == [order[0]]
    for layer in list(found["layers"]["perfect"].values())[:5]:
        assert layer["a_line"]["mae_mm"] == layer["normal"]["each_a_line_mae_mm"] == 0
    assert found["mean_above_muscle"]["raw"]["a_line"]["each_a_line_mae_mm"] > 0
