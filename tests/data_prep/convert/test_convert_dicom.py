"""A DICOM archive in, DICOM segmentations out, and nothing that tells who was scanned in between."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from grn_monai.cli import main as grn_monai
from grn_monai.data.cohort import read_cohort
from tests.data.readers.dicom_files import read_segments, region, save_enhanced, save_series, save_ultrasound

Run = Callable[..., tuple[int, str, Path]]
SHAPE = (5, 40, 60)  # frames, rows, columns
BOX = (10, 4, 49, 35)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A sweep with burned-in text in its margin, an enhanced volume, and a CT series of the same person."""
    src = tmp_path / "src"
    (src / "us").mkdir(parents=True)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 200, SHAPE, dtype=np.uint8)
    frames[:, :3] = 255  # the name, in the margin
    save_ultrasound(src / "us" / "sweep.dcm", frames, [region(BOX, delta=(0.03, 0.02))], OperatorsName="Roe^Richard")
    positions = [(0.0, 0.0, 0.5 * i) for i in range(6)]
    save_enhanced(src / "us" / "volume", rng.integers(0, 256, (6, 30, 20), dtype=np.uint8), positions)
    ct = rng.integers(0, 3000, (4, 16, 20)).astype(np.int16)
    save_series(src / "ct", ct, (-10, 5, 100), (1, 0, 0, 0, 1, 0), (2.5, 0.7, 0.7))
    (src / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"junk")
    return src


def test_an_archive_is_converted_without_who_was_scanned(archive: Path, convert: Run) -> None:
    code, said, out = convert("--frame-spacing", 0.5, "--workers", 2)
    assert code == 0, said
    assert "mixes CT and US" in said
    conversion = json.loads((out / "conversion.json").read_text())
    assert conversion["passed_over"] == {"DICOM that is no ultrasound, CT or MR image": 1}
    items = read_cohort(out)["unlabeled"]
    assert [(item["subject"], item["scan"]) for item in items] == [("sub-001", f"sub-001_scan-{i}") for i in (1, 2, 3)]
    told = [b"Doe", b"Jane", b"4711", b"19700101", b"20240102", b"Roe"]
    for path in out.rglob("*.*"):
        content = nib.load(path).header.binaryblock if path.suffix == ".gz" else path.read_bytes()
        assert not [secret for secret in told if secret in content], path
    rows = {row["scan"]: row for row in csv.DictReader((out / "deidentification.csv").open())}
    sweep = rows["sub-001_scan-2"]
    assert {"PatientName", "PatientID", "PatientBirthDate", "OperatorsName"} <= set(sweep["attributes removed"].split())
    assert sweep["burned-in text"] == "margins removed: left 10 px, top 4 px, right 10 px, bottom 4 px"
    assert len({Path(p).name for e in json.loads((out.parent / "out.link.json").read_text())["scans"].values()
                for p in e["files"]}) == 6  # fmt: skip


def test_the_sweep_is_cropped_and_calibrated(archive: Path, convert: Run) -> None:
    code, said, out = convert("--frame-spacing", 0.5, src=archive / "us" / "sweep.dcm")
    assert code == 0, said
    [item] = read_cohort(out)["unlabeled"]
    image = nib.load(item["image"])
    assert image.shape == (40, 5, 32)
    np.testing.assert_allclose(image.header.get_zooms(), (0.3, 0.5, 0.2), rtol=1e-6)
    import pydicom

    frames = pydicom.dcmread(archive / "us" / "sweep.dcm").pixel_array
    np.testing.assert_array_equal(np.asarray(image.dataobj), frames[:, 4:36, 10:50].transpose(2, 0, 1))


def test_segmentations_go_back_to_where_the_scans_came_from(archive: Path, convert: Run, tmp_path: Path) -> None:
    _, _, out = convert("--frame-spacing", 0.5)
    cohort = read_cohort(out)
    made = {}
    (tmp_path / "seg").mkdir()
    for item in cohort["unlabeled"]:
        image = nib.load(item["image"])
        labels = np.random.default_rng(7).integers(0, 7, image.shape).astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "seg" / f"{item['scan']}_seg.nii.gz")
        made[item["scan"]] = labels
    assert grn_monai(["seg", str(tmp_path / "seg"), "--link", f"{out}.link.json", "--out", str(tmp_path / "dcm")]) == 0
    files = sorted(p.name for p in (tmp_path / "dcm").rglob("*.dcm"))
    assert files == [f"sub-001_scan-{i}_seg.dcm" for i in (1, 2, 3)]
    # The sweep: 40 columns, 5 frames and 32 rows of the region, at their place in the frames.
    sweep = read_segments(tmp_path / "dcm" / "sub-001_scan-2_seg.dcm")
    assert (sweep.Rows, sweep.Columns) == SHAPE[1:]
    labels = made["sub-001_scan-2"]
    for number in sweep.segment_numbers:
        mask = sweep.get_pixels_by_source_frame(
            sweep.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID,
            range(1, 6), segment_numbers=[number],
        )[..., 0]  # fmt: skip
        expected = np.zeros(SHAPE, bool)
        expected[:, 4:36, 10:50] = (labels == number).transpose(1, 2, 0)
        np.testing.assert_array_equal(mask.astype(bool), expected)
    # The series: the same voxels at the same place, whatever the order of its axes.
    ct = read_segments(tmp_path / "dcm" / "sub-001_scan-1_seg.dcm").get_volume(combine_segments=True)
    affine = np.diag([-1, -1, 1, 1]) @ ct.affine
    truth = nib.load(next(i["image"] for i in cohort["unlabeled"] if i["scan"] == "sub-001_scan-1")).affine
    to_truth = np.linalg.inv(truth) @ affine
    index = np.argwhere(ct.array > 0)
    there = np.round((to_truth[:3, :3] @ index.T).T + to_truth[:3, 3]).astype(int)
    labels = made["sub-001_scan-1"]
    assert len(index) == np.count_nonzero(labels)
    np.testing.assert_array_equal(ct.array[tuple(index.T)], labels[tuple(there.T)])


def test_frames_taken_whole_are_named(tmp_path: Path, convert: Run) -> None:
    src = tmp_path / "src"
    src.mkdir()
    save_ultrasound(src / "a.dcm", np.random.default_rng(0).integers(0, 200, SHAPE, dtype=np.uint8), None)
    options = ("--spacing", 0.3, 0.5, 0.2)
    code, said, _ = convert(*options)
    assert code == 1
    assert "--whole-frame" in said
    code, said, out = convert(*options, "--whole-frame")
    assert code == 0, said
    assert "frames taken whole, text in them included; look at sub-001_scan-1" in said
    assert "sub-001_scan-1" in (out / "deidentification.csv").read_text()


def test_a_series_whose_classes_were_emptied_is_still_one(tmp_path: Path, convert: Run) -> None:
    import pydicom

    ct = np.random.default_rng(0).integers(0, 3000, (4, 16, 20)).astype(np.int16)
    for path in save_series(tmp_path / "src", ct, (-10, 5, 100), (1, 0, 0, 0, 1, 0), (2.5, 0.7, 0.7)):
        header = pydicom.dcmread(path)
        header.SOPClassUID = header.SOPInstanceUID = header.SeriesInstanceUID = header.StudyInstanceUID = ""
        header.save_as(path)  # not enforcing the format keeps the file's own header
    code, said, out = convert()
    assert code == 0, said
    [item] = read_cohort(out)["unlabeled"]
    assert nib.load(item["image"]).shape == (20, 16, 4)
    assert read_cohort(out)["modality"] == {"0": "CT"}
