"""Reading volumes: geometry against SimpleITK, values as stored, and every fault named with its mend."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

import grn_monai.data.volume as volume_module
from grn_monai.data.volume import check_same_geometry, read_header, read_volume, scan_name
from grn_monai.errors import InputError

AFFINE = np.array([[0.0, -0.4, 0.0, 7.0], [0.3, 0.0, 0.0, -11.0], [0.0, 0.0, -0.5, 5.0], [0.0, 0.0, 0.0, 1.0]])


def grey(shape: tuple[int, ...] = (5, 6, 7), dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def save_itk(
    path: Path, array: np.ndarray, compress: bool = False, vector: bool = False, permuted: bool = False
) -> Path:
    """Writes ``array`` (X, Y, Z) with an oblique LPS geometry that no NIfTI default would give.

    With ``permuted``, the voxel axes run near the world's second, third and first axis instead, one of them backwards.
    """
    image = sitk.GetImageFromArray(np.moveaxis(array, (0, 1, 2), (2, 1, 0)), isVector=vector)
    image.SetSpacing((0.3, 0.4, 0.5))
    image.SetOrigin((-7.0, 11.0, 5.0))
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.1, -0.2, 0.3)
    direction = np.array(turn.GetMatrix()).reshape(3, 3)
    if permuted:
        direction = direction @ np.array([[0, 0, -1], [1, 0, 0], [0, 1, 0]])
    image.SetDirection(direction.ravel())
    sitk.WriteImage(image, str(path), compress)
    return path


def positions_agree(path: Path, affine: np.ndarray) -> bool:
    image = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3), (4, 5, 6)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        if not np.allclose((affine @ [*index, 1])[:3], lps * [-1, -1, 1], atol=1e-4):
            return False
    return True


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.nrrd"])
@pytest.mark.parametrize("compress", [False, True])
def test_values_and_positions_agree_with_simpleitk(tmp_path: Path, name: str, compress: bool) -> None:
    array = grey()
    path = save_itk(tmp_path / name, array, compress)
    volume = read_volume(path)
    assert volume.shape == (1, 5, 6, 7)
    assert volume.dtype == torch.float32
    np.testing.assert_array_equal(volume.numpy()[0], array)
    assert positions_agree(path, np.asarray(volume.affine))
    assert volume.meta["filename_or_obj"] == str(path)
    header = read_header(path)
    assert header.shape == (5, 6, 7)
    np.testing.assert_array_equal(header.affine, np.asarray(volume.affine))


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64, np.dtype(">i2"), np.dtype(">f4")]
)
def test_stored_types(tmp_path: Path, dtype: np.dtype) -> None:
    array = grey(dtype=dtype)
    np.testing.assert_array_equal(read_volume(save(tmp_path / "a.nii.gz", array)).numpy()[0], array)


def test_rescale_slope_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.full((3, 3, 3), 4, np.int16), AFFINE)
    image.dataobj[0, 0, 0] = 0
    image.header.set_slope_inter(0.5, -1)
    path = tmp_path / "a.nii"
    nib.save(image, path)
    stored = np.asanyarray(nib.load(path).dataobj)
    np.testing.assert_allclose(read_volume(path).numpy()[0], stored)


def test_label_is_uint8_and_owns_its_memory(tmp_path: Path) -> None:
    array = np.arange(5 * 6 * 7).reshape(5, 6, 7) % 7
    path = save(tmp_path / "l.nii", array.astype(np.uint8))
    label = read_volume(path, "label")
    assert label.dtype == torch.uint8
    label[:] = 1  # a read-only map of the file would refuse or crash
    np.testing.assert_array_equal(read_volume(path, "label").numpy()[0], array)


def test_label_of_whole_floats_is_read(tmp_path: Path) -> None:
    array = (np.arange(24) % 3).reshape(2, 3, 4).astype(np.float64)
    label = read_volume(save(tmp_path / "l.nii.gz", array), "label", num_classes=3)
    np.testing.assert_array_equal(label.numpy()[0], array)


def test_trailing_singleton_axis_is_dropped(tmp_path: Path) -> None:
    array = grey((5, 6, 7, 1))
    np.testing.assert_array_equal(read_volume(save(tmp_path / "a.nii.gz", array)).numpy(), np.moveaxis(array, -1, 0))


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0)])
def test_nifti_units_become_mm(tmp_path: Path, unit: str, scale: float) -> None:
    image = nib.Nifti1Image(grey(), np.diag([1 / scale] * 3 + [1]) @ AFFINE)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    affine = np.asarray(read_volume(tmp_path / "a.nii").affine)
    np.testing.assert_allclose(affine[:3], AFFINE[:3], rtol=1e-6)


def test_unknown_unit_code_is_taken_as_mm(tmp_path: Path) -> None:
    image = nib.Nifti1Image(grey(), AFFINE)
    image.header["xyzt_units"] = 7
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_header(tmp_path / "a.nii").affine, AFFINE, rtol=1e-6)


def _cut(path: Path, keep: float = 0.5) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def _nan(path: Path) -> Path:
    array = grey(dtype=np.float32)
    array[0, 0, :2] = np.nan, np.inf
    return save(path, array)


def _flat_affine(path: Path) -> Path:
    image = nib.Nifti1Image(grey(), AFFINE)
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    data[280:328] = np.zeros(12, "<f4").tobytes()  # srow_x, srow_y, srow_z
    path.write_bytes(data)
    return path


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
FAULTS = {
    "missing": ("a.nii.gz", lambda p: p, "no such file", "Check the path"),
    "folder": ("a.nii.gz", lambda p: (p.mkdir(), p)[1], "a folder", "Name the volume file"),
    "empty": ("a.nii.gz", lambda p: (p.touch(), p)[1], "0 bytes", "Export or copy"),
    "extension": ("a.jpg", lambda p: (p.touch(), p)[1], "extension '.jpg'", "Convert it first, to NIfTI, MHA or NRRD"),
    "truncated gzip": ("a.nii.gz", lambda p: _cut(save(p, grey((20, 20, 20)))), "EOFError", "Export or copy"),
    "truncated nii": ("a.nii", lambda p: _cut(save(p, grey())), "cannot be decoded", "Export or copy"),
    "truncated mha": ("a.mha", lambda p: _cut(save_itk(p, grey((20, 20, 20)))), "cannot be decoded", "Export or copy"),
    "truncated zip mha": ("a.mha", lambda p: _cut(save_itk(p, grey(), True), 0.9), "cannot be decoded", "Export"),
    "truncated nrrd": ("a.nrrd", lambda p: _cut(save_itk(p, grey((20, 20, 20)))), "cannot be decoded", "Export"),
    "garbage": ("a.nii.gz", lambda p: (p.write_bytes(b"not a volume" * 99), p)[1], "cannot be decoded", "Export"),
    "garbage gz": ("a.nii.gz", lambda p: (p.write_bytes(gzip.compress(b"x" * 999)), p)[1], "cannot be", "Export"),
    "garbage mha": (
        "a.mha",
        lambda p: (p.write_text("ObjectType = Image\nNDims = 3\n"), p)[1],
        "cannot be decoded",
        "Export",
    ),
    "nrrd as mha": ("a.mha", lambda p: (p.write_bytes(b"NRRD0004\n"), p)[1], "not a MetaImage", "ending"),
    "mha as nrrd": ("a.nrrd", lambda p: (p.write_text("NDims = 3\n"), p)[1], "not an NRRD", "ending"),
    "2D": ("a.nii.gz", lambda p: save(p, grey((5, 6))), "a 2D image (5 × 6)", "Stack the slices"),
    "no depth": ("a.nii.gz", lambda p: save(p, grey((1, 1, 6))), "a 2D image (1 × 1 × 6)", "(X, 1, Z)"),
    "one slice": ("a.nii.gz", lambda p: save(p, grey((5, 6, 1))), "a 2D image (5 × 6 × 1)", "Stack the slices"),
    "4D": ("a.nii.gz", lambda p: save(p, grey((5, 6, 7, 2))), "4D data (5 × 6 × 7 × 2)", "single volumes"),
    "NaN": ("a.nii.gz", _nan, "2 voxels that are NaN or infinite", "Replace them"),
    "constant": ("a.nii.gz", lambda p: save(p, grey() * 0 + 9), "every voxel is 9", "Check the export"),
    "colour": ("a.nii.gz", lambda p: save(p, np.ones((5, 6, 7), RGB)), "3 components", "Convert it to grey"),
    "colour mha": ("a.mha", lambda p: save_itk(p, grey((5, 6, 7, 3)), vector=True), "3 components", "Convert it"),
    "complex": ("a.nii.gz", lambda p: save(p, grey(dtype=np.complex64)), "complex numbers", "Export the envelope"),
    "affine": ("a.nii", _flat_affine, "affine that is not invertible", "Set spacing and orientation"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_names_file_and_mend(tmp_path: Path, fault: str) -> None:
    name, make, found, mend = FAULTS[fault]
    path = make(tmp_path / name)
    with pytest.raises(InputError) as info:
        read_volume(path)
    assert str(path) in str(info.value)
    assert found in info.value.found
    assert mend in info.value.mend


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize("stored", [True, False])
def test_flipped_byte_of_a_gzip_is_found(tmp_path: Path, kind: str, stored: bool) -> None:
    array = grey((20, 20, 20)) % 7
    plain = nib.Nifti1Image(array, AFFINE).to_bytes()
    data = bytearray(gzip.compress(plain, 0 if stored else 6))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_volume(path, kind).numpy()[0], array)  # type: ignore[arg-type]
    for at in (len(data) - 200, len(data) - 6):  # a voxel (if stored), the checksum
        bad = data.copy()
        bad[at] ^= 1
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"a\.nii\.gz: found a file that cannot be decoded.*Export or copy"):
            read_volume(path, kind)  # type: ignore[arg-type]


def test_nifti_2_and_gzip_of_several_parts(tmp_path: Path) -> None:
    array = grey()
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti2Image(array, AFFINE), path)
    np.testing.assert_array_equal(read_volume(path).numpy()[0], array)
    plain = nib.Nifti1Image(array, AFFINE).to_bytes()
    path.write_bytes(gzip.compress(plain[:400]) + gzip.compress(plain[400:]))
    np.testing.assert_array_equal(read_volume(path).numpy()[0], array)


def test_no_mend_names_a_command_that_does_not_exist() -> None:
    source = Path(volume_module.__file__).read_text()
    assert "data_prep convert" not in source


LABEL_FAULTS = {
    "unknown value": (np.array([0, 7, 9, 3]), "unknown label values 7, 9", "Renumber"),
    "negative": (np.array([0, -1, 2, 3]), "unknown label values -1", "Renumber"),
    "fraction": (np.array([0, 1, 1.5, 3]), "not whole numbers", "nearest neighbour"),
    "NaN": (np.array([0, 1, np.nan, 3]), "not whole numbers", "nearest neighbour"),
    "infinite": (np.array([0, 1, np.inf, 3]), "unknown label values inf", "Renumber"),
}


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_label_fault_names_file_and_mend(tmp_path: Path, fault: str) -> None:
    values, found, mend = LABEL_FAULTS[fault]
    dtype = np.float32 if values.dtype.kind == "f" else np.int16
    path = save(tmp_path / "l.nii.gz", np.tile(values, 6).reshape(2, 3, 4).astype(dtype))
    with pytest.raises(InputError) as info:
        read_volume(path, "label")
    assert str(path) in str(info.value)
    assert found in info.value.found
    assert mend in info.value.mend


def test_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kind"):
        read_volume(save(tmp_path / "a.nii", grey()), "mask")  # type: ignore[arg-type]


class TestSameGeometry:
    def pair(self, tmp_path: Path, label: np.ndarray, affine: np.ndarray) -> tuple:
        image_path, label_path = save(tmp_path / "i.nii", grey()), save(tmp_path / "l.nii", label, affine)
        return read_volume(image_path), read_volume(label_path, "label"), image_path, label_path

    def test_equal_up_to_float_rounding_passes(self, tmp_path: Path) -> None:
        check_same_geometry(*self.pair(tmp_path, np.ones((5, 6, 7), np.uint8), AFFINE + 1e-5))

    def test_other_shape(self, tmp_path: Path) -> None:
        pair = self.pair(tmp_path, np.ones((5, 7, 6), np.uint8), AFFINE)
        with pytest.raises(InputError, match=r"l\.nii: found shape \(5, 7, 6\).*Resample the label"):
            check_same_geometry(*pair)

    def test_other_affine(self, tmp_path: Path) -> None:
        shifted = AFFINE.copy()
        shifted[2, 3] += 0.25
        pair = self.pair(tmp_path, np.ones((5, 6, 7), np.uint8), shifted)
        with pytest.raises(InputError, match=r"up to 0\.25 mm elsewhere.*Resample the label"):
            check_same_geometry(*pair)

    def test_headers_do_as_well_as_volumes(self, tmp_path: Path) -> None:
        shape = (5, 6, 7)
        image, label = save(tmp_path / "i.nii", grey(shape)), save(tmp_path / "l.nii", grey((5, 6, 8)))
        with pytest.raises(InputError, match="shape"):
            check_same_geometry(read_header(image), read_header(label), image, label)


def test_scan_name() -> None:
    assert [scan_name(n) for n in ("a/s.01.nii.gz", "s.nrrd", "odd.txt")] == ["s.01", "s", "odd.txt"]
