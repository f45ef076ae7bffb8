"""What the tests of the datastore on a DICOM archive share. Needs MONAI Label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from monailabel.config import Settings

from grn_monai.data.volume import read_header
from grn_monai.monailabel.dicomweb import make_datastore
from tests.monailabel.orthanc import Orthanc


def store(server: Orthanc, tmp_path: Path, cache: str = "cache", **settings: Any) -> Any:
    options = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(tmp_path / cache), "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": 0}
    return make_datastore(server.url, Settings(**{**options, **settings}), frame_spacing=0.5)


def send(datastore: Any, files: list[Path]) -> None:
    for file in files:
        datastore.archive.store(file)


def some_labels(image: str | Path, out: Path, seed: int = 5) -> np.ndarray:
    """Random labels on the grid of an image; the first plane along each axis is left empty."""
    header = read_header(image)
    labels = np.random.default_rng(seed).integers(0, 7, header.shape).astype(np.uint8)
    labels[0], labels[:, 0], labels[:, :, 0] = 0, 0, 0
    nib.save(nib.Nifti1Image(labels, header.affine), out)
    return labels


def voxels(path: str | Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def segmentations(datastore: Any, folder: Path) -> list[pydicom.Dataset]:
    """What is in the archive, as pydicom reads it."""
    found = datastore.archive.find({"Modality": "SEG"})
    return [pydicom.dcmread(file) for s in found for file in datastore.archive.download(s, folder / s.uid)]
