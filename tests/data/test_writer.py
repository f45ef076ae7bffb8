"""AtomicNibabelWriter: geometry as SimpleITK sees it, types, and that nothing is left half done."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.transforms import SaveImage, SaveImaged

from grn_monai.data import AtomicNibabelWriter, read_volume
from grn_monai.errors import InputError
from tests.data.test_volume import grey, save, save_itk


def saver(folder: Path, **kwargs: object) -> SaveImage:
    options = {"output_dtype": np.uint8, "output_postfix": "pred", "separate_folder": False, "print_log": False}
    return SaveImage(folder, resample=False, output_ext=".nii.gz", writer=AtomicNibabelWriter, **{**options, **kwargs})


@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.mha", "scan.mhd", "scan.nrrd"])
def test_saved_label_lies_where_the_scan_lies(tmp_path: Path, name: str, permuted: bool) -> None:
    source = save_itk(tmp_path / name, grey(), permuted=permuted)
    scan = read_volume(source)
    label = scan.new_tensor(np.arange(scan.numel()).reshape(scan.shape) % 7).to(torch.uint8)
    SaveImaged(
        "pred",
        output_dir=tmp_path / "out",
        output_postfix="pred",
        output_ext=".nii.gz",
        output_dtype=np.uint8,
        resample=False,
        separate_folder=False,
        print_log=False,
        writer=AtomicNibabelWriter,
    )({"pred": label})
    written = tmp_path / "out" / "scan_pred.nii.gz"
    assert [f.name for f in written.parent.iterdir()] == [written.name]
    before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(written))
    assert after.GetPixelID() == sitk.sitkUInt8
    assert after.GetSize() == before.GetSize()
    np.testing.assert_allclose(after.GetSpacing(), before.GetSpacing(), atol=1e-6)
    np.testing.assert_allclose(after.GetOrigin(), before.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(after.GetDirection(), before.GetDirection(), atol=1e-6)
    for index in ((0, 0, 0), (4, 0, 0), (0, 5, 0), (0, 0, 6)):
        np.testing.assert_allclose(
            after.TransformIndexToPhysicalPoint(index), before.TransformIndexToPhysicalPoint(index), atol=1e-5
        )
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after).T, label.numpy()[0])


def test_header_states_codes_unit_and_exact_affine(tmp_path: Path) -> None:
    scan = read_volume(save_itk(tmp_path / "scan.mha", grey()))
    saver(tmp_path)(scan.to(torch.uint8))
    image = nib.load(tmp_path / "scan_pred.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.affine, scan.affine.numpy().astype(np.float32))
    np.testing.assert_allclose(image.header.get_zooms(), (0.3, 0.4, 0.5), rtol=1e-6)
    np.testing.assert_allclose(image.header.get_qform(), image.affine, atol=1e-5)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0)])
def test_axis_permutations_without_tilt(tmp_path: Path, order: tuple[int, int, int]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.diag([0.25, -0.5, 0.75])[:, order]  # numbers that float32 holds exactly
    scan = read_volume(save(tmp_path / "scan.nii.gz", grey(), affine))
    saver(tmp_path)(scan.to(torch.uint8))
    np.testing.assert_array_equal(nib.load(tmp_path / "scan_pred.nii.gz").affine, affine)


def test_grey_values_keep_their_type(tmp_path: Path) -> None:
    scan = read_volume(save(tmp_path / "scan.nii.gz", grey()))
    saver(tmp_path, output_dtype=np.float32)(scan / 7)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan_pred.nii.gz").numpy(), (scan / 7).numpy())


def test_same_input_gives_same_bytes(tmp_path: Path) -> None:
    scan = read_volume(save(tmp_path / "scan.nii.gz", grey())).to(torch.uint8)
    saver(tmp_path / "a")(scan)
    saver(tmp_path / "b")(scan)
    first, second = ((tmp_path / d / "scan_pred.nii.gz").read_bytes() for d in "ab")
    assert first[10:] == second[10:], "bytes 4 to 8 of a gzip file are its time"


def writer() -> AtomicNibabelWriter:
    out = AtomicNibabelWriter(output_dtype=np.uint8)
    out.set_data_array(grey()[None], channel_dim=0)
    out.set_metadata({"affine": np.eye(4)}, resample=False)
    return out


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(image: object, filename: str | os.PathLike[str]) -> None:
        Path(filename).write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "label.nii.gz"
    path.write_bytes(b"the old file")
    monkeypatch.setattr(nib, "save", fill)
    with pytest.raises(InputError, match=r"label\.nii\.gz.*No space left on device.*free space"):
        writer().write(path)
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def test_interruption_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(image: object, filename: str | os.PathLike[str]) -> None:
        Path(filename).write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(nib, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        writer().write(tmp_path / "label.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    writer().write(tmp_path / "new" / "label.nii.gz")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["label.nii.gz"]


def test_bad_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    path = tmp_path / "a_file" / "label.nii.gz"
    with pytest.raises(InputError) as info:
        writer().write(path)
    assert str(path) in str(info.value)
    assert "choose another output folder" in info.value.mend


def test_save_image_quotes_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = read_volume(save(tmp_path / "scan.nii.gz", grey()))

    def refuse(source: object, target: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RuntimeError, match=r"Permission denied.*choose another output folder"):
        saver(tmp_path / "out")(scan)
    assert list((tmp_path / "out").iterdir()) == []


def test_resampling_on_request_is_monais(tmp_path: Path) -> None:
    out = AtomicNibabelWriter(output_dtype=None)
    out.set_data_array(torch.arange(64.0).reshape(1, 4, 4, 4), channel_dim=0)
    coarse, fine = np.eye(4), np.diag([0.5, 1, 1, 1])
    out.set_metadata({"affine": coarse, "original_affine": fine, "spatial_shape": (7, 4, 4)}, mode="nearest")
    out.write(tmp_path / "a.nii")
    image = nib.load(tmp_path / "a.nii")
    assert image.shape == (7, 4, 4)
    np.testing.assert_array_equal(image.affine, fine)


def test_type_of_the_data_is_the_default(tmp_path: Path) -> None:
    scan = read_volume(save(tmp_path / "scan.nii.gz", grey())).to(torch.int16)
    saver(tmp_path, output_dtype=None)(scan)
    assert nib.load(tmp_path / "scan_pred.nii.gz").get_data_dtype() == np.int16
