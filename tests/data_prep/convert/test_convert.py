"""Every format of a lab, from its files to a cohort that the bundles take, through the command line."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from scipy.io import savemat

from data_prep.convert.names import pseudonym
from data_prep.convert.one import Job, convert_scan
from data_prep.convert.plan import Request, plan_conversion
from grn_monai.data.cohort import read_cohort
from tests.data_prep.convert.conftest import AFFINE, layers, save_nifti, speckle

Run = Callable[..., tuple[int, str, Path]]
SPACING = ("--spacing", 0.2, 0.25, 0.15)


def only_scan(out: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Voxels and affine of the one scan, and its record."""
    [(name, record)] = json.loads((out / "conversion.json").read_text())["scans"].items()
    image = nib.load(out / "images" / f"{name}.nii.gz")
    return np.asarray(image.dataobj), image.affine, record


def single(request: Request, tmp_path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
    """Convert the one scan of a request in this process (faster than the command, which the other tests go through)."""
    [source] = plan_conversion(request).sources
    record = convert_scan(Job(source, tmp_path / "i.nii.gz", tmp_path / "l.nii.gz"))
    image = nib.load(tmp_path / "i.nii.gz")
    return np.asarray(image.dataobj), image.affine, record


def test_nifti_mha_and_nrrd_keep_voxels_and_geometry(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    grey, label = speckle(), layers()
    save_nifti(src / "a.nii.gz", grey)
    save_nifti(src / "a_seg.nii.gz", label)
    image = sitk.GetImageFromArray(grey.transpose(2, 1, 0))
    image.SetSpacing((0.2, 0.25, 0.15))
    image.SetOrigin((-3.1, 2.0, 0.1))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    sitk.WriteImage(image, str(src / "b.mha"))
    sitk.WriteImage(image, str(src / "c.nrrd"))
    code, said, out = convert("--workers", 2)
    assert code == 0, said
    cohort = read_cohort(out)
    assert [item["subject"] for item in cohort["training"]] == ["a"]
    assert [item["subject"] for item in cohort["unlabeled"]] == ["b", "c"]
    a = nib.load(cohort["training"][0]["image"])
    assert a.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(a.dataobj), grey)
    np.testing.assert_allclose(a.affine, AFFINE, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(nib.load(cohort["training"][0]["label"]).dataobj), label)
    lps = np.array([[0, 0, 0.15], [0.2, 0, 0], [0, 0.25, 0]])
    for item in cohort["unlabeled"]:
        volume = nib.load(item["image"])
        np.testing.assert_array_equal(np.asarray(volume.dataobj), grey)
        np.testing.assert_allclose(volume.affine[:3, :3], np.diag([-1, -1, 1]) @ lps, atol=1e-6)
        np.testing.assert_allclose(volume.affine[:3, 3], [3.1, -2.0, 0.1], atol=1e-6)
    assert (out / "preview.png").stat().st_size > 10_000


@pytest.mark.parametrize("version", ["v5", "v7.3"])
def test_verasonics_envelope_to_b_mode(tmp_path: Path, version: str) -> None:
    src = tmp_path / "scan.mat"
    envelope = np.random.default_rng(1).rayleigh(1.0, (16, 12, 10)).astype(np.float32)  # depth, lateral, elevation
    if version == "v5":
        savemat(src, {"ImgData": envelope, "note": "x"})
    else:
        with h5py.File(src, "w") as file:
            file["ImgData"] = envelope.T  # MATLAB's order in HDF5
            file["ImgData"].attrs["MATLAB_class"] = np.bytes_("single")
    options = plan_options(spacing=(0.2, 0.25, 0.15), data="linear", dynamic_range_db=40.0)
    voxels, affine, record = single(Request(src, tmp_path / "out", options=options), tmp_path)
    db = 20 * np.log10(envelope.astype(np.float64).transpose(1, 2, 0) / envelope.max())
    expected = np.clip((db / 40 + 1) * 255, 0, 255)
    assert voxels.dtype == np.uint8
    np.testing.assert_allclose(voxels, expected, atol=0.51)
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (0.2, 0.25, 0.15), rtol=1e-6)
    assert nib.aff2axcodes(affine) == ("L", "S", "A")
    assert record["oriented"] is False
    assert record["intensity"]["kind"] == "linear"


def plan_options(**options: object) -> object:
    from data_prep.convert.source import ReadOptions

    return ReadOptions(**options)  # type: ignore[arg-type]


def test_what_the_file_does_not_say_is_asked_for(tmp_path: Path, convert: Run) -> None:
    savemat(tmp_path / "scan.mat", {"ImgData": np.random.default_rng(0).rayleigh(1, (16, 12, 10))})
    code, said, out = convert(src=tmp_path / "scan.mat")
    assert code == 1
    assert "no voxel size" in said or "spacing" in said
    assert not list((out / "images").iterdir())
    code, said, _ = convert(*SPACING, src=tmp_path / "scan.mat")
    assert code == 1
    assert "--data rf, iq, linear" in said
    code, said, out = convert(*SPACING, "--data", "linear", src=tmp_path / "scan.mat")
    assert code == 0, said
    assert only_scan(out)[2]["shape"] == [12, 10, 16]


