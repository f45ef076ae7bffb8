"""What a NIfTI, MetaImage or NRRD header says of the voxel size: their readers take 1 mm where it says nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grn_monai.data.readers import SourceVolume
from grn_monai.data.readers.base import fill_spacing
from grn_monai.errors import InputError

__all__ = ["check_spacing_given", "has_voxel_size"]

_MAX_HEADER = 1 << 20
_LEAVE_OUT = "Leave the option spacing out for files that have their own."


def has_voxel_size(path: Path) -> bool:
    """Whether the header of a volume file tells the size of its voxels.

    Not so: NIfTI with `sform_code` and `qform_code` 0 and all `pixdim` 1, which is what an empty header holds;
    MetaImage without ElementSpacing and ElementSize; NRRD without `spacings` and `space directions`.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _nifti(path)
    with path.open("rb") as file:
        head = file.read(_MAX_HEADER)
    if name.endswith(".nrrd"):
        text = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0].decode("latin-1").lower()
        spacings = re.search(r"^spacings:(.*)$", text, re.MULTILINE)
        numbers = [] if spacings is None else [_number(part) for part in spacings[1].split()]
        return "\nspace directions:" in text or (bool(numbers) and all(map(math.isfinite, numbers)))
    text = re.split(rb"(?m)^ElementDataFile", head, maxsplit=1)[0].decode("latin-1")
    return re.search(r"^(ElementSpacing|ElementSize)\s*=", text, re.MULTILINE) is not None


def _nifti(path: Path) -> bool:
    import nibabel as nib

    header: Any = nib.load(path).header
    if int(header["sform_code"]) or int(header["qform_code"]):
        return True
    return any(float(step) != 1 for step in header.get_zooms()[:3])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def check_spacing_given(volume: SourceVolume, given: Sequence[float] | None, frame_spacing: float | None) -> None:
    """Raise unless lengths that were given are those of a volume whose file has its own, within 1 %.

    Args:
        volume: as its reader read it.
        given: mm along X, Y, Z; None: nothing.
        frame_spacing: mm between its picture frames; None: nothing. Only volumes made from frames have such a length.
    """
    fill_spacing(volume.path, volume.spacing, given, _LEAVE_OUT)
    axes = list(volume.placement.get("axes", ()))
    if frame_spacing is None or "frame" not in axes:
        return
    own = volume.spacing[axes.index("frame")]
    if not abs(frame_spacing - own) <= 0.01 * own:
        found = f"frame_spacing {frame_spacing:g} mm given, where the file itself says {own:.6g} mm"
        mend = "Leave frame_spacing out for files that have their own; if the file is wrong, correct it there."
        raise InputError(volume.path, found, "one distance between frames (the same within 1 %)", mend)
