"""Segmentations read back onto the scan's voxels: what highdicom wrote, and files that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from grn_monai.data.readers.base import SourceVolume
from grn_monai.dicom import write_dicom_seg
from grn_monai.dicom.read import label_value, read_dicom_seg
from grn_monai.dicom.scan import read_dicom_scan
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES
from tests.data.readers.dicom_files import region, save_enhanced, save_series, save_ultrasound

COSINES = (0.8, 0.6, 0, 0, 0, -1)


def ct(folder: Path) -> list[Path]:
    return save_series(folder / "ct", np.arange(280).reshape(5, 7, 8), (-40, 12.5, 300), COSINES, (3, 0.7, 0.9))


def sweep(folder: Path) -> list[Path]:
    pixels = np.random.default_rng(6).integers(0, 255, (6, 24, 32), dtype=np.uint8)
    return [save_ultrasound(folder / "us.dcm", pixels, [region((4, 3, 23, 18))])]


def frames(folder: Path) -> list[Path]:
    pixels = np.random.default_rng(6).integers(0, 255, (4, 24, 32), dtype=np.uint8)
    box = [region((4, 3, 23, 18))]
    return [save_ultrasound(folder / f"{9 - i}.dcm", pixels[i : i + 1], box, InstanceNumber=i + 1) for i in range(4)]


def volume(folder: Path, patient: bool = False) -> list[Path]:
    pixels = np.random.default_rng(7).integers(0, 255, (6, 10, 12), dtype=np.uint8)
    places = [(0, 0, 0.5 * k) for k in (3, 1, 2, 0, 5, 4)]  # not in the order of the frames
    in_patient = ((0, 1, 0, 0, 0, -1), [(round(-0.5 * k, 1), 5, 6) for k in (3, 1, 2, 0, 5, 4)]) if patient else None
    return [save_enhanced(folder / "us.dcm", pixels, places, patient=in_patient)]


KINDS: dict[str, Callable[[Path], list[Path]]] = {
    "ct": ct,
    "sweep": sweep,
    "frames": frames,
    "volume": volume,
    "patient": lambda folder: volume(folder, True),
}


def written(folder: Path, files: list[Path], labels: np.ndarray | None = None) -> tuple[SourceVolume, np.ndarray, Path]:
    """A scan, labels of it and the segmentation of these."""
    scan = read_dicom_scan(files, 0.5)
    if labels is None:
        labels = np.random.default_rng(5).integers(0, 7, scan.voxels.shape).astype(np.uint8)
        labels[:, 1] = 0
    path = write_dicom_seg(labels, files, folder / "seg.dcm", scan.affine, scan.placement or None).path
    return scan, labels, path


def read(path: Path, scan: SourceVolume, files: list[Path], **options: Any) -> Any:
    placement = None if scan.oriented else scan.placement
    return read_dicom_seg(path, scan.voxels.shape, scan.affine, placement, files, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read(tmp_path: Path, kind: str) -> None:
    files = KINDS[kind](tmp_path)
    scan, labels, path = written(tmp_path, files)
    result = read(path, scan, files[::-1])
    assert np.array_equal(result.labels, labels)
    assert result.segments == tuple(LAYER_NAMES.values())[1:]
    assert result.unknown == ()
    assert scan.oriented == (kind in ("ct", "patient"))


def test_by_position_any_voxel_order_will_do(tmp_path: Path) -> None:
    scan, labels, path = written(tmp_path, ct(tmp_path))
    turned = np.flip(labels, 1).transpose(2, 0, 1)
    turn = np.array([[0, 1, 0, 0], [0, 0, -1, labels.shape[1] - 1], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    result = read_dicom_seg(path, turned.shape, scan.affine @ turn)
    assert np.array_equal(result.labels, turned)


def test_segments_of_other_names_are_left_out(tmp_path: Path) -> None:
    files = ct(tmp_path)
    scan, labels, path = written(tmp_path, files)
    result = read(path, scan, files, names={0: "background", 2: "DEEP_FAT", 3: "skin"})
    assert np.array_equal(result.labels, np.where(labels == 4, 2, 0))
    assert result.segments == ("deep fat",)
    assert "dermis" in result.unknown
    assert label_value("Superficial-fascial  MEMBRANE", LAYER_NAMES) == 3
    assert label_value("background", LAYER_NAMES) is None


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def test_a_fractional_one_is_cut_at_half(tmp_path: Path) -> None:
    files = ct(tmp_path)
    scan, labels, path = written(tmp_path, files, np.ones((8, 7, 5), np.uint8))

    def fractional(seg: Any) -> None:
        seg.SegmentationType, seg.MaximumFractionalValue = "FRACTIONAL", 200
        seg.BitsAllocated, seg.BitsStored, seg.HighBit = 8, 8, 7
        seg.PixelData = np.tile(np.array([99, 100], np.uint8), 5 * 7 * 4).tobytes()
        seg["PixelData"].VR = "OB"

    expected = np.zeros_like(labels)
    expected[1::2] = 1
    assert np.array_equal(read(changed(path, fractional), scan, files).labels, expected)


def overlapping(seg: Any) -> None:
    seg.PixelData = b"\xff" * len(seg.PixelData)


def elsewhere(seg: Any) -> None:
    for item in seg.PerFrameFunctionalGroupsSequence:
        item.PlanePositionSequence[0].ImagePositionPatient[0] += 0.3


def outside(seg: Any) -> None:
    normal = 3 * np.cross(COSINES[:3], COSINES[3:])
    for item in seg.PerFrameFunctionalGroupsSequence:
        place = item.PlanePositionSequence[0]
        place.ImagePositionPatient = [float(v) for v in np.array(place.ImagePositionPatient, float) + normal]


def label_map(seg: Any) -> None:
    seg.SegmentationType = "LABELMAP"


def without_frames(seg: Any) -> None:
    del seg.PerFrameFunctionalGroupsSequence


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (overlapping, "segments that overlap"),
        (elsewhere, r"segments on another grid \(up to 0\.267"),  # 0.3 mm of x, of which 0.8 along columns of 0.9 mm
        (outside, "labelled voxels outside the scan"),
        (label_map, "segmentation type LABELMAP"),
        (without_frames, "cannot be decoded"),
    ],
)
def test_what_does_not_fit_a_series(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    files = ct(tmp_path)
    scan, _, path = written(tmp_path, files)
    with pytest.raises(InputError, match=f"seg.dcm: found .*{message}"):
        read(changed(path, change), scan, files)


def test_what_does_not_fit_a_sweep(tmp_path: Path) -> None:
    files = sweep(tmp_path)
    scan, _, path = written(tmp_path, files)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="frames of other images"):
        read(path, scan, sweep(tmp_path / "other"))
    with pytest.raises(InputError, match=r"found frames of 32 × 24 pixels; expected the 12 × 10"):
        read(path, scan, volume(tmp_path / "other"))
    with pytest.raises(InputError, match=r"frame 1 of the source"):
        read_dicom_seg(path, (20, 5, 16), scan.affine, {**scan.placement, "frames": [1, 6]}, files)
    with pytest.raises(InputError, match="labelled pixels outside the ultrasound picture"):
        read_dicom_seg(path, (20, 6, 8), scan.affine, {**scan.placement, "rows": [3, 11]}, files)
    with pytest.raises(InputError, match=r"those of a scan of shape \(20, 7, 16\)"):
        read_dicom_seg(path, (20, 7, 16), scan.affine, scan.placement, files)


def test_series_that_are_no_volume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no distance between them"):
        read_dicom_scan(sweep(tmp_path))
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="2 Enhanced US Volumes"):
        read_dicom_scan([*volume(tmp_path), *volume(tmp_path / "b")])
    with pytest.raises(InputError, match="files of several kinds"):
        read_dicom_scan([*ct(tmp_path), *volume(tmp_path)])
    with pytest.raises(InputError, match="no files"):
        read_dicom_scan([])
    (capture, *_) = ct(tmp_path)
    with pytest.raises(InputError, match=r"the SOP class 1\.2\.840\.10008\.5\.1\.4\.1\.1\.7"):
        read_dicom_scan([changed(capture, lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"))])
