"""Checks of what an evaluation is given: names of a scan, voxel size, label volumes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["as_labels", "check_spacing", "new_key"]


def as_labels(volume: Any, what: str) -> npt.NDArray[np.integer]:
    """An (X, Y, Z) integer array from an array or CPU tensor, with or without a leading channel of 1."""
    labels = np.asarray(volume)
    if labels.ndim == 4 and labels.shape[0] == 1:
        labels = labels[0]
    if labels.ndim != 3:
        msg = f"{what} must be an (X, Y, Z) label volume, got shape {labels.shape}"
        raise ValueError(msg)
    if labels.dtype.kind == "f":
        rounded = labels.astype(np.uint8)
        if not np.array_equal(rounded, labels):
            msg = f"{what} must hold whole label values, got other numbers (dtype {labels.dtype})"
            raise ValueError(msg)
        return rounded
    return labels


def new_key(subject: str, scan: str, seen: Collection[tuple[str, str]]) -> tuple[str, str]:
    """Subject and scan as they are kept; ValueError for one that was added before."""
    key = (str(subject), str(scan))
    if key in seen:
        msg = f"scan {scan!r} of subject {subject!r} was added before"
        raise ValueError(msg)
    return key


def check_spacing(spacing: Sequence[float], name: str = "spacing") -> None:
    """ValueError, unless it is a voxel size along three axes."""
    if len(spacing) != 3 or not all(np.isfinite(step) and step > 0 for step in spacing):
        msg = f"{name} must be three positive numbers in mm, got {tuple(spacing)!r}"
        raise ValueError(msg)
