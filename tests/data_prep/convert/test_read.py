"""Reading one scan and its label as the request has it: what is asked for, what is refused, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from scipy.io import savemat

from data_prep.convert.deidentify import removed_metadata
from data_prep.convert.geometry import has_voxel_size
from data_prep.convert.one import Job, convert_scan
from data_prep.convert.read import read_image, read_label
from data_prep.convert.source import ReadOptions, Source
from grn_monai.data.readers import probe_affine
from grn_monai.errors import InputError
from tests.data.readers.dicom_files import region, save_enhanced, save_series, save_ultrasound
from tests.data_prep.convert.conftest import layers, save_nifti, speckle

STEPS = (0.2, 0.25, 0.15)
PDATA = {"Size": np.array([4.0, 5, 6]), "PDelta": np.array([1.5, 2.5, 0.5]), "Origin": np.array([-3.0, 3.75, 0.0])}
VANTAGE = {"PData": PDATA, "Trans": {"frequency": 7.7}, "Resource": {"Parameters": {"speedOfSound": 1540.0}}}


def source(kind: str, path: Path, label: Path | None = None, **options: Any) -> Source:
    return Source(kind, (path,), labels=(label,) if label else (), options=ReadOptions(**options))


def converted(scan: Source, folder: Path) -> tuple[nib.Nifti1Image, dict[str, Any]]:
    record = convert_scan(Job(scan, folder / "out.nii.gz", folder / "out_label.nii.gz"))
    json.dumps(record)  # it goes from process to process and into files
    return nib.load(folder / "out.nii.gz"), record


def refusal(scan: Source, folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        convert_scan(Job(scan, folder / "out.nii.gz", folder / "out_label.nii.gz"))
    assert not (folder / "out.nii.gz").exists()
    return str(caught.value)


def bare_volume(folder: Path, ending: str, voxels: np.ndarray) -> Path:
    """A volume whose header says nothing of the size of its voxels."""
    path = folder / f"a{ending}"
    if ending.startswith(".nii"):
        image = nib.Nifti1Image(voxels, None)
        image.header["sform_code"] = image.header["qform_code"] = 0
        nib.save(image, path)
        return path
    size = " ".join(map(str, voxels.shape))
    if ending == ".nrrd":
        text = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {size}\nencoding: raw\n\n"
    else:
        text = f"ObjectType = Image\nNDims = 3\nDimSize = {size}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    path.write_bytes(text.encode() + voxels.tobytes(order="F"))
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_no_voxel_size_is_invented_for_a_header_without_one(tmp_path: Path, ending: str) -> None:
    voxels = speckle()
    path = bare_volume(tmp_path, ending, voxels)
    said = refusal(source("volume", path), tmp_path)
    assert "a header without a voxel size" in said
    assert "--spacing X Y Z" in said
    image, record = converted(source("volume", path, spacing=STEPS), tmp_path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), voxels)
    np.testing.assert_allclose(image.affine, probe_affine(voxels.shape, STEPS), atol=1e-6)
    assert record["oriented"] is False
    np.testing.assert_allclose(record["affine"], probe_affine(voxels.shape, STEPS))


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("spacing", [STEPS, (1.0, 1.0, 1.0)])
def test_headers_of_simpleitk_tell_the_voxel_size(tmp_path: Path, ending: str, spacing: Any) -> None:
    image = sitk.GetImageFromArray(speckle())
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    assert has_voxel_size(tmp_path / f"a{ending}")


def test_old_headers_tell_the_voxel_size(tmp_path: Path) -> None:
    image = nib.Nifti1Image(speckle(), None)
    image.header.set_zooms(STEPS)
    nib.save(image, tmp_path / "a.nii")
    assert has_voxel_size(tmp_path / "a.nii")
    text = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nspacings: {}\nencoding: raw\n\n"
    for spacings, known in (("0.2 0.3 0.4", True), ("nan nan nan", False), ("0.2 nan 0.4", False)):
        (tmp_path / "a.nrrd").write_bytes(text.format(spacings).encode() + bytes(8))
        assert has_voxel_size(tmp_path / "a.nrrd") is known


def make_all(folder: Path) -> dict[str, tuple[str, Path]]:
    """One scan of every kind that has voxels of 0.3 × 0.5 × 0.1 mm in its file."""
    folder.mkdir()
    save_nifti(folder / "a.nii.gz", speckle(), np.diag([0.3, 0.5, 0.1, 1]))
    savemat(folder / "a.mat", {"v": speckle((4, 5, 6)), **VANTAGE})
    speckle((3, 4, 5)).tofile(folder / "a.raw")
    about = {"shape": [3, 4, 5], "axes": "xyz", "dtype": "uint8", "spacing_mm": [0.3, 0.5, 0.1]}
    (folder / "a.json").write_text(json.dumps(about))
    save_ultrasound(folder / "us.dcm", speckle((5, 24, 32)), [region((4, 3, 23, 18), delta=(0.03, 0.01))])
    save_series(folder / "ct", speckle((4, 16, 20)).astype(np.int16), (0, 0, 0), (1, 0, 0, 0, 1, 0), (0.1, 0.5, 0.3))
    return {
        "volume": ("volume", folder / "a.nii.gz"), "mat": ("verasonics", folder / "a.mat"),
        "raw": ("raw", folder / "a.raw"), "us": ("dicom-us", folder / "us.dcm"), "ct": ("dicom-series", folder / "ct"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["volume", "mat", "raw", "us", "ct"])
def test_a_spacing_fills_in_and_never_replaces_what_the_file_says(tmp_path: Path, kind: str) -> None:
    reader, path = make_all(tmp_path / "src")[kind]
    agreed = read_image(source(reader, path, spacing=(0.3, 0.5, 0.1005)))
    assert agreed.spacing == pytest.approx((0.3, 0.5, 0.1), rel=1e-6)
    said = refusal(source(reader, path, spacing=(0.3, 0.5, 0.12), data="grey"), tmp_path)
    assert "0.12 mm given along Z, where the file itself says 0.1 mm" in said
    assert "--spacing X Y Z" in said


def test_the_distance_of_frames_that_a_volume_has_is_not_replaced(tmp_path: Path) -> None:
    positions = [(0.0, 0.0, 0.5 * i) for i in range(6)]
    save_enhanced(tmp_path / "v.dcm", speckle((6, 30, 20)), positions)
    assert read_image(source("dicom-enhanced-us", tmp_path / "v.dcm", frame_spacing=0.5)).voxels.size == 3600
    said = refusal(source("dicom-enhanced-us", tmp_path / "v.dcm", frame_spacing=0.7), tmp_path)
    assert "frame_spacing 0.7 mm given, where the file itself says 0.5 mm" in said
    sweep = save_ultrasound(tmp_path / "us.dcm", speckle((5, 24, 32)), [region((4, 3, 23, 18))])
    said = refusal(source("dicom-us", sweep, spacing=(0.2, 0.5, 0.2), frame_spacing=0.7), tmp_path)
    assert "--frame-spacing: found 0.7 mm, and 0.5 mm along Y as --spacing" in said


def test_a_mat_label_is_read_with_the_axes_of_its_image(tmp_path: Path) -> None:
    label = np.random.default_rng(3).integers(0, 7, (4, 5, 6)).astype(np.uint8)  # y, x, z
    savemat(tmp_path / "a.mat", {"v": speckle((4, 5, 6)), **VANTAGE})
    savemat(tmp_path / "l.mat", {"label": label})  # without a PData of its own
    scan = source("verasonics", tmp_path / "a.mat", tmp_path / "l.mat")
    image = read_image(scan)
    assert image.facts["y_reversed"] is True
    found = read_label(scan, image)
    assert found is not None
    np.testing.assert_array_equal(found, label.transpose(1, 0, 2)[:, ::-1])


def test_the_label_of_one_volume_of_several_holds_that_volume_or_all(tmp_path: Path) -> None:
    label = np.random.default_rng(3).integers(0, 7, (6, 6, 6, 3)).astype(np.uint8)
    savemat(tmp_path / "a.mat", {"v": speckle((6, 6, 18)).reshape(6, 6, 6, 3)})
    for stored in (label, label[..., 1]):
        savemat(tmp_path / "l.mat", {"label": stored})
        scan = source("verasonics", tmp_path / "a.mat", tmp_path / "l.mat", spacing=STEPS, volume=2, axes="yxzt")
        found = read_label(scan, read_image(scan))
        assert found is not None
        np.testing.assert_array_equal(found, label[..., 1].transpose(1, 0, 2))


def test_a_nifti_label_of_a_turned_volume_is_refused_unless_it_was_drawn_on_it(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"v": speckle((4, 5, 6)), **VANTAGE})
    label = save_nifti(tmp_path / "l.nii.gz", layers((5, 4, 6)), np.eye(4))
    scan = source("verasonics", tmp_path / "a.mat", label, data="grey")
    assert "whose Y is turned round on reading" in refusal(scan, tmp_path)
    save_nifti(label, layers((5, 4, 6)), read_image(scan).affine)
    _, record = converted(scan, tmp_path)
    assert record["labelled"] is True
    # Without that turn, the order of the voxels is that of the cohort's volume.
    savemat(tmp_path / "b.mat", {"v": speckle((6, 5, 4))})
    scan = source("verasonics", tmp_path / "b.mat", label, spacing=STEPS)
    found = read_label(scan, read_image(scan))
    assert found is not None
    np.testing.assert_array_equal(found, layers((5, 4, 6)))


@pytest.mark.parametrize(("order", "turn"), [("columns-first", True), ("rows-first", False)])
def test_square_masks_ask_for_their_order(tmp_path: Path, order: str, turn: bool) -> None:
    pictures, masks = speckle((3, 8, 8)), np.random.default_rng(1).integers(0, 7, (3, 8, 8)).astype(np.uint8)
    files, labels = [], []
    for k in range(3):
        files.append(tmp_path / f"{k}.png")
        Image.fromarray(pictures[k]).save(files[-1])
        labels.append(save_nifti(tmp_path / f"{k}.nii.gz", masks[k].T if turn else masks[k], np.eye(4)))
    scan = Source("slices", tuple(files), labels=tuple(labels), options=ReadOptions(spacing=STEPS))
    assert "--mask-order ORDER" in refusal(scan, tmp_path)
    scan = Source("slices", tuple(files), labels=tuple(labels), options=ReadOptions(spacing=STEPS, mask_order=order))
    found = read_label(scan, read_image(scan))
    assert found is not None
    np.testing.assert_array_equal(found, masks.transpose(2, 0, 1))


def test_colour_is_taken_by_an_option(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)).save(path)
    assert "--colour luminance" in refusal(source("slices", path, spacing=STEPS), tmp_path)
    assert read_image(source("slices", path, spacing=STEPS, colour="luminance")).voxels.shape == (9, 1, 8)


def test_a_frame_is_taken_whole_only_where_the_user_says_so(tmp_path: Path) -> None:
    pixels = speckle((5, 24, 32))
    bare = save_ultrasound(tmp_path / "a.dcm", pixels, None)
    void = save_ultrasound(tmp_path / "b.dcm", pixels, [region((0, 0, 80, 80))])
    for path in (bare, void):
        said = refusal(source("dicom-us", path, spacing=STEPS), tmp_path)
        assert "names may be burned in" in said
        assert "--crop X0 Y0 X1 Y1" in said
        assert "--whole-frame" in said
        assert read_image(source("dicom-us", path, spacing=STEPS, crop=(2, 3, 10, 12))).voxels.shape == (9, 5, 10)
        whole = read_image(source("dicom-us", path, spacing=STEPS, whole_frame=True))
        assert whole.facts["picture_from"] == "frame"
        np.testing.assert_array_equal(whole.voxels, pixels.transpose(2, 0, 1))
    # A region over the whole frame tells where the picture is.
    full = save_ultrasound(tmp_path / "c.dcm", pixels, [region((0, 0, 31, 23))])
    assert read_image(source("dicom-us", full, frame_spacing=0.5)).facts["picture_from"] == "region"


def test_several_volumes_are_asked_for_in_the_numbers_of_the_command_line(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    savemat(tmp_path / "a.mat", {"v": array})
    said = refusal(source("verasonics", tmp_path / "a.mat", spacing=STEPS), tmp_path)
    assert "found 3 volumes (frames over time)" in said
    assert "--volume N" in said
    said = refusal(source("verasonics", tmp_path / "a.mat", spacing=STEPS, volume=4), tmp_path)
    assert "found volume 4 asked for, of 3; expected a number from 1 to 3" in said
    volume = read_image(source("verasonics", tmp_path / "a.mat", spacing=STEPS, volume=3))
    np.testing.assert_array_equal(volume.voxels, array[..., 2].transpose(1, 2, 0))
    sweep = save_ultrasound(tmp_path / "us.dcm", speckle((5, 24, 32)), [region((4, 3, 23, 18))])
    said = refusal(source("dicom-us", sweep, frame_spacing=0.5, frames=(3, 9)), tmp_path)
    assert "frames 3 to 9, counted from 1" in said
    assert "--frames FIRST LAST" in said


def test_names_of_variables_stay_out_of_what_is_recorded(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"doe_jane": speckle((6, 5, 4))})
    _, record = converted(source("verasonics", tmp_path / "a.mat", spacing=STEPS), tmp_path)
    assert record.pop("private") == {"variable": "doe_jane"}
    assert "doe" not in json.dumps(record)
    _, record = converted(source("volume", save_nifti(tmp_path / "b.nii.gz", speckle())), tmp_path)
    assert record["private"] == {}


def test_free_keys_of_a_header_are_counted_not_named(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(speckle())
    image.SetMetaData("Doe Jane", "x")
    image.SetMetaData("0010|0010", "Doe^Jane")
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    removed = removed_metadata(source("volume", tmp_path / "a.nrrd"))
    assert removed == {"attributes": ["0010|0010"], "others": 1, "private": 0}


@pytest.mark.parametrize("data", [None, "rf", "linear", "db", "grey"])
def test_complex_numbers_are_iq_whatever_the_other_scans_are(tmp_path: Path, data: str | None) -> None:
    rng = np.random.default_rng(0)
    savemat(tmp_path / "a.mat", {"v": rng.normal(size=(6, 5, 4)) + 1j * rng.normal(size=(6, 5, 4))})
    _, record = converted(source("verasonics", tmp_path / "a.mat", spacing=STEPS, data=data), tmp_path)
    assert record["intensity"]["kind"] == "iq"


def test_what_the_numbers_are_is_asked_for_by_option_and_column(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"v": np.random.default_rng(0).rayleigh(1, (6, 5, 4))})
    said = refusal(source("verasonics", tmp_path / "a.mat", spacing=STEPS), tmp_path)
    assert "--data rf, iq, linear" in said
    assert "column `data` of the table" in said
    said = refusal(source("verasonics", tmp_path / "a.mat", spacing=STEPS, data="iq"), tmp_path)
    assert said.startswith(str(tmp_path / "a.mat"))
    assert "--data KIND" in said


@pytest.mark.parametrize("wrong", [0.0, -60.0, float("nan"), float("inf")])
def test_a_dynamic_range_that_is_none_is_refused(tmp_path: Path, wrong: float) -> None:
    savemat(tmp_path / "a.mat", {"v": np.random.default_rng(0).rayleigh(1, (6, 5, 4))})
    scan = source("verasonics", tmp_path / "a.mat", spacing=STEPS, data="linear", dynamic_range_db=wrong)
    assert "--dynamic-range" in refusal(scan, tmp_path)


def test_a_raw_file_without_a_sidecar_asks_for_the_sidecar_alone(tmp_path: Path) -> None:
    speckle().tofile(tmp_path / "a.raw")
    said = refusal(source("raw", tmp_path / "a.raw"), tmp_path)
    assert "a.json" in said
    assert "On the command line" not in said
    (tmp_path / "a.json").write_text(json.dumps({"shape": [12, 10, 16], "axes": "xyz", "dtype": "uint8"}))
    assert "--spacing X Y Z" in refusal(source("raw", tmp_path / "a.raw"), tmp_path)
    assert read_image(source("raw", tmp_path / "a.raw", spacing=STEPS)).spacing == pytest.approx(STEPS)


def test_the_label_values_of_the_source_are_those_allowed(tmp_path: Path) -> None:
    image = save_nifti(tmp_path / "a.nii.gz", speckle())
    label = save_nifti(tmp_path / "l.nii.gz", layers() + 1)
    values = {str(value): value for value in range(1, 8)}
    scan = Source("volume", (image,), labels=(label,), label_values=values)
    found = read_label(scan, read_image(scan))
    assert found is not None
    np.testing.assert_array_equal(found, layers() + 1)
    scan = Source("volume", (image,), labels=(label,), label_values={"1": 1})
    assert "unknown label values 2, 3, 4, 5, 6, 7; expected values 0, 1." in refusal(scan, tmp_path)
    assert "unknown label values 7" in refusal(source("volume", image, label), tmp_path)


def test_an_option_of_the_label_is_called_so(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"v": speckle((6, 5, 4))})
    savemat(tmp_path / "l.mat", {"one": layers((6, 5, 4)), "two": layers((6, 5, 4))})
    said = refusal(source("verasonics", tmp_path / "a.mat", tmp_path / "l.mat", spacing=STEPS), tmp_path)
    assert "--label-variable NAME" in said
