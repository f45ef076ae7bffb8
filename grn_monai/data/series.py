"""Folders of DICOM series as scans: finding them, and reading one with the checks of its reader."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError

__all__ = ["is_series", "read_series", "series_folders", "series_grid"]

Grid = tuple[tuple[int, int, int], npt.NDArray[np.float64]]


def _begins_as_dicom(path: str | PathLike[str]) -> bool:
    # DICOMDIR is an index of other files.
    if os.path.basename(path).upper() == "DICOMDIR":
        return False
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_series(path: str | PathLike[str]) -> bool:
    """Whether a folder holds a DICOM file (by content, whatever its name), not counting folders inside it."""
    if not os.path.isdir(path):
        return False
    with os.scandir(path) as entries:
        files = sorted(entry.path for entry in entries if entry.is_file() and not entry.name.startswith("."))
    # The likely names first, so that a folder of other files costs one look at each and a series costs one in all.
    files.sort(key=lambda name: not name.lower().endswith((".dcm", ".ima")))
    return any(_begins_as_dicom(name) for name in files)


def series_folders(folder: str | PathLike[str]) -> list[Path]:
    """The folders at any depth, `folder` itself included, that hold DICOM files; hidden ones are passed over."""
    found = []
    for place, inside, _ in os.walk(folder):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if is_series(place):
            found.append(Path(place))
    return found


def _check_modality(path: Path, found: str, modality: str | None) -> None:
    if modality is not None and found != modality:
        mend = f"Leave this series out, or give the option modality {found}."
        raise InputError(path, f"a series of modality {found}", f"modality {modality}", mend)


def series_grid(path: str | PathLike[str], modality: str | None = None) -> Grid:
    """The grid of the CT or MR series in a folder, from its headers alone.

    Args:
        path: the folder, with one series in it.
        modality: the one expected, ``"CT"`` or ``"MR"``; None takes any.

    Returns:
        Voxels along the columns, rows and slices, and the affine to RAS in mm.

    Raises:
        InputError: another modality, or whatever `grn_monai.data.readers.DicomSeriesReader` refuses: several series,
            missing or doubled slices, mixed orientations, a CT without rescale.
    """
    from grn_monai.data.readers.series import DicomSeriesReader  # pydicom is needed for DICOM only

    shape, affine, found = DicomSeriesReader().grid([Path(path)])
    _check_modality(Path(path), found, modality)
    return shape, affine


def read_series(
    path: str | PathLike[str], modality: str | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """The voxels of the series in a folder, ``(column, row, slice)``, Hounsfield units for CT; the affine as above.

    Raises:
        InputError: as `series_grid`, or pixels that cannot be decoded.
    """
    from grn_monai.data.readers.series import DicomSeriesReader

    volume = DicomSeriesReader().load([Path(path)])
    _check_modality(Path(path), str(volume.facts["modality"]), modality)
    return np.asarray(volume.voxels, dtype=np.float32), volume.affine
