"""What lies in a folder: labels beside scans, DICOM that is no scan, names that must not be told."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from data_prep.convert.discover import discover, single_source
from data_prep.convert.plan import Plan, Request, plan_conversion
from grn_monai.errors import InputError
from tests.data.readers.dicom_files import region, save_series, save_ultrasound
from tests.data_prep.convert.test_plan import plan, table, touch

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def stills(folder: Path, count: int) -> Path:
    """Single ultrasound pictures of one series."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    for i in range(count):
        frames = np.random.default_rng(i).integers(0, 200, (1, 20, 24), dtype=np.uint8)
        path = folder / f"US.1.2.840.{i}"
        save_ultrasound(path, frames, [region((0, 0, 23, 19))], SeriesInstanceUID=series, InstanceNumber=i + 1)
        dataset = pydicom.dcmread(path)
        if "NumberOfFrames" in dataset:
            del dataset.NumberOfFrames
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
        dataset.save_as(path)
    return folder


def test_stills_of_an_examination_are_no_sweep(tmp_path: Path) -> None:
    stills(tmp_path / "src" / "exam", 3)
    found = plan(tmp_path / "src").sources
    assert [len(source.files) for source in found] == [1, 1, 1]
    assert all("one of 3 in its series" in str(s.problem) and "--table" in str(s.problem) for s in found)


def test_single_frames_are_a_sweep_where_the_user_names_their_folder(tmp_path: Path) -> None:
    sweep = stills(tmp_path / "src" / "exam", 3)
    [source] = plan(sweep).sources
    assert (source.problem, [p.name for p in source.files]) == (None, [f"US.1.2.840.{i}" for i in range(3)])
    rows = table(tmp_path / "t.csv", "image,subject\nexam,P1\n")
    [source] = plan(tmp_path / "src", table=rows).sources
    assert (source.problem, len(source.files), source.subject) == (None, 3, "P1")


def test_dicom_without_a_picture_of_a_scan_is_passed_over(tmp_path: Path) -> None:
    src = tmp_path / "src"
    ct = np.random.default_rng(0).integers(0, 3000, (4, 8, 10)).astype(np.int16)
    files = save_series(src / "ct", ct, (0, 0, 0), (1, 0, 0, 0, 1, 0), (2, 1, 1))
    first = sorted((src / "ct").iterdir())[0] if files is None else Path(files[0])
    for name, change in (
        ("capture", {"SOPClassUID": SECONDARY_CAPTURE}),
        ("scout", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("nothing", {"PixelData": None}),
        ("no_rows", {"Rows": None}),
    ):
        dataset = pydicom.dcmread(first)
        for key, value in change.items():
            if value is None:
                delattr(dataset, key)
            else:
                setattr(dataset, key, value)
        dataset.SeriesInstanceUID = generate_uid()
        dataset.save_as(src / f"{name}.dcm")
    found = discover(src)
    assert [(s.kind, len(s.files), s.problem) for s in found.sources] == [("dicom-series", 4, None)]
    assert found.passed_over == {"DICOM that is no ultrasound, CT or MR image": 4}
    with pytest.raises(InputError, match="no ultrasound, CT or MR image"):
        single_source(src / "capture.dcm")


def test_dicom_files_are_known_by_their_content(tmp_path: Path) -> None:
    src = stills(tmp_path / "src", 1)
    (src / "US.1.2.840.0").rename(src / "a.img")  # as on disks of some scanners
    assert [s.kind for s in plan(src).sources] == ["dicom-us"]
    (src / "a.img").rename(src / "US.1.2.840.113619.2.1")
    assert [s.kind for s in plan(src).sources] == ["dicom-us"]


def test_raw_data_are_a_scan_only_with_their_sidecar(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.raw", "a.json", "b.dat", "c.bin", "c.bin.json", "index.dat", "v.mhd", "v.raw")
    found = plan(src)
    assert [s.files[0].name for s in found.sources] == ["a.raw", "c.bin", "v.mhd"]
    assert found.passed_over == {"raw data without a JSON sidecar": 2}
    assert single_source(src / "b.dat").kind == "raw"  # named by the user: its reader says what is missing


def test_pieces_of_names_are_not_told_as_endings(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.nii", "scan.doe_jane_19700101", "x.Doe", "b.txt", "c.PDF", "README")
    assert plan(src).passed_over == {"other": 2, ".txt": 1, ".pdf": 1, "(none)": 1}


def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.nii")
    os.mkfifo(src / "socket")
    assert plan(src).passed_over == {"(none)": 1}


def found_labels(found: Plan, src: Path) -> dict[str, list[str]]:
    return {s.files[0].relative_to(src).as_posix(): [p.name for p in s.labels] for s in found.sources}


def test_labels_without_a_scan_are_counted(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.nii", "b_seg.nii", "labels/c.nii")
    found = plan(src)
    assert found_labels(found, src) == {"a.nii": []}
    assert found.notes == [
        "2 labels belong to no scan: a label is NAME_seg beside NAME, or has its name in a folder labels/"
    ]


def test_upper_and_lower_case_count_only_where_they_must(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "Left.nii.gz", "left_seg.nii.gz", "A.nii", "a.nii", "a_seg.nii", "x/B.nii", "X/b.nii")
    touch(src, "x/b_seg.nii")
    found = plan(src)
    # B.nii in x and b.nii in X are the same but for case: neither gets the label.
    assert found_labels(found, src) == {
        "A.nii": [], "Left.nii.gz": ["left_seg.nii.gz"], "X/b.nii": [], "a.nii": ["a_seg.nii"], "x/B.nii": [],
    }  # fmt: skip
    assert "1 label belongs to no scan" in found.notes[0]


def test_a_scan_with_two_labels_fails(tmp_path: Path) -> None:
    src = touch(tmp_path / "src", "a.nii", "a_seg.nii", "labels/a.nii")
    [source] = plan(src).sources
    assert source.problem == "2 labels (a_seg.nii, a.nii)"


def test_a_label_lies_beside_a_dicom_file(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    frames = np.random.default_rng(0).integers(0, 200, (4, 20, 24), dtype=np.uint8)
    save_ultrasound(src / "sweep.dcm", frames, [region((0, 0, 23, 19))])
    save_ultrasound(src / "US.1.2.3", frames, [region((0, 0, 23, 19))])
    touch(src, "sweep_seg.nii.gz", "US.1.2.3_seg.nii.gz")
    found = plan(src)
    assert found_labels(found, src) == {"US.1.2.3": ["US.1.2.3_seg.nii.gz"], "sweep.dcm": ["sweep_seg.nii.gz"]}
    assert {s.section for s in found.sources} == {"training"}


def test_a_source_has_one_path_however_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    src = touch(tmp_path / "src", "a.nii")
    monkeypatch.chdir(tmp_path)
    typed = [
        plan_conversion(Request(path, tmp_path / "out")).sources for path in (src, Path("src"), Path("src/../src"))
    ]
    assert typed[0] == typed[1] == typed[2]
    # The target of a link to a file may have a name that tells nothing.
    (tmp_path / "store").write_bytes(b"x")
    (tmp_path / "linked.nii").symlink_to(tmp_path / "store")
    [source] = plan_conversion(Request(Path("linked.nii"), tmp_path / "out")).sources
    assert (source.files, source.scan) == ((tmp_path / "linked.nii",), "linked")
