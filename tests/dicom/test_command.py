"""`grn-monai seg`: each scan back in its own format, bad ones listed, nothing written outside the folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest

from grn_monai.commands.seg import add as add_parser
from grn_monai.data.readers.base import SourceVolume
from grn_monai.data.readers.ultrasound import UltrasoundReader
from grn_monai.dicom.folders import read_link, return_segmentations
from grn_monai.errors import InputError
from tests.data.readers.dicom_files import region, save_series, save_ultrasound


def labels_like(shape: tuple[int, ...], values: int = 7) -> np.ndarray:
    return np.random.default_rng(8).integers(0, values, shape).astype(np.uint8)


class Lab:
    """A cohort of one ultrasound sweep, one CT series and one NIfTI volume, with predictions and the link file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.predictions, self.out = folder, folder / "predictions", folder / "out"
        self.predictions.mkdir()
        (folder / "images").mkdir()
        pixels = np.random.default_rng(9).integers(0, 255, (5, 20, 24), dtype=np.uint8)
        self.us = save_ultrasound(folder / "us.dcm", pixels, [region((2, 3, 21, 17))])
        volume = UltrasoundReader(frame_spacing=0.4).read(self.us)
        assert isinstance(volume, SourceVolume)
        self.sweep = volume
        self.ct = save_series(folder / "ct", np.zeros((4, 6, 7), np.int16), (0, 0, 0), (1, 0, 0, 0, 1, 0), (2, 1, 1))
        ct_affine = np.diag([-1.0, -1, 2, 1])
        self.scans: dict[str, dict[str, Any]] = {}
        self.add("us1", "dicom-us", [self.us], volume.voxels.shape, volume.affine, dict(volume.placement))
        self.add("ct1", "dicom-series", self.ct, (7, 6, 4), ct_affine)
        self.add("nii1", "volume", [folder / "raw.nii.gz"], (4, 5, 6), np.eye(4))

    def add(
        self, name: str, kind: str, files: list[Path], shape: Any, affine: np.ndarray, placement: Any = None
    ) -> None:
        image = self.folder / "images" / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(labels_like(shape, 200), affine), image)
        nib.save(nib.Nifti1Image(labels_like(shape), affine), self.predictions / f"{name}_seg.nii.gz")
        self.scans[name] = {
            "subject": name,
            "kind": kind,
            "files": [str(f) for f in files],
            "placement": placement or {},
            "image": str(image),
            "record": {"labelled": False},
        }

    def link(self) -> Path:
        path = self.folder / "link.json"
        path.write_text(json.dumps({"format": "grn-monai link 1", "cohort": "c", "scans": self.scans}))
        return path

    def run(self, *arguments: str) -> int:
        parser = argparse.ArgumentParser()
        add_parser(parser.add_subparsers())
        command = ["seg", str(self.predictions), "--link", str(self.link()), "--out", str(self.out), *arguments]
        options = parser.parse_args(command)
        status: int = options.run(options)
        return status


def test_every_scan_comes_back_in_its_own_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = Lab(tmp_path)
    assert lab.run() == 0
    assert sorted(p.name for p in lab.out.iterdir()) == ["ct1_seg.dcm", "nii1_seg.nii.gz", "us1_seg.dcm"]
    assert "3 scans written" in capsys.readouterr().out
    copy = lab.out / "nii1_seg.nii.gz"
    assert copy.read_bytes() == (lab.predictions / "nii1_seg.nii.gz").read_bytes()
    uid = pydicom.dcmread(lab.us).SOPInstanceUID
    back = highdicom.seg.segread(lab.out / "us1_seg.dcm").get_pixels_by_source_frame(
        uid, [1, 2, 3, 4, 5], combine_segments=True
    )
    assert np.array_equal(back[:, 3:18, 2:22], labels_like(lab.sweep.voxels.shape).transpose(1, 2, 0))
    uids = [str(pydicom.dcmread(f).SOPInstanceUID) for f in lab.ct]
    back = highdicom.seg.segread(lab.out / "ct1_seg.dcm").get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(back, labels_like((7, 6, 4)).transpose(2, 1, 0))


