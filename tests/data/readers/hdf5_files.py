"""Small valid files of the formats that are not DICOM: MATLAB v7.3 and UFF, laid out as their programs write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

__all__ = ["save_mat73", "save_uff", "speckle"]


def speckle(shape: tuple[int, ...], dtype: Any = np.uint8) -> np.ndarray:
    """Reproducible grey values that are all different along each axis."""
    return np.random.default_rng(7).integers(1, 200, shape).astype(dtype)


def save_mat73(path: Path, variables: dict[str, Any]) -> Path:
    """Writes a MATLAB v7.3 file as MATLAB lays it out: arrays, complex arrays, text, structs, struct arrays, cells.

    A dict is a struct, a list a cell, a tuple of dicts a struct array.
    """
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            _write_mat73(file, name, value)
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(header)
    return path


def _reference(file: h5py.File, value: Any) -> h5py.Reference:
    store = file.require_group("#refs#")
    name = f"r{len(store)}"
    _write_mat73(store, name, value)
    return store[name].ref


def _write_mat73(parent: h5py.Group, name: str, value: Any) -> None:
    classes = {"f4": "single", "f8": "double", "c8": "single", "c16": "double", "b1": "logical"}
    if isinstance(value, dict):
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field, held in value.items():
            _write_mat73(group, field, held)
    elif isinstance(value, tuple):
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field in value[0]:
            references = np.array([[_reference(parent.file, item[field])] for item in value], dtype=h5py.ref_dtype)
            group.create_dataset(field, data=references)
    elif isinstance(value, list):
        references = np.array([[_reference(parent.file, item)] for item in value], dtype=h5py.ref_dtype)
        parent.create_dataset(name, data=references).attrs["MATLAB_class"] = np.bytes_("cell")
    elif isinstance(value, str):
        node = parent.create_dataset(name, data=np.array([[ord(letter)] for letter in value], np.uint16))
        node.attrs["MATLAB_class"] = np.bytes_("char")
    else:
        array = np.atleast_2d(np.asarray(value)).T
        kind = classes.get(array.dtype.str[1:], array.dtype.name)
        if array.dtype.kind == "c":
            part = f"f{array.dtype.itemsize // 2}"
            array = np.ascontiguousarray(array).view([("real", part), ("imag", part)])
        options = {"compression": 3, "chunks": array.shape} if array.size > 64 else {}
        parent.create_dataset(name, data=array, **options).attrs["MATLAB_class"] = np.bytes_(kind)


def save_uff(path: Path, data: np.ndarray, scan: dict[str, Any], kind: str, name: str = "b_data") -> Path:
    """Writes beamformed data as USTB does: MATLAB's axes reversed, text as codes, complex data as a group."""

    def put(group: h5py.Group, key: str, value: np.ndarray) -> None:
        if np.iscomplexobj(value):
            pair = group.create_group(key)
            pair.attrs["class"], pair.attrs["complex"] = "single", np.array([1])
            for part, numbers in (("real", value.real), ("imag", value.imag)):
                pair.create_dataset(part, data=numbers.T)
        else:
            node = group.create_dataset(key, data=np.atleast_2d(value).T)
            node.attrs["class"], node.attrs["complex"] = "single", np.array([0])

    with h5py.File(path, "a") as file:
        beamformed = file.create_group(name)
        beamformed.attrs["class"], beamformed.attrs["size"] = "uff.beamformed_data", np.array([1, 1])
        put(beamformed, "data", data)
        group = beamformed.create_group("scan")
        group.attrs["class"], group.attrs["size"] = kind, np.array([1, 1])
        for key, value in scan.items():
            put(group, key, np.asarray(value))
    return path
