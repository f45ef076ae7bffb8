"""Raw volumes with a JSON sidecar that says what they are."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from grn_monai.data.readers.base import CheckedReader, SourceVolume, check_spacing, fill_spacing, probe_affine
from grn_monai.errors import InputError

__all__ = ["SCALES", "RawVolumeReader", "sidecars"]

SCALES: tuple[str, ...] = ("db", "linear", "rf", "iq", "grey")
"""What the values are: decibels, envelope, radio-frequency signal, complex baseband, grey levels of a picture."""

_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "complex64", "complex128")
_KEYS = ("shape", "axes", "dtype", "byte_order", "offset", "spacing_mm", "scale", "db_range")
_ORDERS = {"little": "<", "big": ">"}
_MAX_SIDECAR = 1 << 20
_MEND_SPACING = 'Write "spacing_mm": [x, y, z], the mm along X, Y and Z (Z is depth).'
_EXAMPLE = '{"shape": [128, 200, 300], "axes": "yxz", "dtype": "uint8", "spacing_mm": [0.3, 0.5, 0.1]}'


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class RawVolumeReader(CheckedReader):
    """Reads a file of bare numbers, described by a JSON file beside it (``scan.json`` or ``scan.raw.json``).

    ==============  ====================================================================================================
    ``shape``       numbers along each axis, slowest axis first (as NumPy counts); needed
    ``axes``        the letters of those axes, such as ``"zyx"``: x lateral, y elevation, z depth; needed
    ``dtype``       ``uint8`` … ``float64``, ``complex64`` (real, imaginary); needed
    ``spacing_mm``  millimetres along X, Y and Z, in that order whatever `axes` is; needed unless `spacing` is given
    ``byte_order``  ``"little"`` (default) or ``"big"``
    ``offset``      bytes before the first number, 0 if left out
    ``scale``       one of :data:`SCALES`, for :class:`grn_monai.transforms.bmode.BMode`; not said if left out
    ``db_range``    two numbers, the lowest and highest value in dB; only with ``"scale": "db"``
    ==============  ====================================================================================================

    ``facts["scale"]`` and ``facts["db_range"]`` hand on the last two.

    Args:
        spacing: mm along X, Y, Z for a sidecar without ``spacing_mm``; it has to agree with one that has it.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".raw", ".bin", ".img", ".dat")

    def __init__(self, spacing: Sequence[float | None] | None = None) -> None:
        self.spacing = spacing

    def _read(self, paths: Sequence[Path]) -> SourceVolume:
        path = paths[0]
        sidecar = _find_sidecar(path)
        about = _load_sidecar(sidecar)
        own: Sequence[float | None] = (None, None, None)
        if about.get("spacing_mm") is not None:
            own = check_spacing(sidecar, about["spacing_mm"], _MEND_SPACING)
        mend = f"{_MEND_SPACING[:-1]}, or give the reader's option spacing."
        spacing = fill_spacing(sidecar, own, self.spacing, mend)
        shape, axes = _shape(sidecar, about), about["axes"]
        dtype = np.dtype(about["dtype"]).newbyteorder(_ORDERS[about.get("byte_order", "little")])
        offset, size = about.get("offset", 0), path.stat().st_size
        needed = offset + math.prod(shape) * dtype.itemsize
        if needed != size:
            axes_text = " × ".join(map(str, shape))
            before = f" after {offset} bytes" if offset else ""
            expected = f"{needed} bytes ({axes_text} of {about['dtype']}{before}, as {sidecar.name} says)"
            raise InputError(path, f"{size} bytes", expected, "Correct shape, dtype or offset, or copy the file again.")
        values = np.fromfile(path, dtype, offset=offset).reshape(shape)
        values = values.astype(dtype.newbyteorder("="), copy=False)
        voxels = values.transpose([axes.index(axis) for axis in "xyz"])
        facts: dict[str, Any] = {"axes": axes, **{key: about[key] for key in ("scale", "db_range") if key in about}}
        return SourceVolume(voxels, probe_affine(voxels.shape, spacing), path, oriented=False, facts=facts)


