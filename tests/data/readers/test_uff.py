"""UFF: grids in any pixel order against positions by hand and pyuff_ustb; polar and uneven grids refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import pyuff_ustb
from monai.transforms import LoadImaged

from grn_monai.data.readers.uff import UFFReader
from grn_monai.errors import InputError
from tests.data.readers.hdf5_files import save_uff, speckle

SHAPE = (5, 4, 6)
X, Y, Z = (np.arange(n) * step + at for n, step, at in zip(SHAPE, (3e-4, 5e-4, 1e-4), (-6e-4, 0, 5e-3), strict=True))


def positions(order: str = "xyz") -> dict[str, np.ndarray]:
    """Each pixel's place in metres, with the last axis of `order` running fastest."""
    axes = dict(zip("xyz", (X, Y, Z), strict=True))
    places = np.meshgrid(*(axes[axis] for axis in order), indexing="ij")
    return {axis: grid.ravel() for axis, grid in zip(order, places, strict=True)}


def pixels(values: np.ndarray, order: str = "xyz") -> np.ndarray:
    """A volume (x, y, z) as a column of pixels."""
    return values.transpose(["xyz".index(axis) for axis in order]).reshape(-1)


def volume_file(path: Path, values: np.ndarray, order: str = "xyz", **options: Any) -> Path:
    scan = {axis: places[:, None] for axis, places in positions(order).items()}
    return save_uff(path, pixels(values, order)[:, None], scan, "uff.scan", **options)


