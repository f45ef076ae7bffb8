"""What the tests of the datastore on a folder share. Needs MONAI Label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monailabel.config import Settings

from grn_monai.monailabel.studies import LayersDatastore, make_studies

SHAPE = (6, 5, 4)
AFFINE = np.array([[0.2, 0, 0, -3], [0, 0, 0.3, 4], [0, -0.2, 0, 7], [0, 0, 0, 1]], float)


def two_scans(folder: Path) -> LayersDatastore:
    """A folder with the scans a and b, and its datastore."""
    folder.mkdir()
    grey = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(grey, AFFINE), folder / f"{name}.nii.gz")
    return studies(folder)


def studies(folder: Path, **more: Any) -> LayersDatastore:
    return make_studies(str(folder), Settings(MONAI_LABEL_DATASTORE_AUTO_RELOAD=False, **more))


def values(top: int = 6, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top + 1, SHAPE).astype(np.uint8)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


def final(store: LayersDatastore, image: str = "a") -> np.ndarray:
    return np.asarray(nib.load(store.get_label_uri(image, "final")).dataobj)


def label_files(store: LayersDatastore) -> list[str]:
    return sorted(p.name for p in Path(store._datastore.label_path(None)).rglob("*") if p.is_file())
