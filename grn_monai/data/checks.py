"""Whether a volume can be what it is taken for: its voxel size, its grey values, its labels."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.labels import TOTALSEGMENTATOR_MUSCLES
from grn_monai.options import check_choice

__all__ = [
    "LabelValues",
    "check_modality",
    "check_modality_name",
    "check_spacing_mm",
    "cohort_modality",
    "label_mapping",
    "map_labels",
    "modality_name",
]

LabelValues = Mapping[Any, Any] | str | None
"""How the values in label files become classes; see `label_mapping`."""

SPACING_MM: dict[str | None, tuple[float, float]] = {None: (1e-3, 50.0), "CT": (0.05, 50.0), "MR": (0.05, 50.0)}
"""Voxel sizes that are believed. Clinical CT and MR lie between 0.1 mm (bone CT) and about 10 mm (thick slices), and
ultrasound may be finer; beyond these limits the unit is wrong (metres, micrometres) or the field was filled with 0."""

_NAMED_VALUES: dict[str, Mapping[int, int]] = {"totalsegmentator": TOTALSEGMENTATOR_MUSCLES}
_NAMES = {"US": "US", "ULTRASOUND": "US", "CT": "CT", "MR": "MR", "MRI": "MR"}
_FAT_HU = -50.0
"""In every CT of a body some voxels lie below: air is near -1000, fat near -100."""
_SHARE = 1e-3


def check_spacing_mm(path: str | PathLike[str], spacing: npt.NDArray[np.float64], modality: str | None = None) -> None:
    """Refuse a voxel size that cannot be meant.

    Args:
        path: named in the error.
        spacing: along the three axes in mm.
        modality: ``"CT"``, ``"MR"`` or None.

    Raises:
        InputError: a size outside `SPACING_MM`.
    """
    low, high = SPACING_MM[modality]
    if not bool(((spacing >= low) & (spacing <= high)).all()):
        sizes = " × ".join(f"{size:.4g}" for size in spacing)
        mend = "Set the voxel size in the header (mm), for example by exporting again from 3D Slicer."
        raise InputError(path, f"a voxel size of {sizes} mm", f"{low:g} to {high:g} mm along each axis", mend)


def check_modality(path: str | PathLike[str], grey: npt.NDArray[np.float32], modality: str | None) -> None:
    """Refuse values of another modality, for files that do not name theirs.

    A CT in Hounsfield units has air and fat below -50; an MR has next to nothing below zero.

    Raises:
        InputError: naming the range found.
    """
    if modality is None:
        return
    share = float(np.count_nonzero(grey < _FAT_HU)) / grey.size
    found = f"values from {float(grey.min()):g} to {float(grey.max()):g}"
    if modality == "CT" and share < _SHARE:
        mend = "Convert it with its rescale slope and intercept, or leave it out if it is no CT."
        raise InputError(path, found, "Hounsfield units (air near -1000, fat near -100)", mend)
    if modality == "MR" and float(np.count_nonzero(grey < -500)) / grey.size > _SHARE:
        mend = "Leave it out, or give the option modality CT."
        raise InputError(path, f"{found}, as of a CT", "an MR, whose values are not below 0", mend)


def modality_name(word: Any) -> str:
    """``"US"``, ``"CT"`` or ``"MR"`` for what a cohort file may call it; "" for anything else."""
    return _NAMES.get(str(word or "").strip().upper(), "")


def cohort_modality(cohort: Mapping[str, Any]) -> str:
    """What a cohort's scans are, by its first ``modality``, see `modality_name`; "" where its file does not say."""
    given = cohort.get("modality")
    return modality_name(next(iter(given.values()), "") if isinstance(given, Mapping) else given)


def check_modality_name(modality: str | None) -> None:
    """Refuse a modality other than CT, MR and None."""
    check_choice("modality", modality, tuple(SPACING_MM))


def label_mapping(label_values: LabelValues) -> dict[int, int] | None:
    """File value to class, with whole numbers on both sides.

    Args:
        label_values: a mapping (its keys may be texts, as in JSON), the name of a known set (``"totalsegmentator"``,
            the label maps of its class map "total"), or None: the values are the classes.

    Raises:
        InputError: another name, or numbers that are not whole or negative.
    """
    if label_values is None:
        return None
    mend = "Give such as {86: 1, 87: 2}, totalsegmentator or null."
    if isinstance(label_values, str):
        if label_values not in _NAMED_VALUES:
            raise InputError("label_values", repr(label_values), " or ".join(_NAMED_VALUES), mend)
        return dict(_NAMED_VALUES[label_values])
    try:
        pairs = {int(str(value)): int(str(label)) for value, label in label_values.items()}
    except (AttributeError, ValueError):
        pairs = {}
    if not pairs or min(pairs.values()) < 0:
        raise InputError("label_values", repr(label_values)[:80], "whole file values to classes from 0", mend)
    return pairs


def map_labels(array: npt.NDArray[Any], mapping: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    """Each file value's class; values that the mapping does not name are background."""
    result = np.zeros(array.shape, np.uint8)
    for value, label in mapping.items():
        result[array == value] = label
    return result