def sidecars(path: Path) -> tuple[Path, Path]:
    """Where the JSON file of raw numbers may lie: ``scan.json`` or ``scan.raw.json``."""
    return path.with_suffix(".json"), path.with_name(path.name + ".json")


def _find_sidecar(path: Path) -> Path:
    choices = sidecars(path)
    present = [choice for choice in choices if choice.is_file()]
    if len(present) == 1:
        return present[0]
    names = f"{choices[0].name} or {choices[1].name}"
    if present:
        raise InputError(path, f"both {choices[0].name} and {choices[1].name}", "one of them", "Delete one.")
    raise InputError(path, f"neither {names.replace(' or ', ' nor ')} beside it", names, f"Write one: {_EXAMPLE}.")


def _load_sidecar(sidecar: Path) -> dict[str, Any]:
    if sidecar.stat().st_size > _MAX_SIDECAR:
        raise InputError(sidecar, f"{sidecar.stat().st_size} bytes", "a short JSON description", f"Write {_EXAMPLE}.")
    try:
        about = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        found = f"no valid JSON ({str(error).splitlines()[0][:100]})"
        raise InputError(sidecar, found, "a JSON object", f"Write for example {_EXAMPLE}.") from error
    if not isinstance(about, dict):
        raise InputError(sidecar, f"JSON of type {type(about).__name__}", "a JSON object", f"Write {_EXAMPLE}.")
    known = ", ".join(_KEYS)
    if unknown := [repr(key[:40]) for key in about if key not in _KEYS]:
        raise InputError(sidecar, f"unknown keys {', '.join(unknown[:5])}", f"only {known}", "Correct or delete them.")
    if missing := [key for key in ("shape", "axes", "dtype") if key not in about]:
        raise InputError(sidecar, f"no {', '.join(missing)}", known, f"Add it, for example {_EXAMPLE}.")
    _check_choices(sidecar, about)
    return about


def _check_choices(sidecar: Path, about: dict[str, Any]) -> None:
    choices = {"dtype": _TYPES, "byte_order": tuple(_ORDERS), "scale": SCALES}
    for key, allowed in choices.items():
        if key in about and about[key] not in allowed:
            found = f"{key} {str(about[key])[:40]!r}"
            raise InputError(sidecar, found, ", ".join(allowed), "Choose one of them.")
    axes, offset, bounds = about["axes"], about.get("offset", 0), about.get("db_range")
    if not isinstance(axes, str) or sorted(axes) != ["x", "y", "z"]:
        raise InputError(
            sidecar, f"axes {str(axes)[:40]!r}", "the letters x, y, z once each", 'Write for example "zyx".'
        )
    if not _is_whole(offset) or offset < 0:
        raise InputError(sidecar, f"offset {str(offset)[:40]}", "a number of bytes, 0 or more", "Correct it.")
    if bounds is None:
        return
    pair = isinstance(bounds, list) and len(bounds) == 2 and all(isinstance(b, int | float) for b in bounds)
    if not pair or not -1000 < bounds[0] < bounds[1] < 1000:
        found = f"db_range {str(bounds)[:40]}"
        raise InputError(
            sidecar, found, "the lowest and the highest dB value", 'Write for example "db_range": [-60, 0].'
        )
    if about.get("scale") != "db":
        raise InputError(sidecar, "db_range without scale db", '"scale": "db"', "Add the scale or drop the range.")


def _shape(sidecar: Path, about: dict[str, Any]) -> tuple[int, int, int]:
    shape = about["shape"]
    if not isinstance(shape, list) or len(shape) != 3 or not all(_is_whole(n) and n > 0 for n in shape):
        found = f"shape {str(shape)[:40]}"
        raise InputError(sidecar, found, "three whole numbers above 0", "Write for example [128, 200, 300].")
    return shape[0], shape[1], shape[2]