@pytest.mark.parametrize("order", ["xyz", "zyx", "yxz", "zxy"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_volume_in_any_pixel_order(tmp_path: Path, order: str, dtype: type) -> None:
    values = speckle(SHAPE, dtype)
    if np.iscomplexobj(values):
        values = values * np.exp(1j * np.linspace(0, 6, values.size)).reshape(SHAPE).astype(dtype)
    path = volume_file(tmp_path / "a.uff", values, order)
    volume = UFFReader().read(path)
    np.testing.assert_array_equal(volume.voxels, values)
    assert volume.voxels.dtype == dtype
    assert volume.spacing == pytest.approx((0.3, 0.5, 0.1))
    assert not volume.oriented
    # pyuff_ustb gives the same values and places, pixel by pixel.
    other = pyuff_ustb.Uff(str(path)).read("b_data")
    np.testing.assert_array_equal(other.data.ravel(), pixels(values, order))
    index = np.rint((other.scan.xyz.reshape(-1, 3) - [X[0], Y[0], Z[0]]) / [3e-4, 5e-4, 1e-4]).astype(int)
    np.testing.assert_array_equal(volume.voxels[tuple(index.T)], other.data.ravel())


def test_shuffled_pixels_and_rounding_errors(tmp_path: Path) -> None:
    values, rng = speckle(SHAPE, np.float32), np.random.default_rng(1)
    places, order = positions(), rng.permutation(values.size)
    scan = {
        axis: (column[order] * (1 + 1e-9 * rng.standard_normal(values.size)))[:, None]
        for axis, column in places.items()
    }
    path = save_uff(tmp_path / "a.uff", values.reshape(-1)[order][:, None], scan, "uff.scan")
    volume = UFFReader().read(path)
    np.testing.assert_array_equal(volume.voxels, values)
    assert volume.spacing == pytest.approx((0.3, 0.5, 0.1), rel=1e-4)


def test_positions_as_one_array(tmp_path: Path) -> None:
    values = speckle(SHAPE, np.float32)
    scan = {"xyz": np.stack([positions()[axis] for axis in "xyz"], axis=1)}
    path = save_uff(tmp_path / "a.uff", pixels(values)[:, None], scan, "uff.scan")
    np.testing.assert_array_equal(UFFReader().read(path).voxels, values)


def test_frames_of_a_volume(tmp_path: Path) -> None:
    frames = speckle((*SHAPE, 3), np.float32)
    data = frames.reshape(-1, 1, 1, 3)  # pixel, channel, wave, frame
    path = save_uff(tmp_path / "a.uff", data, {a: p[:, None] for a, p in positions().items()}, "uff.scan")
    for number in (1, 2, 3):
        np.testing.assert_array_equal(UFFReader(volume=number).read(path).voxels, frames[..., number - 1])
    other = tmp_path / "b.uff"  # pyuff_ustb writes the axes as they stand
    pyuff_ustb.BeamformedData(scan=pyuff_ustb.Scan(**positions()), data=data).write(str(other), "b")
    np.testing.assert_array_equal(UFFReader(volume=3).read(other).voxels, frames[..., 2])
    with pytest.raises(InputError, match="volume 4 asked for, of 3"):
        UFFReader(volume=4).read(path)
    with pytest.raises(InputError, match=r"3 volumes .*option volume, counted from 1"):
        UFFReader().read(path)
    assert UFFReader(volume=1, spacing=UFFReader(volume=1).read(path).spacing).read(path).facts["volume"] == 1
    with pytest.raises(InputError, match="7 mm given along X, where the file itself says"):
        UFFReader(volume=1, spacing=(7, None, None)).read(path)


@pytest.mark.parametrize("kind", ["uff.linear_scan", "uff.linear_3D_scan"])
def test_planes_are_stacked_only_at_a_given_distance(tmp_path: Path, kind: str) -> None:
    planes = speckle((5, 6, 4), np.float32)  # x, z, frame
    names = ("x_axis", "z_axis") if kind == "uff.linear_scan" else ("radial_axis", "axial_axis")
    scan = {names[0]: X[:, None], names[1]: Z[:, None], "roll": 0.0}
    path = save_uff(tmp_path / "a.uff", planes.reshape(-1, 1, 1, 4), scan, kind)
    with pytest.raises(InputError, match=r"2D scan of 4 frames.*frame_spacing in mm"):
        UFFReader().read(path)
    volume = UFFReader(frame_spacing=0.7).read(path)
    np.testing.assert_array_equal(volume.voxels, planes.transpose(0, 2, 1))
    assert volume.spacing == pytest.approx((0.3, 0.7, 0.1))
    assert volume.facts["frames_stacked"]


@pytest.mark.parametrize("complex_data", [False, True])
def test_file_of_pyuffs_own_writer(tmp_path: Path, complex_data: bool) -> None:
    values = speckle(SHAPE, np.float32) * (1 + 2j if complex_data else 1)
    places = positions("xyz")
    scan = pyuff_ustb.Scan(x=places["x"], y=places["y"], z=places["z"])
    path = tmp_path / "a.uff"
    pyuff_ustb.BeamformedData(scan=scan, data=values.reshape(-1, 1)).write(str(path), "out/beamformed")
    volume = UFFReader().read(path)
    np.testing.assert_array_equal(volume.voxels, values)
    assert volume.private["data_set"] == "out/beamformed"


def test_plane_of_pyuffs_own_writer_with_the_same_pixel_order(tmp_path: Path) -> None:
    planes = speckle((5 * 6, 1, 1, 4), np.float32)
    path = tmp_path / "a.uff"
    pyuff_ustb.BeamformedData(scan=pyuff_ustb.LinearScan(x_axis=X, z_axis=Z), data=planes).write(str(path), "b")
    volume = UFFReader(frame_spacing=1).read(path)
    scan = pyuff_ustb.Uff(str(path)).read("b").scan
    column, row = np.searchsorted(X, scan.x - 1e-9), np.searchsorted(Z, scan.z - 1e-9)
    np.testing.assert_array_equal(volume.voxels[column, 2, row], planes[:, 0, 0, 2])


def test_several_data_sets(tmp_path: Path) -> None:
    first, second = speckle(SHAPE, np.float32), speckle(SHAPE, np.float32) + 1
    path = volume_file(tmp_path / "a.uff", first, name="das")
    volume_file(path, second, name="mv")
    with pytest.raises(InputError, match=r"the beamformed data sets das, mv.*option name"):
        UFFReader().read(path)
    np.testing.assert_array_equal(UFFReader(name="/mv").read(path).voxels, second)
    with pytest.raises(InputError, match="expected the data set 'dmas'"):
        UFFReader(name="dmas").read(path)


def damaged(path: Path, what: str) -> Path:
    values = speckle(SHAPE, np.float32)
    places, data = {axis: column[:, None] for axis, column in positions().items()}, pixels(values)[:, None]
    kind = "uff.scan"
    if what == "uneven":
        places["z"] = np.where(places["z"] == Z[3], Z[3] + 3e-5, places["z"])
    elif what == "double":
        places["x"][0] = X[1]
    elif what == "plane":
        places["y"] = np.zeros_like(places["y"])
    elif what == "fewer":
        data = data[:-1]
    elif what == "channels":
        data = np.repeat(data, 3, axis=1)
    elif what == "nan":
        places["x"][3] = np.nan
    elif what == "sector":
        kind, places = "uff.sector_scan", {"azimuth_axis": X, "depth_axis": Z}
    elif what == "unknown":
        kind = "os.system"
    elif what == "falling":
        kind, places = "uff.linear_scan", {"x_axis": X[::-1], "z_axis": Z}
    elif what == "text":
        places["x"] = np.full(data.shape, "a", "S1")
    return save_uff(path, data, places, kind)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("uneven", "(unequal steps|off the grid)"),
        ("double", "120 pixels on a grid of 5 × 4 × 6"),
        ("plane", "all pixels at one y"),
        ("fewer", r"data of shape \(1, 119\) for a scan of 120 pixels"),
        ("channels", "channels or waves not yet combined"),
        ("nan", "no numbers"),
        ("sector", "sector scan.*Scan-convert it"),
        ("unknown", "a scan of class 'os.system'"),
        ("falling", "unequal steps"),
        ("text", "a data set of"),
    ],
)
def test_refused(tmp_path: Path, what: str, found: str) -> None:
    path = damaged(tmp_path / "a.uff", what)
    with pytest.raises(InputError, match=found) as caught:
        UFFReader(frame_spacing=1).read(path)
    assert caught.value.where == str(path)


