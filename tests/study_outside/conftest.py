"""A small cohort and a study on it."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.labels import LAYER_NAMES
from tests.metrics.layered import layered_truth

ROOT = Path(__file__).parents[2]
SHAPE = (32, 24, 40)
AFFINE = np.array([[-0.3, 0, 0, -5.0], [0, 0, 0.2, 0.1], [0, 0.25, 0, 7.0], [0, 0, 0, 1]])
SUBJECTS = {"training": "abcd", "validation": "v", "test": "xy"}


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven subjects of one scan each; depth is the third axis, along which the first layer comes first."""
    folder = tmp_path_factory.mktemp("study") / "cohort"
    content: dict = {"labels": {str(k): v for k, v in LAYER_NAMES.items()}, "modality": {"0": "US"}}
    for section, subjects in SUBJECTS.items():
        content[section] = []
        for subject in subjects:
            truth = layered_truth(ord(subject), SHAPE)
            noise = np.random.default_rng(ord(subject)).integers(0, 20, SHAPE)
            save(folder / f"images/{subject}_1.nii.gz", (truth * 30 + noise).astype(np.uint8))
            save(folder / f"labels/{subject}_1.nii.gz", truth)
            paths = {"image": f"images/{subject}_1.nii.gz", "label": f"labels/{subject}_1.nii.gz"}
            content[section].append({**paths, "subject": subject, "scan": f"{subject}_1"})
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def study(cohort: Path, tmp_path: Path) -> Path:
    """A study with two fractions and two seeds on that cohort."""
    file = tmp_path / "study.yaml"
    file.write_text(
        f"name: tiny\ncohort: {cohort}\nbundles: {ROOT / 'bundles'}\noutput: out\nseeds: [0, 1]\n"
        "fractions: [0.5, 1.0]\nmethods:\n  unet: {title: U-Net, bundle: us_layers_supervised}\n"
    )
    return file
