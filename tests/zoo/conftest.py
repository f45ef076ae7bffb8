"""The trained bundles of tests/bundles, and the package as it is when installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.bundles.conftest import ROOT, cohort, trained

__all__ = ["cohort", "trained"]  # fixtures of the tests here

GRN_PLUS = "us_layers_grn_plus"
BUNDLE = ROOT / "bundles" / GRN_PLUS


def model_of(trained: dict[str, Path], bundle: str = GRN_PLUS) -> Path:
    return trained[bundle] / "models" / "model.pt"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build in the tree would leave things there, and take old ones along."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "grn_monai", folder / "grn_monai", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder / "dist")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder)], check=True)
    return next((folder / "dist").glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed package."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return folder


def in_fresh_process(installed: Path, cwd: Path, *arguments: str) -> str:
    """What a Python that finds only the installed package prints; it has to end well."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def spoiled(tmp_path: Path) -> Path:
    """A copy of a bundle that a test may spoil."""
    return Path(shutil.copytree(BUNDLE, tmp_path / "copy" / GRN_PLUS))
