"""One scan from its source files to its files in the cohort."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from data_prep.convert.deidentify import removed_metadata
from data_prep.convert.read import read_image, read_label
from data_prep.convert.source import Source
from data_prep.files import write_nifti
from grn_monai import transforms
from grn_monai.data.readers import SourceVolume
from grn_monai.data.readers.base import decoding
from grn_monai.errors import InputError

__all__ = ["Job", "convert_scan"]

DYNAMIC_RANGE_DB = 60.0


@dataclass(frozen=True)
class Job:
    """A source and where its files go; `label` is written only where the source has one."""

    source: Source
    image: Path
    label: Path


def convert_scan(job: Job) -> dict[str, Any]:
    """Convert one scan; its image is written last, so that an image is there only if all of the scan is.

    Returns:
        What is worth recording, without anything that tells who was scanned: ``shape``, ``spacing_mm``, ``oriented``,
        ``intensity`` (how voxels became grey values), ``facts`` of the reader, ``removed``, ``labelled``, ``seconds``,
        ``affine`` of the written files (4 × 4 list) and ``placement``; and ``private`` of the reader, which may tell it
        and belongs into the link file alone.

    Raises:
        InputError: whatever is wrong with the files.
    """
    try:
        return _convert(job)
    except InputError as error:
        of_label = error.where in {str(path) for path in job.source.labels}
        raise InputError(error.where, error.found, error.expected, error.mend + _hint(error.mend, of_label)) from error


# The readers name their own options; this is what they are called on the command line.
_COMMAND_LINE = {
    r"\bspacing\b": "--spacing X Y Z",
    r"\bmask_order\b": "--mask-order ORDER",
    r"\bwhole_frame\b": "--whole-frame",
    r"\bcolour=": "--colour luminance",
    r"\bframe_spacing\b": "--frame-spacing MM",
    r"\bregion(=|\b.*option)|option region": "--region N",
    r"\boption volume|volume=": "--volume N",
    r"\bframes(=|\b.*option)|option frames": "--frames FIRST LAST",
    r"option crop|crop=": "--crop X0 Y0 X1 Y1",
    r"\baxes\b": "--axes ORDER",
    r"\bvariable\b|option name": "--variable NAME",
    r"option kind|\(kind ": "--data KIND or the column `data` of the table",
}


def _hint(mend: str, of_label: bool = False) -> str:
    mend = re.sub(r"\{.*\}", "", mend)  # what to write into a file is no option
    flags = [flag for words, flag in _COMMAND_LINE.items() if re.search(words, mend) and flag.split()[0] not in mend]
    if of_label:
        flags = [flag.replace("--variable", "--label-variable") for flag in flags]
    return f" On the command line: {', '.join(flags)}." if flags else ""


def _convert(job: Job) -> dict[str, Any]:
    start = time.perf_counter()
    source = job.source
    volume = read_image(source)
    voxels, intensity = _grey(source, volume)
    _check_content(source, voxels)
    label = read_label(source, volume)
    if label is not None:
        write_nifti(job.label, label, volume.affine)
    write_nifti(job.image, voxels, volume.affine)
    return {
        "shape": list(voxels.shape),
        "spacing_mm": [round(step, 6) for step in volume.spacing],
        "oriented": volume.oriented,
        "intensity": intensity,
        "facts": dict(volume.facts),
        "removed": removed_metadata(source),
        "labelled": label is not None,
        "seconds": round(time.perf_counter() - start, 2),
        "affine": volume.affine.tolist(),
        "placement": dict(volume.placement),
        "private": dict(volume.private),
    }


def _grey(source: Source, volume: SourceVolume) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """B-mode grey values of ultrasound; CT and MR, and volumes that are pictures already, stay as they are."""
    # Complex numbers are IQ, whatever the option for the other scans of a request says.
    is_complex = volume.voxels.dtype.kind == "c"
    told = volume.facts.get("scale", "iq") if is_complex else source.options.data or volume.facts.get("scale")
    kept = source.modality != "US" or (source.kind in ("volume", "dicom-series") and told is None)
    if kept or told == "grey" or (told is None and volume.voxels.dtype == np.uint8):
        return volume.voxels, {"kind": "as stored"}
    if told is None:
        mend = (
            "Give --data rf, iq, linear (an envelope), db (log-compressed) or grey, or the column `data` of the table."
        )
        found = f"{volume.voxels.dtype} numbers of unknown kind"
        raise InputError(volume.path, found, "what the numbers are", mend)
    return _bmode(source, volume, told)


def _bmode(source: Source, volume: SourceVolume, kind: str) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """Grey values 0 to 255 of signals, envelopes or decibels."""
    voxels = volume.voxels
    reference = _reference(source.options.reference or "max")
    asked = source.options.dynamic_range_db
    if asked is not None and not (math.isfinite(asked) and asked > 0):
        raise InputError("--dynamic-range", f"{asked:g} dB", "dB above 0", "Take for example 60.")
    dynamic_range = DYNAMIC_RANGE_DB if asked is None else asked
    if kind == "db" and (db_range := volume.facts.get("db_range")) and source.options.reference is None:
        # The file says what its numbers mean: its highest value is white, and its range is shown, if none is asked for.
        low, high = (float(end) for end in db_range)
        voxels, reference = (voxels - high if high else voxels), "unit"
        dynamic_range = high - low if asked is None else asked
    bmode = transforms.BMode(kind, dynamic_range, reference)
    try:
        with decoding(volume.path):
            grey = bmode.compress(voxels)
    except InputError as error:  # it knows no file
        raise InputError(volume.path, error.found, error.expected, error.mend) from error
    return grey, {"kind": kind, "dynamic_range_db": dynamic_range, "reference": reference}


def _reference(text: str) -> float | Literal["max", "unit"]:
    if text == "max":
        return "max"
    try:
        return float(text)
    except ValueError as error:
        raise InputError("--reference", repr(text), '"max" or a percentile', "Take for example 99.9.") from error


def _check_content(source: Source, voxels: npt.NDArray[Any]) -> None:
    if voxels.dtype.kind == "c":
        mend = "Complex numbers are echoes: give --modality US, or export the magnitude."
        raise InputError(source.files[0], "complex numbers", "grey values", mend)
    low, high = voxels.min(), voxels.max()
    if voxels.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        mend = "Replace them before the export, for example by the lowest grey value."
        raise InputError(source.files[0], "voxels that are NaN or infinite", "finite grey values", mend)
    if low == high:
        mend = "Check the export: the volume holds no picture."
        raise InputError(source.files[0], f"a constant volume (every voxel is {low:g})", "grey values that vary", mend)
