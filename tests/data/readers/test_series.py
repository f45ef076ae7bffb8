"""DICOM series: values and places against SimpleITK's own reading, and every fault of a series refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
import SimpleITK as sitk  # noqa: N813
from monai.transforms import LoadImaged
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from grn_monai.data.readers.series import DicomSeriesReader
from grn_monai.errors import InputError
from tests.data.readers.hdf5_files import speckle

ROWS, COLUMNS, SLICES = 6, 5, 4
# An oblique direction: the columns of a rotation.
TURN = sitk.Euler3DTransform()
TURN.SetRotation(0.2, -0.3, 0.4)
AXES = np.array(TURN.GetMatrix()).reshape(3, 3)
STEP = 2.5


def header(k: int, uid: str = "1.2.3", number: int = 3, modality: str = "CT") -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    meta.MediaStorageSOPInstanceUID = f"{uid}.{k + 1}"
    data = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.Modality = "Doe^Jane", "4711", modality
    data.StudyInstanceUID, data.SeriesInstanceUID, data.SeriesNumber = "1.2", uid, number
    data.InstanceNumber = SLICES - k  # against the order in space
    data.ImageOrientationPatient = [round(float(v), 10) for v in (*AXES[:, 0], *AXES[:, 1])]
    data.ImagePositionPatient = [round(float(v), 8) for v in np.array([-20.0, 30.0, 5.0]) + k * STEP * AXES[:, 2]]
    data.PixelSpacing, data.SliceThickness = [0.7, 0.4], 5.0  # rows apart, columns apart
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 0.5, -1024
    if modality == "CT":
        data.RescaleType = "HU"
    data.PixelData = pixels()[k % SLICES].tobytes()
    return data


def pixels() -> np.ndarray:
    return speckle((SLICES, ROWS, COLUMNS), np.int16)


def save(folder: Path, headers: list[FileDataset] | None = None) -> list[Path]:
    folder.mkdir(exist_ok=True)
    # Names that sort against the order in space.
    headers = [header(k) for k in range(SLICES)] if headers is None else headers
    paths = [folder / f"{chr(ord('z') - k)}.dcm" for k in range(len(headers))]
    for path, data in zip(paths, headers, strict=True):
        data.save_as(path, enforce_file_format=True)
    return paths


def simpleitk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values (x, y, z) and affine (RAS) of the same folder, read the way ITK sorts and builds a series."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("as_list", [False, True])
def test_values_and_places_agree_with_simpleitk(tmp_path: Path, modality: str, as_list: bool) -> None:
    paths = save(tmp_path / "s", [header(k, modality=modality) for k in range(SLICES)])
    volume = DicomSeriesReader().read(paths if as_list else paths[0].parent)
    values, affine = simpleitk(tmp_path / "s")
    np.testing.assert_array_equal(volume.voxels, values)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    # By hand: rescaled values, and positions of DICOM's C.7.6.2.1.1 with x and y turned from LPS to RAS.
    np.testing.assert_array_equal(volume.voxels, pixels().transpose(2, 1, 0) * 0.5 - 1024)
    place = np.array([-20, 30, 5]) + AXES @ [4 * 0.4, 5 * 0.7, 2 * STEP]
    np.testing.assert_allclose((volume.affine @ [4, 5, 2, 1])[:3], place * [-1, -1, 1], atol=1e-6)
    assert volume.spacing == pytest.approx((0.4, 0.7, STEP))
    assert volume.voxels.dtype == np.float32
    assert volume.oriented
    assert volume.facts == {"modality": modality, "files": 4, "other_files": 0, "hounsfield": modality == "CT"}
    assert "Doe" not in repr(volume.facts)


def test_rescale_of_each_slice_is_its_own(tmp_path: Path) -> None:
    headers = [header(k, modality="MR") for k in range(SLICES)]
    for k, data in enumerate(headers):
        data.RescaleSlope = 0.25 * (k + 1)
    save(tmp_path / "s", headers)
    expected = pixels() * (0.25 * np.arange(1, SLICES + 1))[:, None, None] - 1024
    np.testing.assert_array_equal(DicomSeriesReader().read(tmp_path / "s").voxels, expected.transpose(2, 1, 0))


@pytest.mark.parametrize("name", ["jp2klossless", "jpeg_ls_lossless", "RLE", "bigendian", "implicit"])
def test_transfer_syntaxes(tmp_path: Path, name: str) -> None:
    # pydicom's own examples of one picture; the slices differ in their headers alone.
    source = pydicom.dcmread(pydicom.data.get_testdata_file(f"MR_small_{name}.dcm", download=False))
    (tmp_path / "s").mkdir()
    for k in range(3):
        data = copy.deepcopy(source)
        data.ImagePositionPatient = [*source.ImagePositionPatient[:2], source.ImagePositionPatient[2] + 2.0 * k]
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.save_as(tmp_path / "s" / f"{k}.dcm")
    voxels = DicomSeriesReader().read(tmp_path / "s").voxels
    plain = pydicom.dcmread(pydicom.data.get_testdata_file("MR_small.dcm", download=False)).pixel_array
    np.testing.assert_array_equal(voxels, np.repeat(plain.T[..., None], 3, axis=2))


@pytest.mark.parametrize("what", ["added", "cut", "none"])
def test_broken_fragments_are_refused_where_gdcm_would_search_without_end(tmp_path: Path, what: str) -> None:
    source = pydicom.dcmread(pydicom.data.get_testdata_file("MR_small_jp2klossless.dcm", download=False))
    pixels = {"added": source.PixelData + bytes(100), "cut": source.PixelData[:-50], "none": source.PixelData[:8]}
    source.PixelData = pixels[what]
    source["PixelData"].is_undefined_length = True
    path = tmp_path / "a.dcm"
    source.save_as(path)
    with pytest.raises(InputError, match="broken fragments") as caught:
        DicomSeriesReader().read([path, path])
    assert caught.value.where == str(path)


def test_other_files_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "s")
    (tmp_path / "s" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "s" / "notes.txt").write_text("a patient's name")
    (tmp_path / "s" / "deeper").mkdir()
    assert DicomSeriesReader().read(tmp_path / "s").facts["other_files"] == 2


def test_two_series_are_listed_without_names_and_one_can_be_chosen(tmp_path: Path) -> None:
    first = [header(k) for k in range(SLICES)]
    second = [header(k, uid="1.2.4", number=7, modality="MR") for k in range(3)]
    save(tmp_path / "s", [*first, *second])
    with pytest.raises(InputError, match=r"(?=.*series 3 \(CT, 4 files\))(?=.*series 7 \(MR, 3 files\))") as caught:
        DicomSeriesReader().read(tmp_path / "s")
    assert "Doe" not in str(caught.value)
    assert "4711" not in str(caught.value)
    assert DicomSeriesReader(series=7).read(tmp_path / "s").voxels.shape == (COLUMNS, ROWS, 3)
    with pytest.raises(InputError, match="expected one series of number 9"):
        DicomSeriesReader(series=9).read(tmp_path / "s")


def changed(what: str, headers: list[FileDataset]) -> None:
    second = headers[1]
    if what == "gap":
        del headers[2]
        headers += [header(4), header(5)]
    elif what == "double":
        second.ImagePositionPatient = headers[0].ImagePositionPatient
    elif what == "size":
        second.Rows, second.PixelData = ROWS - 1, pixels()[1, 1:].tobytes()
    elif what == "direction":
        second.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    elif what == "spacing":
        second.PixelSpacing = [0.7, 0.5]
    elif what == "tilt":
        for k, data in enumerate(headers):
            data.ImagePositionPatient = [float(v) for v in k * (STEP * AXES[:, 2] + 0.5 * AXES[:, 1])]
    elif what == "bent":
        second.ImagePositionPatient = [float(v) for v in np.array(second.ImagePositionPatient) + AXES[:, 0]]
    elif what == "one":
        del headers[1:]
    elif what == "colour":
        second.SamplesPerPixel, second.PhotometricInterpretation, second.PlanarConfiguration = 3, "RGB", 0
    elif what == "palette":
        second.PhotometricInterpretation = "PALETTE COLOR"
    elif what == "frames":
        second.NumberOfFrames = 2
    elif what == "vectors":
        second.ImageOrientationPatient = [2, 0, 0, 0, 1, 0]
    elif what == "no position":
        del second.ImagePositionPatient
    elif what == "no spacing":
        del second.PixelSpacing
    elif what == "short":
        second.PixelData = second.PixelData[:20]
    elif what == "claim":
        second.Rows = second.Columns = 65535


@pytest.mark.parametrize(
    ("what", "found", "names_file"),
    [
        ("gap", r"5 mm between [x-z].dcm and [x-z].dcm, 2.5 mm between most slices", False),
        ("double", "at one place", False),
        ("size", "5 × 5 pixels; expected 5 × 6, as in", True),
        ("direction", "another slice direction", True),
        ("spacing", "pixel size", True),
        ("tilt", "gantry tilt of 11.3°", False),  # atan(0.5 / 2.5)
        ("bent", "off one line", False),
        ("one", "one slice", False),
        ("colour", "colour picture", True),
        ("palette", "PALETTE COLOR", True),
        ("frames", "several frames in one file", True),
        ("vectors", "no pair of unit vectors", True),
        ("no position", "no valid ImagePositionPatient", True),
        ("no spacing", "no valid PixelSpacing", True),
        ("claim", "header that claims 65535 × 65535 voxels", True),
        ("short", r"20 bytes of pixels; expected 60 \(5 × 6 pixels\)", True),
    ],
)
def test_refused(tmp_path: Path, what: str, found: str, names_file: bool) -> None:
    headers = [header(k) for k in range(SLICES)]
    changed(what, headers)
    paths = save(tmp_path / "s", headers)
    with pytest.raises(InputError, match=found) as caught:
        DicomSeriesReader().read(tmp_path / "s")
    if names_file and what not in ("size", "direction", "spacing"):
        assert caught.value.where == str(paths[1])
    else:
        assert caught.value.where.startswith(str(tmp_path / "s"))


def test_files_that_are_no_dicom(tmp_path: Path) -> None:
    paths = save(tmp_path / "s")
    for bad in (tmp_path / "s" / "text.dcm", tmp_path / "elsewhere.txt"):
        bad.write_text("x" * 300)
        with pytest.raises(InputError, match="no DICOM file") as caught:
            DicomSeriesReader().read([*paths, bad])
        assert caught.value.where == str(bad)
    with pytest.raises(InputError, match="no DICOM file") as caught:
        DicomSeriesReader().read(tmp_path / "s")
    assert caught.value.where == str(tmp_path / "s" / "text.dcm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no DICOM file"):
        DicomSeriesReader().read(tmp_path / "empty")


def test_load_imaged_does_not_fall_back_on_a_reader_that_sees_no_gap(tmp_path: Path) -> None:
    paths = save(tmp_path / "s")
    load: Any = LoadImaged("image", reader=DicomSeriesReader(), ensure_channel_first=True)
    image = load({"image": str(tmp_path / "s")})["image"]
    np.testing.assert_array_equal(image.numpy()[0], pixels().transpose(2, 1, 0) * 0.5 - 1024)
    paths[2].unlink()
    with pytest.raises(InputError, match="a slice may be missing"):
        load({"image": str(tmp_path / "s")})


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_jp2klossless.dcm"])
def test_headers_are_read_without_the_pixels(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pydicom.dcmread(pydicom.data.get_testdata_file(name, download=False))
    (tmp_path / "s").mkdir()
    for k in range(3):
        data = copy.deepcopy(source)
        data.ImagePositionPatient = [*source.ImagePositionPatient[:2], source.ImagePositionPatient[2] + 2.0 * k]
        data.save_as(tmp_path / "s" / f"{k}.dcm")
    expected = DicomSeriesReader().read(tmp_path / "s").voxels
    read = []
    original = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *a, **k: read.append(original(*a, **k)) or read[-1])
    np.testing.assert_array_equal(DicomSeriesReader().read(tmp_path / "s").voxels, expected)
    assert len(read) == 3
    assert not any("PixelData" in dataset for dataset in read)


def test_a_modality_that_is_no_term_of_the_standard_stays_out_of_the_facts(tmp_path: Path) -> None:
    save(tmp_path / "s", [header(k, modality="JANEDOE") for k in range(SLICES)])
    assert DicomSeriesReader().read(tmp_path / "s").facts["modality"] == "unknown"
