"""CT and MR: folders of DICOM series as scans, and what is refused because it cannot be such a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import FileDataset

from grn_monai.data import ScanDataset, VolumeCache, read_header, read_volume, scan_list, scan_name
from grn_monai.data.checks import label_mapping
from grn_monai.errors import InputError
from grn_monai.files import file_stamps
from grn_monai.handlers import fingerprint
from grn_monai.transforms import LoadScan, LoadScand
from tests.data.readers.test_series import AXES, COLUMNS, ROWS, SLICES, changed, header, pixels, save, simpleitk

HU = pixels().transpose(2, 1, 0) * 0.5 - 1024


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 4, 1]) if affine is None else affine), path)
    return path


def test_a_series_is_read_by_its_folder(tmp_path: Path) -> None:
    save(tmp_path / "1.2.840.99")
    values, affine = simpleitk(tmp_path / "1.2.840.99")
    volume = read_volume(tmp_path / "1.2.840.99", modality="CT")
    np.testing.assert_array_equal(volume.numpy()[0], values)
    np.testing.assert_allclose(np.asarray(volume.affine), affine, atol=1e-6)
    head = read_header(tmp_path / "1.2.840.99", "CT")
    assert head.shape == (COLUMNS, ROWS, SLICES)
    np.testing.assert_allclose(head.affine, affine, atol=1e-6)
    loaded = LoadScan(modality="CT")(tmp_path / "1.2.840.99")
    np.testing.assert_array_equal(loaded.numpy(), volume.numpy())
    # The last number of a UID is no extension: what is saved is named after the whole folder.
    assert scan_name(tmp_path / "1.2.840.99") == scan_name(volume.meta["filename_or_obj"]) == "1.2.840.99"


def test_headers_need_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "s")
    monkeypatch.setattr("grn_monai.data.readers.series._pixels", lambda _: pytest.fail("pixels were decoded"))
    assert read_header(tmp_path / "s").shape == (COLUMNS, ROWS, SLICES)


def test_scans_of_a_folder_are_files_and_series_at_any_depth(tmp_path: Path) -> None:
    nifti(tmp_path / "b.nii.gz", HU)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x" * 200)
    (tmp_path / "p1" / "study").mkdir(parents=True)
    save(tmp_path / "p1" / "study" / "ct")
    save(tmp_path / "p2")
    (tmp_path / "p2" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    found = [item["image"] for item in scan_list(tmp_path)]
    assert found == [str(tmp_path / name) for name in ("b.nii.gz", "p1/study/ct", "p2")]
    assert scan_list(tmp_path / "p2") == [{"image": str(tmp_path / "p2")}]
    with pytest.raises(InputError, match="folders of DICOM series"):
        scan_list(tmp_path / "pictures")


def test_a_bad_series_leaves_the_others(tmp_path: Path) -> None:
    save(tmp_path / "good")
    headers = [header(k) for k in range(SLICES)]
    changed("gap", headers)
    save(tmp_path / "gap", headers)
    scans = ScanDataset(scan_list(tmp_path), LoadScand("image", modality="CT"))
    assert "a slice may be missing" in scans[0]["failure"]
    assert scans[1]["image"].shape == (1, COLUMNS, ROWS, SLICES)
    assert scans[1]["scan"] == "good"


def _drop(headers: list[FileDataset], name: str) -> None:
    delattr(headers[2], name)


def _set(headers: list[FileDataset], name: str, value: Any) -> None:
    for data in headers:
        setattr(data, name, value)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda h: _drop(h, "RescaleSlope"), "x.dcm: found a CT slice without RescaleSlope"),
        (lambda h: _drop(h, "RescaleIntercept"), "x.dcm: found a CT slice without RescaleIntercept"),
        (lambda h: _set(h, "RescaleSlope", None), "a CT slice without RescaleSlope"),
        (lambda h: _set(h, "RescaleSlope", 0), "the slope not 0"),
        (lambda h: changed("gap", h), "expected equal distances (a slice may be missing)"),
        (lambda h: changed("double", h), "expected one slice at each place"),
        (lambda h: changed("direction", h), "another slice direction"),
        (lambda h: _set(h[2:], "SeriesInstanceUID", "1.9"), "found series 3 (CT, 2 files), series 3 (CT, 2 files)"),
        (lambda h: _set(h, "Modality", "MR"), "found a series of modality MR; expected modality CT"),
        (lambda h: _set(h, "PixelSpacing", [0.0, 0.4]), "PixelSpacing [0.0, 0.4]"),
        (lambda h: _set(h, "PixelSpacing", [0.01, 0.01]), "a voxel size of 0.01 × 0.01 × 2.5 mm; expected 0.05 to 50"),
    ],
)
def test_refused_series(tmp_path: Path, spoil: Any, words: str) -> None:
    headers = [header(k) for k in range(SLICES)]
    spoil(headers)
    save(tmp_path / "s", headers)
    for read in (read_header, read_volume):
        with pytest.raises(InputError) as info:
            read(tmp_path / "s", modality="CT")
        assert words in str(info.value)
        assert str(tmp_path / "s") in str(info.value)
    assert "Doe" not in str(info.value)


def test_mr_needs_no_rescale(tmp_path: Path) -> None:
    headers = [header(k, modality="MR") for k in range(SLICES)]
    for data in headers:
        del data.RescaleSlope, data.RescaleIntercept
    save(tmp_path / "s", headers)
    stored = read_volume(tmp_path / "s", modality="MR").numpy()[0]
    np.testing.assert_array_equal(stored, pixels().transpose(2, 1, 0))


def _without_sform(path: Path, steps: tuple[float, float, float]) -> Path:
    image = nib.Nifti1Image(HU, np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(np.eye(4), 1)
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[80:92] = np.array(steps, "<f4").tobytes()  # pixdim[1:4] of NIfTI-1
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("modality", ["MR", "CT", None])
def test_a_spacing_of_zero_is_not_taken_for_one_millimetre(tmp_path: Path, modality: str | None) -> None:
    path = _without_sform(tmp_path / "a.nii", (0, 1, 1))
    assert nib.load(path).header.get_zooms()[0] == 1  # what nibabel makes of it
    with pytest.raises(InputError, match="found a voxel size of 0 × 1 × 1 mm; expected positive spacing"):
        read_header(path, modality)
    assert read_header(_without_sform(tmp_path / "b.nii", (0.5, 1, 1))).affine[0, 0] == 0.5


@pytest.mark.parametrize(
    ("size", "modality", "refused"),
    [(0.04, "MR", True), (0.06, "MR", False), (0.04, None, False), (51, None, True), (51, "CT", True)],
)
def test_absurd_spacing(tmp_path: Path, size: float, modality: str | None, refused: bool) -> None:
    path = nifti(tmp_path / "a.nii.gz", HU, np.diag([1, 1, size, 1.0]))
    if refused:
        with pytest.raises(InputError, match=f"a voxel size of 1 × 1 × {size:g} mm"):
            read_header(path, modality)
    else:
        assert read_header(path, modality).shape == HU.shape


def test_values_of_another_modality_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mr = rng.uniform(0, 900, (12, 12, 12)).astype(np.float32)
    mr[0, 0, 0] = -60  # an overshoot of resampling makes no CT
    ct = rng.uniform(-1000, 900, (12, 12, 12)).astype(np.float32)
    paths = {"MR": nifti(tmp_path / "mr.nii.gz", mr), "CT": nifti(tmp_path / "ct.nii.gz", ct)}
    for modality, path in paths.items():
        assert read_volume(path, modality=modality).shape == (1, 12, 12, 12)
    with pytest.raises(InputError, match=r"mr.nii.gz: found values from -60 to 89.*expected Hounsfield units"):
        read_volume(paths["MR"], modality="CT")
    with pytest.raises(InputError, match=r"ct.nii.gz: found values from -9.*as of a CT"):
        read_volume(paths["CT"], modality="MR")
    with pytest.raises(InputError, match="modality: found 'US'"):
        LoadScan(modality="US")


def test_a_ct_series_of_other_units_is_refused(tmp_path: Path) -> None:
    headers = [header(k) for k in range(SLICES)]
    for data in headers:  # stored values, said to be "unspecified": water at 1024
        data.RescaleType, data.RescaleSlope, data.RescaleIntercept = "US", 1, 0
        data.PixelData = np.abs(pixels()[0] // 16 + 1).tobytes()
    save(tmp_path / "s", headers)
    assert read_volume(tmp_path / "s").min() >= 0
    with pytest.raises(InputError, match=r"s: found values from .*expected Hounsfield units"):
        read_volume(tmp_path / "s", modality="CT")


def test_label_values_name_the_classes_and_the_rest_is_background(tmp_path: Path) -> None:
    stored = np.array([0, 5, 86, 87, 88, 89, 117, 1], np.uint8).reshape(2, 2, 2)
    path = nifti(tmp_path / "l.nii.gz", stored)
    expected = np.array([0, 0, 1, 2, 3, 4, 0, 0]).reshape(2, 2, 2)
    for values in ("totalsegmentator", {86: 1, 87: 2, 88: 3, 89: 4}, {"86": 1, "87": "2", "88": 3, "89": 4}):
        np.testing.assert_array_equal(read_volume(path, "label", 5, label_values=values).numpy()[0], expected)
    with pytest.raises(InputError, match="unknown label values 5, 86"):
        read_volume(path, "label", 5)
    with pytest.raises(InputError, match="class 4; expected classes 0 to 1"):
        read_volume(path, "label", 2, label_values="totalsegmentator")
    for bad in ("unknown", {}, {86: -1}, {8.5: 1}, 3):
        with pytest.raises(InputError, match="label_values"):
            label_mapping(bad)  # type: ignore[arg-type]


def test_a_label_of_another_grid_and_a_label_that_is_a_series(tmp_path: Path) -> None:
    save(tmp_path / "s")
    affine = np.asarray(read_header(tmp_path / "s").affine)
    inside = nifti(tmp_path / "l.nii.gz", np.zeros((COLUMNS, ROWS, SLICES), np.uint8), affine)
    moved = nifti(tmp_path / "m.nii.gz", np.zeros((COLUMNS, ROWS, SLICES), np.uint8), affine @ np.diag([1, 1, 1.1, 1]))
    load = LoadScand(("image", "label"), modality="CT")
    load({"image": tmp_path / "s", "label": inside})
    with pytest.raises(InputError, match=r"m.nii.gz: found an affine that puts the grid's corners up to 1 mm"):
        load({"image": tmp_path / "s", "label": moved})
    with pytest.raises(InputError, match="expected a label volume"):
        load({"image": tmp_path / "s", "label": tmp_path / "s"})


def test_a_changed_series_is_another_one(tmp_path: Path) -> None:
    paths = save(tmp_path / "s")
    before, digest = file_stamps(tmp_path / "s"), fingerprint([{"image": tmp_path / "s"}])
    cache = VolumeCache(tmp_path / "cache")
    entry = cache.entry(tmp_path / "s", "image")
    paths[1].write_bytes(paths[1].read_bytes() + b"\0\0")
    assert file_stamps(tmp_path / "s") != before
    assert fingerprint([{"image": tmp_path / "s"}]) != digest
    assert cache.entry(tmp_path / "s", "image") != entry


def test_axes_of_the_fixture_are_oblique() -> None:
    assert np.abs(AXES - np.eye(3)).max() > 0.1  # else the tests above would prove little about orientation
