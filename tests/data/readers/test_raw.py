"""Raw volumes: every axis order and type by hand, sizes named, sidecars checked."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.transforms import LoadImaged

from grn_monai.data.readers.raw import RawVolumeReader
from grn_monai.errors import InputError
from tests.data.readers.hdf5_files import speckle

ABOUT = {"shape": [3, 4, 5], "axes": "zyx", "dtype": "uint8", "spacing_mm": [0.3, 0.5, 0.1]}


def save(path: Path, values: np.ndarray, about: Any = None, before: bytes = b"", sidecar: str = "") -> Path:
    path.write_bytes(before + values.tobytes())
    content = about if isinstance(about, str) else json.dumps(about or ABOUT)
    (path.parent / (sidecar or f"{path.stem}.json")).write_text(content)
    return path


@pytest.mark.parametrize("axes", ["".join(p) for p in itertools.permutations("xyz")])
def test_axes(tmp_path: Path, axes: str) -> None:
    values = speckle((3, 4, 5))
    volume = RawVolumeReader().read(save(tmp_path / "scan.raw", values, {**ABOUT, "axes": axes}))
    x, y, z = (axes.index(axis) for axis in "xyz")
    np.testing.assert_array_equal(volume.voxels, np.moveaxis(values, (x, y, z), (0, 1, 2)))
    assert volume.spacing == pytest.approx((0.3, 0.5, 0.1))  # along X, Y, Z whatever the order of the file
    assert not volume.oriented


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("offset", [0, 7])
def test_types(tmp_path: Path, dtype: str, order: str, offset: int) -> None:
    values = speckle((3, 4, 5), dtype)
    stored = values.astype(values.dtype.newbyteorder("<" if order == "little" else ">"))
    about = {**ABOUT, "dtype": dtype, "byte_order": order, "offset": offset}
    path = save(tmp_path / "scan.bin", stored, about, bytes(offset), "scan.bin.json")
    volume = RawVolumeReader().read(path)
    np.testing.assert_array_equal(volume.voxels, values.T)
    assert volume.voxels.dtype == np.dtype(dtype)
    assert volume.voxels.dtype.isnative


def test_complex_and_scale(tmp_path: Path) -> None:
    values = (speckle((3, 4, 5)) * (1 + 2j)).astype(np.complex64)
    volume = RawVolumeReader().read(save(tmp_path / "a.dat", values, {**ABOUT, "dtype": "complex64", "scale": "iq"}))
    np.testing.assert_array_equal(volume.voxels, values.T)
    assert volume.facts == {"axes": "zyx", "scale": "iq"}
    about = {**ABOUT, "scale": "db", "db_range": [-60, 0]}
    assert RawVolumeReader().read(save(tmp_path / "b.raw", speckle((3, 4, 5)), about)).facts["db_range"] == [-60, 0]


@pytest.mark.parametrize("change", [-1, 1, -30])
def test_size_mismatch_names_both_sizes(tmp_path: Path, change: int) -> None:
    path = save(tmp_path / "scan.raw", np.zeros(60 + change, np.uint8))
    with pytest.raises(
        InputError, match=rf"found {60 + change} bytes; expected 60 bytes \(3 × 4 × 5 of uint8, as scan.json"
    ):
        RawVolumeReader().read(path)


def test_huge_claim_takes_no_memory(tmp_path: Path) -> None:
    about = {**ABOUT, "shape": [10**9, 10**9, 10**9]}
    with pytest.raises(InputError, match=f"60 bytes; expected {10**27} bytes"):
        RawVolumeReader().read(save(tmp_path / "scan.raw", speckle((3, 4, 5)), about))


@pytest.mark.parametrize(
    ("about", "found"),
    [
        ({**ABOUT, "spacing": [1, 1, 1]}, r"unknown keys 'spacing'; expected only shape, axes, dtype"),
        ({k: v for k, v in ABOUT.items() if k != "spacing_mm"}, 'no voxel size.*Write "spacing_mm"'),
        ({k: v for k, v in ABOUT.items() if k not in ("shape", "dtype")}, "no shape, dtype"),
        ({**ABOUT, "dtype": "object"}, "dtype 'object'; expected uint8"),
        ({**ABOUT, "dtype": ["uint8"]}, "dtype "),
        ({**ABOUT, "axes": "zxx"}, "axes 'zxx'"),
        ({**ABOUT, "axes": 3}, "axes '3'"),
        ({**ABOUT, "shape": [3, 4]}, "three whole numbers"),
        ({**ABOUT, "shape": [3, 4, -5]}, "three whole numbers"),
        ({**ABOUT, "shape": [3, 4, True]}, "three whole numbers"),
        ({**ABOUT, "shape": [3, 4, 5.0]}, "three whole numbers"),
        ({**ABOUT, "offset": -1}, "offset -1"),
        ({**ABOUT, "byte_order": "middle"}, "byte_order 'middle'"),
        ({**ABOUT, "scale": "log"}, "scale 'log'; expected db, linear, rf, iq, grey"),
        ({**ABOUT, "db_range": [-60, 0]}, "db_range without scale db"),
        ({**ABOUT, "scale": "db", "db_range": [0, -60]}, "db_range"),
        ({**ABOUT, "spacing_mm": [0.1, 0, 0.1]}, "three positive numbers"),
        ({**ABOUT, "spacing_mm": 0.1}, "three positive numbers"),
        ("[1, 2]", "JSON of type list"),
        ("{'shape': 1}", "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
    ],
)
def test_wrong_sidecars(tmp_path: Path, about: Any, found: str) -> None:
    path = save(tmp_path / "scan.raw", speckle((3, 4, 5)), about)
    with pytest.raises(InputError, match=found) as caught:
        RawVolumeReader().read(path)
    assert caught.value.where == str(tmp_path / "scan.json")


def test_a_spacing_fills_in_what_the_sidecar_lacks(tmp_path: Path) -> None:
    bare = {k: v for k, v in ABOUT.items() if k != "spacing_mm"}
    path = save(tmp_path / "scan.raw", speckle((3, 4, 5)), bare)
    assert RawVolumeReader((0.7, 0.8, 0.9)).read(path).spacing == pytest.approx((0.7, 0.8, 0.9))
    path = save(tmp_path / "b.raw", speckle((3, 4, 5)), {**ABOUT, "spacing_mm": [0.7, 0.8, 0.9]})
    assert RawVolumeReader((0.7, 0.8, 0.903)).read(path).spacing == pytest.approx((0.7, 0.8, 0.9))
    with pytest.raises(InputError, match=r"0\.92 mm given along Z, where the file itself says 0\.9 mm"):
        RawVolumeReader((0.7, 0.8, 0.92)).read(path)


def test_missing_and_double_sidecars(tmp_path: Path) -> None:
    path = tmp_path / "scan.raw"
    path.write_bytes(bytes(60))
    with pytest.raises(InputError, match=r"neither scan.json nor scan.raw.json beside it.*Write one: \{"):
        RawVolumeReader().read(path)
    save(path, speckle((3, 4, 5)))
    save(path, speckle((3, 4, 5)), sidecar="scan.raw.json")
    with pytest.raises(InputError, match=r"both scan.json and scan.raw.json"):
        RawVolumeReader().read(path)


def test_load_imaged(tmp_path: Path) -> None:
    values = speckle((3, 4, 5))
    path = save(tmp_path / "scan.img", values)
    load = LoadImaged("image", reader=RawVolumeReader(), ensure_channel_first=True)
    np.testing.assert_array_equal(load({"image": str(path)})["image"].numpy()[0], values.T)
    path.write_bytes(bytes(61))
    with pytest.raises(InputError, match="61 bytes; expected 60 bytes"):
        load({"image": str(path)})
