"""Small files of many kinds, as labs have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from data_prep.cli import main

AFFINE = np.array([[-0.2, 0, 0, 3.1], [0, 0, 0.15, 0.1], [0, 0.25, 0, -2.0], [0, 0, 0, 1]])


def speckle(shape: tuple[int, int, int] = (12, 10, 16), seed: int = 0) -> np.ndarray:
    """Grey values 0 to 255 that vary."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def layers(shape: tuple[int, int, int] = (12, 10, 16)) -> np.ndarray:
    """Labels 0 to 6 in order along depth."""
    depth = np.arange(shape[2]) * 7 // shape[2]
    return np.broadcast_to(depth, shape).astype(np.uint8)


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, Path]]:
    """Runs the command line on tmp_path/src and returns exit code, what it printed, and the cohort's folder."""

    def run(*options: Any, src: Path | None = None, out: str = "out") -> tuple[int, str, Path]:
        source = src if src is not None else tmp_path / "src"
        code = main(["convert", str(source), str(tmp_path / out), *map(str, options)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err, tmp_path / out

    return run
