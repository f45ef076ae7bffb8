"""MATLAB files: v5 and v7.3 alike, compared with pymatreader; Verasonics' grid by hand; nothing guessed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pymatreader
import pytest
import scipy.io
from monai.transforms import Compose, LoadImaged

from grn_monai.data.readers.verasonics import VerasonicsReader
from grn_monai.errors import InputError, find_input_error
from tests.data.readers.hdf5_files import save_mat73, speckle

STEPS = (0.3, 0.5, 0.1)
# 1540 m/s at 7.7 MHz is a wavelength of 0.2 mm.
RESOURCE = {"Parameters": {"speedOfSound": np.array(1540.0)}}
TRANS = {"frequency": np.array(7.7), "name": "RC6gV"}


def save(path: Path, variables: dict[str, Any], version: str) -> Path:
    if version == "7.3":
        return save_mat73(path, variables)

    def v5(value: Any) -> Any:
        if isinstance(value, dict):
            return {field: v5(held) for field, held in value.items()}
        if isinstance(value, tuple):
            fields = [(field, object) for field in value[0]]
            return np.array([tuple(v5(item[field]) for field, _ in fields) for item in value], dtype=fields)
        if isinstance(value, list):
            cell = np.empty(len(value), object)
            cell[:] = [v5(item) for item in value]
            return cell
        return value

    scipy.io.savemat(path, v5(variables), do_compression=version == "7")
    return path


def pdata(size: tuple[int, ...], **other: Any) -> dict[str, Any]:
    return {"Size": np.array(size, float), "PDelta": np.array([1.5, 2.5, 0.5]), **other}


VERSIONS = pytest.mark.parametrize("version", ["5", "7", "7.3"])


@VERSIONS
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.complex64, np.complex128])
def test_array_of_every_version_and_type(tmp_path: Path, version: str, dtype: type) -> None:
    array = speckle((6, 5, 4), dtype)  # z, x, y
    if np.iscomplexobj(array):
        array = array + 1j * speckle((6, 5, 4), dtype)[::-1]
    path = save(tmp_path / "a.mat", {"vol": array, "fs": np.array(1.0), "note": "text"}, version)
    volume = VerasonicsReader(spacing=STEPS).read(path)
    np.testing.assert_array_equal(volume.voxels, array.transpose(1, 2, 0))
    np.testing.assert_array_equal(volume.voxels, pymatreader.read_mat(path)["vol"].transpose(1, 2, 0))
    assert volume.voxels.dtype == dtype
    assert volume.spacing == pytest.approx(STEPS)
    assert not volume.oriented
    assert volume.private["variable"] == "vol"
    assert "vol" not in volume.facts.values()
    assert volume.facts["axes_from"] == "default"
    # The middle of the probe's face is the origin.
    np.testing.assert_allclose(volume.affine @ [2, 1.5, -0.5, 1], [0, 0, 0, 1], atol=1e-12)


@VERSIONS
@pytest.mark.parametrize("axes", ["xyz", "zxy", "zyx", "yxz", "yzx", "xzy"])
def test_axes_option(tmp_path: Path, version: str, axes: str) -> None:
    array = speckle((3, 4, 5))
    path = save(tmp_path / "a.mat", {"vol": array}, version)
    voxels = VerasonicsReader(spacing=STEPS, axes=axes).read(path).voxels
    assert voxels.shape == tuple(array.shape[axes.index(axis)] for axis in "xyz")
    where = dict(zip(axes, (2, 1, 3), strict=True))
    assert voxels[where["x"], where["y"], where["z"]] == array[2, 1, 3]


@VERSIONS
def test_structs_and_cells_are_searched_and_named_as_in_matlab(tmp_path: Path, version: str) -> None:
    first, second, third = speckle((3, 4, 5)), speckle((3, 4, 6)), speckle((3, 4, 7))
    variables = {"Img": [first, second], "Scan": {"at": {"volume": third}}, "TX": ({"a": 1.0}, {"a": 2.0}), "f": 3.0}
    path = save(tmp_path / "a.mat", variables, version)
    for name, array in (("Img{1}", first), ("Img{2}", second), ("Scan.at.volume", third)):
        voxels = VerasonicsReader(variable=name, spacing=STEPS, axes="xyz").read(path).voxels
        np.testing.assert_array_equal(voxels, array)
    with pytest.raises(InputError, match=r"3 of them: (?=.*Img\{1\} \(3 × 4 × 5\))(?=.*Scan.at.volume \(3 × 4 × 7\))"):
        VerasonicsReader(spacing=STEPS).read(path)
    with pytest.raises(InputError, match=r"'vol'; there are (?=.*Img\{2\})(?=.*Scan.at.volume)"):
        VerasonicsReader(variable="vol", spacing=STEPS).read(path)
    with pytest.raises(InputError, match=r"TX\(2\).a \(1 × 1\) as the variable"):
        VerasonicsReader(variable="TX(2).a", spacing=STEPS).read(path)


@VERSIONS
def test_no_volume_lists_the_arrays(tmp_path: Path, version: str) -> None:
    path = save(tmp_path / "a.mat", {"rf": speckle((8, 9)), "t": np.array(2.0)}, version)
    with pytest.raises(InputError, match=r"found none; the arrays are rf \(8 × 9\), t \(1 × 1\)"):
        VerasonicsReader(spacing=STEPS).read(path)


@VERSIONS
@pytest.mark.parametrize("fields", [("real", "imag"), ("I", "Q")])
def test_two_real_fields_are_one_complex_volume(tmp_path: Path, version: str, fields: tuple[str, str]) -> None:
    real, imaginary = speckle((4, 3, 5), np.float32), -speckle((4, 3, 5), np.float32)
    path = save(tmp_path / "a.mat", {"IQ": {fields[0]: real, fields[1]: imaginary}}, version)
    volume = VerasonicsReader(spacing=STEPS, axes="zxy").read(path)
    assert volume.voxels.dtype == np.complex64
    np.testing.assert_array_equal(volume.voxels, (real + 1j * imaginary).transpose(1, 2, 0))
    assert volume.private["variable"] == "IQ"


@VERSIONS
def test_frames(tmp_path: Path, version: str) -> None:
    array = speckle((6, 5, 4, 3))
    path = save(tmp_path / "a.mat", {"vol": array}, version)
    for number in (1, 2, 3):
        volume = VerasonicsReader(spacing=STEPS, volume=number).read(path)
        np.testing.assert_array_equal(volume.voxels, array[..., number - 1].transpose(1, 2, 0))
        assert volume.facts["volume"] == number
    for wrong in (0, 4):
        with pytest.raises(InputError, match=f"volume {wrong} asked for, of 3; expected a number from 1 to 3"):
            VerasonicsReader(spacing=STEPS, volume=wrong).read(path)
    with pytest.raises(InputError, match=r"3 volumes \(frames over time\); expected one.*option volume"):
        VerasonicsReader(spacing=STEPS).read(path)
    voxels = VerasonicsReader(spacing=STEPS, axes="tzxy", volume=6).read(path).voxels
    np.testing.assert_array_equal(voxels, array[5].transpose(1, 2, 0))


@VERSIONS
def test_planes_over_frames_are_no_volume_until_the_user_says_so(tmp_path: Path, version: str) -> None:
    array = speckle((6, 5, 1, 4))
    path = save(tmp_path / "a.mat", {"ImgData": [array]}, version)
    with pytest.raises(InputError, match=r'ImgData\{1\} \(6 × 5 × 1 × 4\).*axes, for example "zxty"'):
        VerasonicsReader(spacing=STEPS).read(path)
    voxels = VerasonicsReader(spacing=STEPS, axes="zxty").read(path).voxels
    np.testing.assert_array_equal(voxels, array[:, :, 0].transpose(1, 2, 0))


@VERSIONS
@pytest.mark.parametrize("several", [False, True])
def test_grid_of_a_3d_pdata(tmp_path: Path, version: str, several: bool) -> None:
    array = speckle((4, 5, 6))  # rows y, columns x, sections z
    one = pdata((4, 5, 6), Coord="rectangular", Origin=np.array([-3.0, 3.75, 0.0]))
    pdata_ = (pdata((9, 9, 9), Coord="rectangular", Origin=np.zeros(3)), one) if several else one
    path = save(tmp_path / "a.mat", {"v": array, "PData": pdata_, "Trans": TRANS, "Resource": RESOURCE}, version)
    volume = VerasonicsReader().read(path)
    assert volume.spacing == pytest.approx((0.3, 0.5, 0.1))  # 1.5, 2.5 and 0.5 wavelengths of 0.2 mm
    assert volume.facts["axes"] == "yxz"
    assert volume.facts["axes_from"] == volume.facts["spacing_from"] == "PData"
    # Row 1 lies at y = +3.75 wavelengths, so that rows run against y.
    np.testing.assert_array_equal(volume.voxels, array.transpose(1, 0, 2)[:, ::-1])


@VERSIONS
def test_grid_of_planes_lacks_their_distance(tmp_path: Path, version: str) -> None:
    variables = {"v": speckle((6, 5, 4)), "PData": pdata((6, 5, 1)), "Trans": TRANS, "Resource": RESOURCE}
    path = save(tmp_path / "a.mat", variables, version)
    with pytest.raises(InputError, match="no voxel size along Y;"):
        VerasonicsReader().read(path)
    volume = VerasonicsReader(spacing=(None, 0.7, None)).read(path)
    assert volume.spacing == pytest.approx((0.3, 0.7, 0.1))
    assert volume.voxels.shape == (5, 4, 6)
    assert volume.facts["axes_from"] == "PData"


@pytest.mark.parametrize(
    "change",
    [
        {"PData": pdata((6, 5, 9))},  # of another array
        {"PData": pdata((6, 5, 4), Coord="spherical")},  # angles
        {"PData": {"Size": np.array([6.0, 5, 4]), "PDelta": np.array([0.5, 0.0, 0.0])}},
        {"Trans": {"name": "L11-5v"}},
        {"Resource": {"Parameters": {"numTransmit": 128.0}}},
        {"Resource": {"Parameters": {"speedOfSound": np.array(0.0)}}},
    ],
)
@VERSIONS
def test_spacing_is_asked_for_where_the_file_does_not_tell(tmp_path: Path, version: str, change: Any) -> None:
    variables = {"v": speckle((6, 5, 4)), "PData": pdata((6, 5, 4)), "Trans": TRANS, "Resource": RESOURCE, **change}
    path = save(tmp_path / "a.mat", variables, version)
    with pytest.raises(InputError, match=r"no voxel size along .*spacing: mm along X, Y and Z"):
        VerasonicsReader().read(path)


@pytest.mark.parametrize("given", [(0.3, 0.5, 0.1), (0.3, None, 0.1005), (None, None, None)])
def test_a_spacing_that_agrees_with_the_file_is_taken_from_it(tmp_path: Path, given: Any) -> None:
    variables = {"v": speckle((4, 5, 6)), "PData": pdata((4, 5, 6)), "Trans": TRANS, "Resource": RESOURCE}
    volume = VerasonicsReader(spacing=given).read(save_mat73(tmp_path / "a.mat", variables))
    assert volume.spacing == pytest.approx((0.3, 0.5, 0.1), rel=1e-9)
    assert volume.facts["spacing_from"] == "PData"


def test_a_spacing_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    variables = {"v": speckle((4, 5, 6)), "PData": pdata((4, 5, 6)), "Trans": TRANS, "Resource": RESOURCE}
    path = save_mat73(tmp_path / "a.mat", variables)
    with pytest.raises(InputError, match=r"0\.11 mm given along Z, where the file itself says 0\.1 mm"):
        VerasonicsReader(spacing=(0.3, 0.5, 0.11)).read(path)


def test_the_direction_of_y_may_be_that_of_an_image(tmp_path: Path) -> None:
    array = speckle((4, 5, 6))
    volume = VerasonicsReader(spacing=STEPS, axes="yxz", y_reversed=True).read(
        save_mat73(tmp_path / "l.mat", {"l": array})
    )
    np.testing.assert_array_equal(volume.voxels, array.transpose(1, 0, 2)[:, ::-1])
    assert volume.facts["y_reversed"] is True


def test_axes_against_the_pdata_drop_its_spacing(tmp_path: Path) -> None:
    variables = {"v": speckle((6, 6, 6)), "PData": pdata((6, 6, 6)), "Trans": TRANS, "Resource": RESOURCE}
    path = save_mat73(tmp_path / "a.mat", variables)
    assert VerasonicsReader().read(path).facts["axes"] == "yxz"
    with pytest.raises(InputError, match="no voxel size along X, Y, Z"):
        VerasonicsReader(axes="zxy").read(path)


@pytest.mark.parametrize(
    "options",
    [{"axes": "zx"}, {"axes": "zxx"}, {"axes": "zxyq"}, {"spacing": (1, 2)}],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"found .*; expected "):
        VerasonicsReader(**options)


@pytest.mark.parametrize("spacing", [(0.1, 0.1, 0), (0.1, -1, 1), (0.1, float("nan"), 1), (1, 1, 5000), ("a", 1, 1)])
def test_impossible_spacing(tmp_path: Path, spacing: Any) -> None:
    path = save_mat73(tmp_path / "a.mat", {"v": speckle((3, 4, 5))})
    with pytest.raises(InputError, match="three positive numbers of mm"):
        VerasonicsReader(spacing=spacing).read(path)


def test_objects_functions_and_sparse_matrices_are_passed_over(tmp_path: Path) -> None:
    array = speckle((3, 4, 5))
    path = save_mat73(tmp_path / "a.mat", {"v": array})
    with h5py.File(path, "r+") as file:
        node = file.create_dataset("obj", data=np.zeros((1, 6), np.uint32))
        node.attrs["MATLAB_class"], node.attrs["MATLAB_object_decode"] = np.bytes_("containers.Map"), np.int32(3)
        handle = file.create_group("fn")
        handle.attrs["MATLAB_class"] = np.bytes_("function_handle")
        handle.create_dataset("volume", data=np.zeros((4, 4, 4)))
        sparse = file.create_group("sp")
        sparse.attrs["MATLAB_class"], sparse.attrs["MATLAB_sparse"] = np.bytes_("double"), np.uint64(3)
        sparse.create_dataset("data", data=np.ones((3, 3, 3)))
        empty = file.create_dataset("none", data=np.array([0, 0], np.uint64))
        empty.attrs["MATLAB_class"], empty.attrs["MATLAB_empty"] = np.bytes_("double"), np.uint8(1)
    np.testing.assert_array_equal(VerasonicsReader(spacing=STEPS, axes="xyz").read(path).voxels, array)


def test_links_and_values_in_other_files_are_not_followed(tmp_path: Path) -> None:
    secret = save_mat73(tmp_path / "other.mat", {"v": speckle((3, 4, 5))})
    path = save_mat73(tmp_path / "a.mat", {"f": 1.0})
    with h5py.File(path, "r+") as file:
        file["linked"] = h5py.ExternalLink(str(secret), "v")
        file["soft"] = h5py.SoftLink("/")
    with pytest.raises(InputError, match=r"the arrays are f \(1 × 1\)"):
        VerasonicsReader(spacing=STEPS).read(path)
    (tmp_path / "passwords").write_bytes(bytes(1000))
    with h5py.File(path, "r+") as file:
        external = [(str(tmp_path / "passwords"), 0, 1000)]
        node = file.create_dataset("w", (10, 10, 10), "u1", external=external)
        node.attrs["MATLAB_class"] = np.bytes_("uint8")
    with pytest.raises(InputError, match="keeps its values in other files"):
        VerasonicsReader(spacing=STEPS).read(path)


def test_load_imaged(tmp_path: Path) -> None:
    array = speckle((6, 5, 4))
    good = save_mat73(tmp_path / "a.mat", {"v": array})
    load = LoadImaged("image", reader=VerasonicsReader(spacing=STEPS), ensure_channel_first=True)
    image = load({"image": str(good)})["image"]
    np.testing.assert_array_equal(image.numpy()[0], array.transpose(1, 2, 0))
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), STEPS)
    bad = tmp_path / "bad.mat"
    bad.write_bytes(good.read_bytes()[:900])
    with pytest.raises(InputError) as caught:
        load({"image": str(bad)})
    assert caught.value.where == str(bad)
    with pytest.raises(RuntimeError) as wrapped:
        Compose([load])({"image": str(bad)})
    cause = find_input_error(wrapped.value)
    assert cause is not None
    assert cause.where == str(bad)


def test_load_imaged_takes_reversed_rows(tmp_path: Path) -> None:
    array = speckle((4, 5, 6), np.float32)
    one = pdata((4, 5, 6), Origin=np.array([-3.0, 3.75, 0.0]))
    path = save_mat73(tmp_path / "a.mat", {"v": array, "PData": one, "Trans": TRANS, "Resource": RESOURCE})
    image = LoadImaged("image", reader=VerasonicsReader())({"image": str(path)})["image"]
    np.testing.assert_array_equal(image.numpy(), array.transpose(1, 0, 2)[:, ::-1])


def test_big_endian_v5_is_native_in_memory(tmp_path: Path) -> None:
    # scipy writes little-endian only: one 3D array of doubles by hand, after "MAT-File Format", section "Version 5".
    array = np.arange(24.0).reshape(2, 3, 4, order="F")
    element = (
        struct.pack(">IIII", 6, 8, 6, 0)  # array flags: mxDOUBLE_CLASS
        + struct.pack(">II3i4x", 5, 12, *array.shape)
        + struct.pack(">HH4s", 1, 1, b"v")  # the name, a small element: length before type
        + struct.pack(">II", 9, array.nbytes)
        + array.astype(">f8").tobytes(order="F")
    )
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    path = tmp_path / "big.mat"
    path.write_bytes(header + struct.pack(">II", 14, len(element)) + element)
    voxels = VerasonicsReader(spacing=STEPS, axes="xyz").read(path).voxels
    np.testing.assert_array_equal(voxels, array)
    assert voxels.dtype.isnative
