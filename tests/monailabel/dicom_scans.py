"""DICOM scans to send to an archive: each with a study, a series and a patient of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.uid import generate_uid

from tests.data.readers.dicom_files import region, save_enhanced, save_series, save_ultrasound, series_affine

COSINES = (0.8, 0.6, 0, 0, 0, -1)
ORIGIN, SPACING = (-40.0, 12.5, 300.0), (3.0, 0.7, 0.9)


def renamed(files: Sequence[Path], name: str, **attributes: Any) -> list[Path]:
    """Gives files the study, series and patient that go with a name."""
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study", name])
        dataset.SeriesInstanceUID = series_uid(name)
        dataset.PatientID = f"patient-{name}"
        for key, value in attributes.items():
            setattr(dataset, key, value)
        dataset.save_as(file)
    return list(files)


def series_uid(name: str) -> str:
    """Series Instance UID of what `renamed` wrote."""
    return str(generate_uid(entropy_srcs=["series", name]))


def ct_series(folder: Path, name: str = "ct", **attributes: Any) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """An oblique CT series of five slices: files, Hounsfield units (column, row, slice) and the affine to RAS."""
    pixels = np.random.default_rng(1).integers(0, 3000, (5, 7, 8)).astype(np.int16)
    files = save_series(folder / name, pixels, ORIGIN, COSINES, SPACING)
    affine = series_affine(ORIGIN, COSINES, SPACING)
    return renamed(files, name, **attributes), pixels.transpose(2, 1, 0) - 1024.0, affine


def sweep(folder: Path, name: str = "sweep", jpeg: bool = False) -> list[Path]:
    """A multi-frame ultrasound file of six frames with a region inside the frame."""
    pixels = np.random.default_rng(6).integers(0, 255, (6, 24, 32), dtype=np.uint8)
    return renamed([save_ultrasound(folder / f"{name}.dcm", pixels, [region((4, 3, 23, 18))], jpeg=jpeg)], name)


def single_frames(folder: Path, name: str = "frames") -> list[Path]:
    """Four single-frame ultrasound files, named against their order."""
    pixels = np.random.default_rng(7).integers(0, 255, (4, 24, 32), dtype=np.uint8)
    box = [region((4, 3, 23, 18))]
    files = [
        save_ultrasound(folder / f"{name}{9 - i}.dcm", pixels[i : i + 1], box, InstanceNumber=i + 1) for i in range(4)
    ]
    return renamed(files, name)


def enhanced(folder: Path, name: str, image: nib.Nifti1Image | None = None, in_patient: bool = True) -> list[Path]:
    """An Enhanced US Volume of a scan (X to the left, Y to the head, Z to the front), frames across Y.

    Args:
        folder: where to.
        name: of file, series, study and patient.
        image: uint8 scan; default: random voxels.
        in_patient: whether the planes are placed in the patient, or in the volume alone.
    """
    if image is None:
        voxels = np.random.default_rng(8).integers(0, 255, (9, 7, 12), dtype=np.uint8)
        affine = np.array([[-0.4, 0, 0, 11.0], [0, 0, 0.3, -7.0], [0, 0.5, 0, 123.0], [0, 0, 0, 1]])
    else:
        voxels, affine = np.asarray(image.dataobj).astype(np.uint8), image.affine
    dx, dy, dz = np.linalg.norm(affine[:3, :3], axis=0)
    count = voxels.shape[1]
    pixels = np.ascontiguousarray(voxels[:, ::-1].transpose(1, 2, 0))  # frame, row (depth), column
    lps = np.diag([-1, -1, 1, 1]) @ affine
    patient = [(lps @ [0, count - 1 - k, 0, 1])[:3] for k in range(count)]
    path = save_enhanced(
        folder / f"{name}.dcm",
        pixels,
        [(0, 0, dy * k) for k in range(count)],
        spacing=(dz, dx),
        patient=([*(lps[:3, 0] / dx), *(lps[:3, 2] / dz)], patient) if in_patient else None,
    )
    return renamed([path], name)
