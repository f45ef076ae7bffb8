"""What a label that was saved in MONAI Label goes through on its way into the archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from grn_monai.dicom.read import label_value

__all__ = ["mark_as_edited", "renumbered", "write_volume"]


def write_volume(path: Path, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> str:
    """Writes a NIfTI file in mm; gives its name."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, code=1)  # scanner; both are set, since programs differ in which they read
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return str(path)


def renumbered(
    array: npt.NDArray[np.uint8], given: list[Any], names: Mapping[int, str]
) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
    """Labels by the names that a client gave its values, and the names of all values in them."""
    table = np.arange(256)
    result = dict(names)
    for position, entry in enumerate(given, start=1):
        name = str(entry.get("name") or "") if isinstance(entry, dict) else ""
        index = entry.get("idx") if isinstance(entry, dict) else None
        value = index if isinstance(index, int) and 0 < index < 256 else position
        if not name or name.lower() == "background":
            continue
        target = label_value(name, names)
        if target is None:
            target = max(result) + 1
            result[target] = name
        table[value] = target
    return table[array].astype(np.uint8), result


def mark_as_edited(path: Path) -> str:
    """Says in a segmentation that a person had a hand in it; gives its Series Instance UID."""
    import pydicom

    dataset = pydicom.dcmread(path)
    for segment in dataset.SegmentSequence:
        segment.SegmentAlgorithmType = "SEMIAUTOMATIC"
    dataset.ContentDescription = "Label saved in MONAI Label"
    dataset.save_as(path)
    return str(dataset.SeriesInstanceUID)