def test_raw_decibels_with_a_sidecar(tmp_path: Path) -> None:
    db = np.random.default_rng(2).uniform(-50, 10, (10, 12, 16)).astype("<f4")  # y, x, z
    db.tofile(tmp_path / "scan.raw")
    sidecar = {"shape": [10, 12, 16], "axes": "yxz", "dtype": "float32", "spacing_mm": [0.2, 0.25, 0.15],
               "scale": "db", "db_range": [-50, 10]}  # fmt: skip
    (tmp_path / "scan.json").write_text(json.dumps(sidecar))
    voxels, _, record = single(Request(tmp_path / "scan.raw", tmp_path / "out"), tmp_path)
    np.testing.assert_allclose(voxels, (db.transpose(1, 0, 2) + 50) / 60 * 255, atol=0.51)
    assert record["intensity"] == {"kind": "db", "dynamic_range_db": 60.0, "reference": "unit"}


def test_slice_pairs_of_a_table_become_volumes_with_labels(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    rows = ["image_path,mask_path"]
    for scan in ("p1_L", "p2_L"):
        grey, label = speckle(seed=len(rows)), layers()
        for i in range(10):
            (src / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey[:, i].T).save(src / "images" / f"{scan}_{i}.png")
            save_nifti(src / "masks" / f"{scan}_{i}.nii.gz", label[:, i, :, None], np.eye(4))
            rows.append(f"images/{scan}_{i}.png,masks/{scan}_{i}.nii.gz")
    (tmp_path / "pairs.csv").write_text("\n".join(rows[:1] + rows[:0:-1]))
    code, said, out = convert("--table", tmp_path / "pairs.csv", *SPACING)
    assert code == 0, said
    item = next(item for item in read_cohort(out)["training"] if item["subject"] == "p2_L")
    np.testing.assert_array_equal(np.asarray(nib.load(item["image"]).dataobj), grey)
    np.testing.assert_array_equal(np.asarray(nib.load(item["label"]).dataobj), label)
    np.testing.assert_allclose(nib.load(item["image"]).header.get_zooms(), (0.2, 0.25, 0.15), rtol=1e-6)


def test_structures_in_files_of_their_own_are_merged(tmp_path: Path, convert: Run) -> None:
    ct = np.random.default_rng(0).integers(-1000, 1500, (12, 10, 16)).astype(np.int16)
    folder = tmp_path / "src" / "s0007"
    save_nifti(folder / "ct.nii.gz", ct)
    truth = np.zeros(ct.shape, np.uint8)
    for i, name in enumerate(("autochthon_left", "autochthon_right", "iliopsoas_left", "iliopsoas_right"), start=1):
        part = np.zeros(ct.shape, np.uint8)
        part[2 * i : 2 * i + 2] = 1
        truth[part == 1] = i
        save_nifti(folder / "segmentations" / f"{name}.nii.gz", part)
    (tmp_path / "src" / "meta.csv").write_text("image_id;split\ns0007;test\n")
    code, said, out = convert()
    assert code == 0, said
    cohort = read_cohort(out)
    assert cohort["modality"] == {"0": "CT"}
    assert cohort["labels"]["4"] == "iliopsoas right"
    [item] = cohort["test"]
    np.testing.assert_array_equal(np.asarray(nib.load(item["label"]).dataobj), truth)
    image = nib.load(item["image"])
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(image.dataobj), ct)


def test_the_muscles_of_the_leg_are_renumbered(tmp_path: Path, convert: Run) -> None:
    folder = tmp_path / "src" / "train" / "07"
    folder.mkdir(parents=True)
    label = np.random.default_rng(0).choice([0, 100, 150, 200], (16, 10, 12)).astype(np.uint8)
    for name, voxels in (("x1.mha", speckle((16, 10, 12))), ("masksX1.mha", label)):
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / name))
    code, said, out = convert()
    assert code == 0, said
    [item] = read_cohort(out)["training"]
    expected = np.select([label == 100, label == 150, label == 200], [1, 2, 3]).transpose(2, 1, 0)
    np.testing.assert_array_equal(np.asarray(nib.load(item["label"]).dataobj), expected)