def test_file_without_beamformed_data(tmp_path: Path) -> None:
    path = tmp_path / "a.uff"
    with h5py.File(path, "w") as file:
        file.create_group("channel_data").attrs["class"] = "uff.channel_data"
        file["loop"] = h5py.SoftLink("/")
    with pytest.raises(InputError, match=r"no beamformed data.*Beamform the channel data first"):
        UFFReader().read(path)
    path.write_text("not HDF5")
    with pytest.raises(InputError, match="no HDF5 file"):
        UFFReader().read(path)


def test_broken_heap_is_refused_where_hdf5_would_follow_it_without_end(tmp_path: Path) -> None:
    path = volume_file(tmp_path / "a.uff", speckle(SHAPE, np.float32))
    content = path.read_bytes()
    heap = content.index(b"GCOL")  # where h5py keeps the text of attributes
    size = heap + 16 + 8  # of its first object
    for wrong in (b"\x7f\xff\xff\xff\0\0\0\0", b"\xff" * 8):
        path.write_bytes(content[:size] + wrong + content[size + 8 :])
        with pytest.raises(InputError, match="a broken heap"):
            UFFReader().read(path)


@pytest.mark.parametrize("step", [0, -1, float("nan")])
def test_wrong_frame_spacing(step: float) -> None:
    with pytest.raises(InputError, match="mm between frames"):
        UFFReader(frame_spacing=step)


def test_load_imaged(tmp_path: Path) -> None:
    values = speckle(SHAPE, np.float32)
    path = volume_file(tmp_path / "a.uff", values)
    load = LoadImaged("image", reader=UFFReader())
    np.testing.assert_array_equal(load({"image": str(path)})["image"].numpy(), values)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match="cannot be decoded"):
        load({"image": str(path)})
