"""Simulated scans whose true fat share is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.simulate.lumbar import LumbarSettings, simulate_lumbar
from grn_monai.measure.muscle.folders import measure_muscle_folders


@pytest.mark.parametrize(("modality", "step"), [("ct", 2.8), ("mri", 2.4)])
def test_fat_is_near_the_truth(modality: str, step: float, tmp_path: Path) -> None:
    settings = LumbarSettings(modality=modality, split=(4, 0, 1), shape=(128, 128, 6), spacing_mm=(step, step, 12))
    simulate_lumbar(tmp_path / "c", settings, workers=1, progress=False)
    truth = json.loads((tmp_path / "c/simulation.json").read_text())["scans"]
    result = measure_muscle_folders(tmp_path / "c", None, tmp_path / "out", section="all", pictures=False)
    assert not result.failures
    pairs = [
        (truth[scan["scan"]]["muscles"][muscle["name"]], muscle)
        for scan in result.content["scans"]
        for muscle in scan["muscles"]
        if muscle["volume_ml"] is not None
    ]
    real = np.array([100 * t["fat_share"] for t, _ in pairs])
    found = np.array([m["fat_percent"] for _, m in pairs])
    assert len(pairs) >= 15
    assert np.corrcoef(real, found)[0, 1] > 0.9
    assert np.abs(real - found).mean() < 6
    for t, m in pairs:
        assert m["volume_ml"] == pytest.approx(t["volume_ml"], rel=0.1)
    assert not any("swapped" in m["check"] for _, m in pairs)
