"""A training killed in the middle of an epoch and started again ends with the weights of an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bundles.conftest import BUNDLES, EXTRA, ROOT, SMALL
from tests.bundles.contract import read_history


def train(bundle: str, cohort: Path, out: Path, *overlays: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    files = ",".join(f"'{name}'" for name in ("configs/train.yaml", *map(str, overlays)))
    options = {**SMALL, **EXTRA[bundle], **options, "dataset_dir": cohort, "output_dir": out}
    pairs = [text for k, v in options.items() for text in (f"--{k}", str(v).replace(" ", ""))]
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", f"[{files}]", *pairs],
        cwd=ROOT / "bundles" / bundle,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Where two checkpoints are not bit-identical."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for k in a for d in differences(a[k], b[k], f"{place}/{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{place}/{i}")]
    equal = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
    return [] if equal else [place]


@pytest.mark.parametrize("bundle", BUNDLES)
def test_killed_and_resumed_equals_uninterrupted(bundle: str, cohort: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = train(bundle, cohort, whole)
    assert done.returncode == 0, done.stderr[-2000:]
    length = int(read_history(whole)[0]["iteration"])
    assert length >= 4

    overlay = tmp_path / "kill.yaml"
    overlay.write_text(
        f'"+train#handlers":\n- _target_: tests.bundles.kill.KillAt\n  iteration: {length + length // 2}\n'
    )
    killed = train(bundle, cohort, parts, overlay)
    assert killed.returncode == -signal.SIGKILL
    assert [row["epoch"] for row in read_history(parts)] == ["1"]
    assert torch.load(parts / "checkpoint.pt", weights_only=True)["trainer"]["iteration"] == length

    done = train(bundle, cohort, parts)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resumed from" in done.stdout + done.stderr
    states = [torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, parts)]
    expected = {"unet": 1, "grn_plus": 2, "grn_sel": 3, "grn_ssl": 3}
    optimizers = states[0]["optimizers"]
    assert len(optimizers) == next((n for name, n in expected.items() if name in bundle), 1)
    assert all(state["state"] for state in optimizers.values())
    assert differences(*states) == []
    for name in ("model.pt", "model_raw.pt"):
        if (whole / "models" / name).is_file():
            models = [torch.load(folder / "models" / name, weights_only=True) for folder in (whole, parts)]
            assert differences(*models) == []
    curves = [[{k: v for k, v in r.items() if k != "seconds"} for r in read_history(f)] for f in (whole, parts)]
    assert curves[0] == curves[1]


def test_the_comparison_sees_a_changed_weight() -> None:
    a = {"x": [torch.zeros(2), {"y": 1}]}
    assert differences(a, {"x": [torch.zeros(2), {"y": 1}]}) == []
    assert differences(a, {"x": [torch.tensor([0.0, 1e-8]), {"y": 2}]}) == ["/x/0", "/x/1/y"]
