"""DICOM segmentations read back by highdicom and pydicom: the same voxels at the same place, on the right files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from grn_monai import __version__
from grn_monai.data.readers.base import SourceVolume
from grn_monai.data.readers.enhanced import EnhancedUltrasoundReader
from grn_monai.data.readers.ultrasound import UltrasoundReader
from grn_monai.dicom import write_dicom_seg
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_COLOURS, LAYER_NAMES
from tests.data.readers.dicom_files import (
    US_MULTI_FRAME_RETIRED,
    region,
    save_enhanced,
    save_series,
    save_ultrasound,
    series_affine,
)

BOX = (4, 3, 23, 18)
COSINES = (0.8, 0.6, 0, 0, 0, -1)  # oblique: along the columns turned by 37 degrees, down the rows
ORIGIN, SPACING = (-40.0, 12.5, 300.0), (3.0, 0.7, 0.9)


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """pydicom raises where it would warn of values against the standard."""
    settings = pydicom.config.settings
    before = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = pydicom.config.RAISE
    yield
    settings.reading_validation_mode, settings.writing_validation_mode = before


def some_labels(shape: tuple[int, ...], absent: tuple[int, ...] = ()) -> np.ndarray:
    labels = np.random.default_rng(5).integers(0, 7, shape).astype(np.uint8)
    labels[np.isin(labels, absent)] = 0
    return labels


def sweep(tmp_path: Path, frames: int = 6, **options: Any) -> tuple[Path, SourceVolume]:
    pixels = np.random.default_rng(6).integers(0, 255, (frames, 24, 32), dtype=np.uint8)
    path = save_ultrasound(tmp_path / "us.dcm", pixels, [region(BOX)], **options)
    volume = UltrasoundReader(frame_spacing=0.5).read(path)
    assert isinstance(volume, SourceVolume)
    return path, volume


def series(tmp_path: Path) -> tuple[list[Path], np.ndarray]:
    """A CT series and the affine of its (column, row, slice)."""
    pixels = np.zeros((5, 7, 8), np.int16)
    files = save_series(tmp_path / "ct", pixels, ORIGIN, COSINES, SPACING)
    return files, series_affine(ORIGIN, COSINES, SPACING)


def lps_values(volume: Any) -> dict[tuple[float, ...], int]:
    """Position in mm (LPS, to 0.001) to segment number, for all voxels of a highdicom volume that have one."""
    indices = np.argwhere(volume.array)
    places = (volume.affine @ np.c_[indices, np.ones(len(indices))].T)[:3].T
    return {tuple(np.round(p, 3) + 0.0): int(volume.array[tuple(i)]) for p, i in zip(places, indices, strict=True)}


def ras_values(labels: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], int]:
    indices = np.argwhere(labels)
    places = (affine @ np.c_[indices, np.ones(len(indices))].T)[:3].T * (-1, -1, 1)
    return {tuple(np.round(p, 3) + 0.0): int(labels[tuple(i)]) for p, i in zip(places, indices, strict=True)}


def test_an_ultrasound_sweep_gets_its_labels_on_its_own_frames(tmp_path: Path) -> None:
    path, volume = sweep(tmp_path)
    labels = some_labels(volume.voxels.shape)
    labels[:, 3] = 0  # a frame without labels is not stored
    written = write_dicom_seg(labels, [path], tmp_path / "seg.dcm", volume.affine, volume.placement)
    assert written.segments == tuple(LAYER_NAMES[v] for v in range(1, 7))
    assert written.empty == ()
    assert written.frames == 5 * 6
    source = pydicom.dcmread(path)
    seg = highdicom.seg.segread(written.path)
    assert seg.segmentation_type.value == "BINARY"
    frames = seg.get_pixels_by_source_frame(
        source.SOPInstanceUID, list(range(1, 7)), combine_segments=True, assert_missing_frames_are_empty=True
    )
    expected = np.zeros((6, 24, 32), np.uint8)
    expected[:, 3:19, 4:24] = labels.transpose(1, 2, 0)
    assert np.array_equal(frames, expected)


def test_pydicom_alone_finds_every_frame_of_a_sweep(tmp_path: Path) -> None:
    path, volume = sweep(tmp_path)
    labels = some_labels(volume.voxels.shape)
    out = write_dicom_seg(labels, [path], tmp_path / "seg.dcm", volume.affine, volume.placement).path
    dataset, source = pydicom.dcmread(out), pydicom.dcmread(path)
    for name in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
        assert name not in dataset
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert "PlaneOrientationSequence" not in shared
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == pytest.approx([0.2, 0.2])
    assert float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices) == pytest.approx(0.5)
    pixels = dataset.pixel_array
    seen = np.zeros((6, 24, 32), np.uint8)
    for number, (frame, item) in enumerate(zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True)):
        assert "PlanePositionSequence" not in item
        image = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.ReferencedSOPClassUID == source.SOPClassUID
        segment = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        content = item.FrameContentSequence[0]
        assert content.InStackPositionNumber == image.ReferencedFrameNumber
        assert list(content.DimensionIndexValues) == [segment, image.ReferencedFrameNumber]
        assert number == (segment - 1) * 6 + image.ReferencedFrameNumber - 1
        seen[image.ReferencedFrameNumber - 1][frame > 0] = segment
    expected = np.zeros((6, 24, 32), np.uint8)
    expected[:, 3:19, 4:24] = labels.transpose(1, 2, 0)
    assert np.array_equal(seen, expected)
    pointers = [(int(d.DimensionIndexPointer), int(d.FunctionalGroupPointer)) for d in dataset.DimensionIndexSequence]
    assert pointers == [(0x0062000B, 0x0062000A), (0x00209057, 0x00209111)]


def test_part_of_a_sweep_refers_to_its_own_frames(tmp_path: Path) -> None:
    path, _ = sweep(tmp_path)
    volume = UltrasoundReader(frame_spacing=0.5, frames=(2, 4)).read(path)
    assert isinstance(volume, SourceVolume)
    labels = np.ones(volume.voxels.shape, np.uint8)
    out = write_dicom_seg(labels, [path], tmp_path / "seg.dcm", volume.affine, volume.placement).path
    frames = [
        int(item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        for item in pydicom.dcmread(out).PerFrameFunctionalGroupsSequence
    ]
    assert frames == [3, 4]


def test_one_single_frame_file_is_referred_to_without_a_frame_number(tmp_path: Path) -> None:
    path, volume = sweep(tmp_path, frames=1)
    labels = some_labels(volume.voxels.shape)
    out = write_dicom_seg(labels, [path], tmp_path / "seg.dcm", volume.affine, volume.placement).path
    seg = highdicom.seg.segread(out)
    for item in seg.PerFrameFunctionalGroupsSequence:
        assert "ReferencedFrameNumber" not in item.DerivationImageSequence[0].SourceImageSequence[0]
    back = seg.get_pixels_by_source_instance([pydicom.dcmread(path).SOPInstanceUID], combine_segments=True)
    assert np.array_equal(back[:, 3:19, 4:24], labels.transpose(1, 2, 0))


@pytest.mark.parametrize("kind", ["sweep", "volume", "patient"])
def test_ultrasound_takes_labels_in_any_voxel_order(tmp_path: Path, kind: str) -> None:
    """Twelve voxels along each axis: no shape could tell that the order is another."""
    rng = np.random.default_rng(12)
    pixels = rng.integers(0, 255, (12, 12, 12), dtype=np.uint8)
    if kind == "sweep":
        path = save_ultrasound(tmp_path / "u.dcm", pixels, [region((0, 0, 11, 11), delta=(0.05, 0.05))])
        volume = UltrasoundReader(frame_spacing=0.5).read(path)
    else:
        positions = [(0, 0, 0.3 * k) for k in range(12)]
        patient = ((0, 1, 0, 0, 0, -1), [(round(-0.3 * k, 1), 5, 6) for k in range(12)]) if kind == "patient" else None
        path = save_enhanced(tmp_path / "u.dcm", pixels, positions, spacing=(0.3, 0.3), patient=patient)
        volume = EnhancedUltrasoundReader().read(path)
    assert isinstance(volume, SourceVolume)
    labels = some_labels((12, 12, 12))
    first = write_dicom_seg(labels, [path], tmp_path / "1.dcm", volume.affine, volume.placement).path
    expected = pydicom.dcmread(first).pixel_array
    for number, turn in enumerate((((2, 1), (0, -1), (1, 1)), ((1, -1), (0, 1), (2, -1)))):
        turned = nib.Nifti1Image(labels, volume.affine).as_reoriented(np.array(turn))
        nib.save(turned, tmp_path / f"{number}.nii.gz")
        out = tmp_path / f"turned{number}.dcm"
        write_dicom_seg(tmp_path / f"{number}.nii.gz", [path], out, placement=volume.placement)
        assert np.array_equal(pydicom.dcmread(out).pixel_array, expected)


def test_single_frames_and_retired_classes_are_referred_to_as_they_are(tmp_path: Path) -> None:
    path, volume = sweep(tmp_path, class_uid=US_MULTI_FRAME_RETIRED)
    labels = some_labels(volume.voxels.shape)
    out = write_dicom_seg(labels, [path], tmp_path / "seg.dcm", volume.affine, volume.placement).path
    dataset = pydicom.dcmread(out)
    (reference,) = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert reference.ReferencedSOPClassUID == US_MULTI_FRAME_RETIRED
    pixels = np.random.default_rng(6).integers(0, 255, (4, 24, 32), dtype=np.uint8)
    files = [
        save_ultrasound(tmp_path / f"{9 - i}.dcm", pixels[i : i + 1], [region(BOX)], InstanceNumber=i + 1)
        for i in range(4)
    ]
    several = UltrasoundReader(frame_spacing=0.5).read(files)
    assert isinstance(several, SourceVolume)
    labels = some_labels(several.voxels.shape)
    out = write_dicom_seg(labels, files[::-1], tmp_path / "b.dcm", several.affine, several.placement).path
    uids = [str(pydicom.dcmread(file).SOPInstanceUID) for file in files]
    seg = highdicom.seg.segread(out)
    back = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(back[:, 3:19, 4:24], labels.transpose(1, 2, 0))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
def test_a_series_takes_labels_in_any_voxel_order(tmp_path: Path, order: tuple, flips: tuple) -> None:
    files, affine = series(tmp_path)
    labels = some_labels((8, 7, 5))
    turned = nib.Nifti1Image(labels, affine).as_reoriented(np.array(list(zip(order, flips, strict=True))))
    nib.save(turned, tmp_path / "l.nii.gz")
    written = write_dicom_seg(tmp_path / "l.nii.gz", files[::-1], tmp_path / "seg.dcm")
    seg = highdicom.seg.segread(written.path)
    volume = seg.get_volume(combine_segments=True)
    assert lps_values(volume) == ras_values(labels, affine)
    uids = [str(pydicom.dcmread(file).SOPInstanceUID) for file in files]
    assert np.array_equal(seg.get_pixels_by_source_instance(uids, combine_segments=True), labels.transpose(2, 1, 0))


def test_absent_layers_are_left_out_and_named(tmp_path: Path) -> None:
    files, affine = series(tmp_path)
    labels = some_labels((8, 7, 5), absent=(1, 4))
    written = write_dicom_seg(labels, files, tmp_path / "seg.dcm", affine)
    assert written.empty == ("dermis", "deep fat")
    dataset = pydicom.dcmread(written.path)
    assert [s.SegmentLabel for s in dataset.SegmentSequence] == [LAYER_NAMES[v] for v in (2, 3, 5, 6)]
    assert [s.SegmentNumber for s in dataset.SegmentSequence] == [1, 2, 3, 4]
    values = lps_values(highdicom.seg.segread(written.path).get_volume(combine_segments=True))
    back = {1: 2, 2: 3, 3: 5, 4: 6}
    assert {place: back[number] for place, number in values.items()} == ras_values(labels, affine)


def test_segments_say_what_they_are_who_made_them_and_their_colour(tmp_path: Path) -> None:
    files, affine = series(tmp_path)
    out = write_dicom_seg(some_labels((8, 7, 5)), files, tmp_path / "seg.dcm", affine).path
    dataset = pydicom.dcmread(out)
    for value, segment in enumerate(dataset.SegmentSequence, start=1):
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("grn-monai", __version__)
        assert segment.AnatomicRegionSequence[0].CodeMeaning == "Lumbar region"
        colour = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue)
        shown = "#" + "".join(f"{v:02X}" for v in colour.to_rgb(clip=True))
        assert np.abs(_rgb(shown) - _rgb(LAYER_COLOURS[value])).max() <= 1
    fat = dataset.SegmentSequence[3].SegmentedPropertyTypeCodeSequence[0]
    assert (fat.CodeValue, fat.CodeMeaning) == ("67769002", "Subcutaneous adipose tissue")
    assert fat.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Deep"
    source = pydicom.dcmread(files[0])
    for name in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "FrameOfReferenceUID"):
        assert dataset[name].value == source[name].value
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert dataset.SeriesNumber == 903


def _rgb(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)])


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("upright", [False, True])
def test_an_enhanced_volume_gets_its_labels_where_its_planes_are(tmp_path: Path, placed: bool, upright: bool) -> None:
    pixels = np.random.default_rng(7).integers(0, 255, (8, 6, 5), dtype=np.uint8)
    order = [2, 0, 3, 1]
    cosines, normal = ((1, 0, 0, 0, 1, 0), (0, 0, 1)) if upright else ((0, 0, 1, 1, 0, 0), (0, 1, 0))
    positions = [0.7 * k * np.array(normal, float) + (1, 2, 3) for k in order] * 2
    patient = None
    if placed:
        turn = np.array(((0, 1, 0), (-1, 0, 0), (0, 0, 1)))
        patient = ((*(turn @ cosines[:3]), *(turn @ cosines[3:])), [turn @ p + (9, 8, 7) for p in positions])
    path = save_enhanced(tmp_path / "e.dcm", pixels, positions, cosines, times=[1] * 4 + [2] * 4, patient=patient)
    volume = EnhancedUltrasoundReader(volume=2).read(path)
    assert isinstance(volume, SourceVolume)
    labels = some_labels(volume.voxels.shape)
    written = write_dicom_seg(labels, [path], tmp_path / "seg.dcm", volume.affine, volume.placement)
    seg, source = highdicom.seg.segread(written.path), pydicom.dcmread(path)
    # Labels carry the pixel's own place: find each by the grey value's frame, row and column in the source.
    expected = {}
    axes = [("column", "frame", "row").index(name) for name in volume.placement["axes"]]
    for index, value in np.ndenumerate(labels):
        if value:
            raw = [0, 0, 0]
            for axis, flip, position, count in zip(
                axes, volume.placement["reversed"], index, labels.shape, strict=True
            ):
                raw[axis] = count - 1 - position if flip else position
            frame = volume.placement["frames"][raw[1]]
            start, (along, down) = positions[frame], (np.array(cosines[:3]), np.array(cosines[3:]))
            if patient is not None:
                start = patient[1][frame]
                along, down = np.array(patient[0][:3]), np.array(patient[0][3:])
            place = start + 0.4 * raw[0] * along + 0.3 * raw[2] * down
            expected[tuple(np.round(place, 3) + 0.0)] = int(value)
    assert lps_values(seg.get_volume(combine_segments=True)) == expected
    if placed:
        assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert expected == ras_values(labels, volume.affine)
    else:
        assert seg.FrameOfReferenceUID == source.VolumeFrameOfReferenceUID
    frames = {
        int(item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        for item in seg.PerFrameFunctionalGroupsSequence
    }
    assert frames == {5, 6, 7, 8}


def test_an_anonymised_series_is_completed_and_that_is_told(tmp_path: Path) -> None:
    files, affine = series(tmp_path)
    for file in files:
        dataset = pydicom.dcmread(file)
        for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, name, "")
        for name in ("PatientName", "PatientBirthDate", "AccessionNumber", "StudyID", "SeriesNumber"):
            del dataset[name]
        dataset.save_as(file)
    labels = some_labels((8, 7, 5))
    outs = [write_dicom_seg(labels, files, tmp_path / f"{i}.dcm", affine) for i in (1, 2)]
    assert outs[0].notes == tuple(
        f"the source has no {name}: a new one was made" for name in ("StudyInstanceUID", "SeriesInstanceUID")
    )
    first, second = (pydicom.dcmread(out.path) for out in outs)
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    referred = {
        str(item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        for item in first.PerFrameFunctionalGroupsSequence
    }
    assert referred == {str(pydicom.dcmread(file).file_meta.MediaStorageSOPInstanceUID) for file in files}


def test_faulty_labels_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    files, affine = series(tmp_path)
    out = tmp_path / "out" / "seg.dcm"
    labels = some_labels((8, 7, 5))

    def refused(message: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(InputError, match=message):
            write_dicom_seg(*arguments, **options)
        assert not out.exists()

    refused("background alone", np.zeros((8, 7, 5), np.uint8), files, out, affine)
    refused("without a name: 7", labels + labels.max(), files, out, affine, names={0: "background", 6: "muscle"})
    refused(r"shape \(8, 7\)", labels[..., 0], files, out, affine)
    refused("an array without affine", labels, files, out)
    refused("at most 64", labels, files, out, affine, series_description="x" * 65)
    refused("another grid", labels, files, out, affine @ np.diag([1.1, 1, 1, 1]))
    refused("outside the scan", labels, files[:4], out, affine)
    refused("no source files", labels, [], out, affine)
    refused("no such file", labels, [*files, tmp_path / "none.dcm"], out, affine)
    (tmp_path / "text.dcm").write_text("text")
    refused("not DICOM", labels, [tmp_path / "text.dcm"], out, affine)
    path, volume = sweep(tmp_path)
    labels = some_labels(volume.voxels.shape)
    refused("no placement", labels, [path], out, volume.affine)
    refused("files of 2 series", labels, [path, files[0]], out, volume.affine, volume.placement)
    late = dict(volume.placement) | {"frames": [3, 9]}
    refused("6 frames, and labels for frame 9", labels, [path], out, volume.affine, late)
    refused("an invertible", labels, [path], out, np.zeros((4, 4)), volume.placement)
    refused("another grid", labels, files, out, volume.affine, volume.placement)


def test_a_missing_highdicom_is_named_with_its_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, affine = series(tmp_path)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r'no highdicom.*pip install "grn-monai\[scans\]"'):
        write_dicom_seg(some_labels((8, 7, 5)), files, tmp_path / "seg.dcm", affine)


def test_an_old_result_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, affine = series(tmp_path)
    out = tmp_path / "seg.dcm"
    write_dicom_seg(some_labels((8, 7, 5)), files, out, affine)
    before = out.read_bytes()

    def fail(self: Any, path: Path, *_: Any, **__: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pydicom.Dataset, "save_as", fail)
    with pytest.raises(InputError, match="No space left"):
        write_dicom_seg(some_labels((8, 7, 5)), files, out, affine)
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["seg.dcm"]


def test_a_real_loop_goes_round(tmp_path: Path) -> None:
    settings = pydicom.config.settings
    settings.reading_validation_mode = settings.writing_validation_mode = pydicom.config.WARN
    path = get_testdata_file("color3d_jpeg_baseline.dcm", download=False)
    volume = UltrasoundReader(frame_spacing=0.5, frames=(100, 103)).read(path)
    assert isinstance(volume, SourceVolume)
    labels = np.digitize(volume.voxels, (30, 60, 90, 120, 150, 180)).astype(np.uint8)
    out = write_dicom_seg(labels, [path], tmp_path / "seg.dcm", volume.affine, volume.placement).path
    seg = highdicom.seg.segread(out)
    uid = pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
    back = seg.get_pixels_by_source_frame(uid, [101, 102, 103], combine_segments=True)
    assert np.array_equal(back[:, 31:415, 84:596], labels.transpose(1, 2, 0))
    assert int((back > 0).sum()) == int((labels > 0).sum())