def test_a_batch_goes_on_and_a_repeated_run_does_only_what_failed(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    for i in range(3):
        save_nifti(src / f"s{i}.nii.gz", speckle(seed=i))
        save_nifti(src / f"s{i}_seg.nii.gz", layers())
    (src / "s1.nii.gz").write_bytes((src / "s1.nii.gz").read_bytes()[:200])
    save_nifti(src / "s2_seg.nii.gz", layers() + 3)
    code, said, out = convert()
    assert code == 1
    assert "2 scans failed" in said
    assert "s1.nii.gz: found a file that cannot be decoded" in said
    assert "s2_seg.nii.gz: found unknown label values 7, 8, 9" in said
    assert sorted(p.name for p in out.rglob("*.nii.gz")) == ["s0.nii.gz", "s0.nii.gz"]
    first = (out / "images" / "s0.nii.gz").stat()

    save_nifti(src / "s1.nii.gz", speckle(seed=1))
    save_nifti(src / "s2_seg.nii.gz", layers())
    code, said, out = convert()
    assert code == 0, said
    assert "2 scans converted, 1 kept from before" in said
    assert (out / "images" / "s0.nii.gz").stat().st_mtime_ns == first.st_mtime_ns
    assert len(read_cohort(out)["training"]) == 3

    save_nifti(src / "s0.nii.gz", speckle(seed=9))  # a source that has changed is converted again
    os.utime(src / "s0.nii.gz", ns=(1, 1))
    code, said, out = convert()
    assert "1 scan converted, 2 kept" in said
    np.testing.assert_array_equal(np.asarray(nib.load(out / "images" / "s0.nii.gz").dataobj), speckle(seed=9))


def test_pseudonyms_and_what_stays_outside_the_cohort(tmp_path: Path, convert: Run) -> None:
    src, key = tmp_path / "src", tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef\n")
    image = nib.Nifti1Image(speckle(), AFFINE)
    image.header["descrip"] = b"Doe^Jane 1970-01-01"
    src.mkdir()
    nib.save(image, src / "Doe_Jane.nii.gz")
    code, said, out = convert("--pseudonym-key", key)
    assert code == 0, said
    subject = pseudonym("Doe_Jane", b"0123456789abcdef0123456789abcdef")
    assert [item["scan"] for item in read_cohort(out)["unlabeled"]] == [f"{subject}_scan-1"]
    for path in out.rglob("*"):
        assert "doe" not in path.name.lower()
        if path.is_file():
            content = path.read_bytes() if path.suffix != ".gz" else nib.load(path).header.binaryblock
            assert b"doe" not in content.lower()
    assert f"{subject}_scan-1,descrip,0,0," in (out / "deidentification.csv").read_text()
    link = tmp_path / "out.link.json"
    assert json.loads(link.read_text())["scans"][f"{subject}_scan-1"]["source_subject"] == "Doe_Jane"
    assert stat.S_IMODE(link.stat().st_mode) == 0o600


def test_hostile_names_stay_inside_the_cohort(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    save_nifti(src / "a.nii.gz", speckle())
    (tmp_path / "t.csv").write_text("image,subject,scan\na.nii.gz,../../evil,/etc/passwd\n")
    before = set(tmp_path.rglob("*"))
    code, said, out = convert("--table", tmp_path / "t.csv")
    assert code == 0, said
    new = set(tmp_path.rglob("*")) - before
    assert {p.relative_to(tmp_path).parts[0] for p in new} == {"out", "out.link.json"}
    assert [item["scan"] for item in read_cohort(out)["unlabeled"]] == ["evil_etc-passwd"]


def test_a_pickle_is_never_loaded(tmp_path: Path, convert: Run) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "exploded",))

    src = tmp_path / "src"
    src.mkdir()
    for name in ("a.mat", "b.uff", "c.raw", "d.dcm", "e.nii", "f.mha", "g.nrrd", "h.nii.gz"):
        (src / name).write_bytes(pickle.dumps(Bomb()))
    (src / "c.json").write_bytes(pickle.dumps(Bomb()))
    code, said, _ = convert("--workers", 2)
    assert code == 1
    assert "8 scans failed" in said
    assert not (tmp_path / "exploded").exists()
    assert "Traceback" not in said


def test_folders_that_are_not_to_be_written_are_refused(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    save_nifti(src / "a.nii.gz", speckle())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for options, out, found in (
        ((), "full", "other content"),
        ((), "src/out", "a folder inside"),
        (("--link", tmp_path / "out" / "link.json"), "out", "a link file inside the cohort"),
        (("--pseudonym-key", tmp_path / "none"), "out", "no readable file"),
        (("--label-names", tmp_path / "none"), "out", "no readable JSON"),
    ):
        code, said, _ = convert(*options, out=out)
        assert code == 2, said
        assert found in said
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_single_pictures_of_luminous_are_volumes_of_one_slice(tmp_path: Path, convert: Run) -> None:
    pictures = {f"{i}_Bmode.tif": np.random.default_rng(i).integers(0, 255, (60, 80), dtype=np.uint8) for i in (1, 12)}
    for folder in ("B-mode", "Masks"):
        (tmp_path / "src" / folder).mkdir(parents=True)
    for name, grey in pictures.items():
        Image.fromarray(grey).save(tmp_path / "src" / "B-mode" / name)
        mask = np.where(grey > 100, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "src" / "Masks" / name.replace("Bmode", "Mask"))
    code, said, out = convert("--spacing", 0.2, 1, 0.2)
    assert code == 0, said
    for item in read_cohort(out)["training"]:
        grey = pictures[f"{item['scan'].removeprefix('image-')}_Bmode.tif"]
        np.testing.assert_array_equal(np.asarray(nib.load(item["image"]).dataobj)[:, 0].T, grey)
        np.testing.assert_array_equal(np.asarray(nib.load(item["label"]).dataobj)[:, 0].T, grey > 100)
    with Image.open(out / "preview.png") as sheet:  # the plane of the pictures alone, not strips of one voxel
        assert sheet.height < 2 * sheet.width