def test_a_prediction_in_another_voxel_order_is_turned_back(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    file = lab.predictions / "us1_seg.nii.gz"
    nib.save(nib.as_closest_canonical(nib.load(file)), file)
    assert nib.load(file).shape != lab.sweep.voxels.shape
    assert lab.run() == 0
    uid = pydicom.dcmread(lab.us).SOPInstanceUID
    back = highdicom.seg.segread(lab.out / "us1_seg.dcm").get_pixels_by_source_frame(
        uid, [1, 2, 3, 4, 5], combine_segments=True
    )
    assert np.array_equal(back[:, 3:18, 2:22], labels_like(lab.sweep.voxels.shape).transpose(1, 2, 0))


def test_a_bad_scan_is_listed_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = Lab(tmp_path)
    lab.ct[2].unlink()
    (lab.predictions / "nii1_seg.nii.gz").unlink()
    assert lab.run() == 1
    printed = capsys.readouterr()
    assert [p.name for p in lab.out.iterdir()] == ["us1_seg.dcm"]
    assert "2 scans failed" in printed.err
    assert "ct1: " in printed.err
    assert "slice002.dcm: found no such file" in printed.err
    assert "nii1: " in printed.err


def test_it_does_not_matter_from_where_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(tmp_path)
    for scan in lab.scans.values():
        scan["files"] = [str(Path(f).relative_to(tmp_path)) for f in scan["files"]]
        scan["image"] = str(Path(scan["image"]).relative_to(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert lab.run() == 0
    assert len(list(lab.out.iterdir())) == 3


def test_the_cohort_may_be_gone(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    assert lab.run() == 0
    before = highdicom.seg.segread(lab.out / "us1_seg.dcm").pixel_array
    for scan in lab.scans.values():
        image = nib.load(scan["image"])
        scan["shape"], scan["affine"] = list(image.shape), image.affine.tolist()
        Path(scan["image"]).unlink()
    lab.out = tmp_path / "again"
    assert lab.run() == 0
    assert np.array_equal(highdicom.seg.segread(lab.out / "us1_seg.dcm").pixel_array, before)
    for scan in lab.scans.values():
        del scan["affine"]
    with pytest.raises(InputError, match="or its shape and affine in the link"):
        return_segmentations(lab.predictions, lab.link(), lab.out)


def test_scans_that_were_never_converted_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab = Lab(tmp_path)
    lab.scans["broken"] = {**lab.scans["us1"], "image": str(tmp_path / "images" / "broken.nii.gz"), "record": None}
    assert lab.run() == 0
    assert "broken" not in capsys.readouterr().err


@pytest.mark.parametrize("where", ["cohort", "beside", "link"])
def test_label_names_are_found_wherever_the_cohort_went(tmp_path: Path, where: str) -> None:
    lab = Lab(tmp_path)
    lab.scans = {"ct1": lab.scans["ct1"]}
    names = {"0": "background", **{str(i): f"structure {i}" for i in range(1, 7)}}
    content = {"format": "grn-monai link 1", "cohort": str(tmp_path / "old" / "c"), "scans": lab.scans}
    folder = {"cohort": tmp_path / "old" / "c", "beside": tmp_path / "ct", "link": None}[where]
    if folder is None:
        content["labels"] = names
    else:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dataset.json").write_text(json.dumps({"labels": names}))
    link = tmp_path / "ct.link.json"
    link.write_text(json.dumps(content))
    return_segmentations(lab.predictions, link, lab.out)
    segments = pydicom.dcmread(lab.out / "ct1_seg.dcm").SegmentSequence
    assert [s.SegmentLabel for s in segments] == [f"structure {i}" for i in range(1, 7)]


def test_absent_labels_are_told_and_names_come_from_the_cohort(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab(tmp_path)
    lab.scans = {"ct1": lab.scans["ct1"]}
    affine = np.diag([-1.0, -1, 2, 1])
    nib.save(nib.Nifti1Image(labels_like((7, 6, 4), 3), affine), lab.predictions / "ct1_seg.nii.gz")
    names = {"0": "background", "1": "autochthon_left", "2": "autochthon_right", "3": "iliopsoas_left"}
    for labels in (names, {name: int(value) for value, name in names.items()}):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        assert lab.run("--labels-from", str(tmp_path / "dataset.json")) == 0
        assert "ct1: no voxel of iliopsoas_left" in capsys.readouterr().out
        segments = pydicom.dcmread(lab.out / "ct1_seg.dcm").SegmentSequence
        assert [s.SegmentLabel for s in segments] == ["autochthon_left", "autochthon_right"]
        kind = segments[1].SegmentedPropertyTypeCodeSequence[0]
        assert kind.CodeMeaning == "Erector spinae muscle"
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"


def test_a_hostile_image_name_writes_nothing_outside(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    inner = lab.folder / "images" / "sub"
    inner.mkdir()
    lab.scans["../../evil"] = lab.scans.pop("nii1")
    before = {p for p in tmp_path.rglob("*") if lab.out not in p.parents}
    assert lab.run() == 0
    after = {p for p in tmp_path.rglob("*") if lab.out not in p.parents}
    assert after - before == {lab.out, lab.folder / "link.json"}


def test_faulty_link_files_are_refused(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    link = lab.link()
    for text, message in (
        ("{", "no readable JSON"),
        ("[]", "another kind of JSON"),
        (json.dumps({"format": "grn-monai link 2", "scans": {}}), "another kind of JSON"),
        (json.dumps({"format": "grn-monai link 1", "scans": {}}), "no scans"),
        (json.dumps({"format": "grn-monai link 1", "scans": {"a": {"kind": "x"}}}), "faulty entry for scan a"),
        (json.dumps({"format": "grn-monai link 1", "scans": {"a": 3}}), "faulty entry for scan a"),
    ):
        link.write_text(text)
        with pytest.raises(InputError, match=message):
            return_segmentations(lab.predictions, link, lab.out)
    with pytest.raises(InputError, match="no readable JSON"):
        read_link(tmp_path / "none.json")


def test_two_images_of_one_name_and_missing_folders_are_refused(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        return_segmentations(tmp_path / "none", lab.link(), lab.out)
    with pytest.raises(InputError, match=r"no scan that could be written \(3 tried\)"):
        return_segmentations(tmp_path / "images" / "..", lab.link(), lab.out)
    lab.scans["twin"] = dict(lab.scans["us1"])
    with pytest.raises(InputError, match=r"images of one name \(us1\)"):
        return_segmentations(lab.predictions, lab.link(), lab.out)
    (tmp_path / "d.json").write_text("{}")
    with pytest.raises(InputError, match="no label names"):
        return_segmentations(lab.predictions, lab.link(), lab.out, labels_from=tmp_path / "d.json")
