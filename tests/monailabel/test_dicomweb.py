"""MONAI Label's datastore on a real DICOM server: Orthanc, started here, on loopback."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")
pytest.importorskip("highdicom", reason="DICOM segmentations need highdicom")
try:
    from grn_monai.monailabel.dicomweb import make_datastore
except ImportError as error:  # pydicom-seg on pydicom 3 without the module that docs/dicomweb.md names
    pytest.skip(f"MONAI Label's own DICOM modules cannot be imported: {error}", allow_module_level=True)

from monailabel.config import Settings

from grn_monai.data.volume import check_same_geometry, read_header
from grn_monai.dicom.read import read_dicom_seg
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES
from tests.monailabel.archive_use import segmentations, send, some_labels, store, voxels
from tests.monailabel.dicom_scans import ct_series, enhanced, renamed, series_uid, single_frames, sweep
from tests.monailabel.orthanc import Orthanc, missing_orthanc

pytestmark = pytest.mark.skipif(bool(missing_orthanc()), reason=missing_orthanc())

SCANS: dict[str, Callable[[Path], Any]] = {
    "ct": lambda folder: ct_series(folder)[0],
    "sweep": sweep,
    "jpeg": lambda folder: sweep(folder, "jpeg", jpeg=True),
    "frames": single_frames,
    "patient": lambda folder: enhanced(folder, "patient"),
    "volume": lambda folder: enhanced(folder, "volume", in_patient=False),
}


@pytest.mark.parametrize("kind", SCANS)
def test_a_scan_comes_in_and_its_label_goes_back(orthanc: Orthanc, tmp_path: Path, kind: str) -> None:
    first = store(orthanc, tmp_path)
    files = SCANS[kind](tmp_path)
    send(first, files)
    image = series_uid(kind)
    assert first.get_unlabeled_images() == first.list_images() == [image]
    labels = some_labels(first.get_image_uri(image), tmp_path / "label.nii.gz")
    assert first.save_label(image, str(tmp_path / "label.nii.gz"), "final", {}) == image
    assert first.get_unlabeled_images() == []
    assert first.get_labeled_images() == [image]

    (stored,) = segmentations(first, tmp_path / "seen")
    source = [pydicom.dcmread(file) for file in files]
    assert stored.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    assert stored.ReferencedSeriesSequence[0].SeriesInstanceUID == image
    assert (stored.StudyInstanceUID, stored.PatientID) == (source[0].StudyInstanceUID, source[0].PatientID)
    assert [item.SegmentLabel for item in stored.SegmentSequence] == list(LAYER_NAMES.values())[1:]
    assert {item.SegmentAlgorithmType for item in stored.SegmentSequence} == {"SEMIAUTOMATIC"}
    known = {dataset.SOPInstanceUID for dataset in source}
    for item in stored.PerFrameFunctionalGroupsSequence:
        assert item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID in known

    # Another server, with nothing but the archive.
    second = store(orthanc, tmp_path, "other")
    (pair,) = second.datalist()
    check_same_geometry(read_header(pair["image"]), read_header(pair["label"]), pair["image"], pair["label"])
    assert np.array_equal(voxels(pair["label"]), labels)
    assert np.array_equal(voxels(first.get_label_uri(image, "final")), labels)
    assert second.status() == {"total": 1, "completed": 1, "label_tags": {"final": 1}}


def test_a_ct_series_is_where_it_was(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    files, hounsfield, affine = ct_series(tmp_path)
    send(datastore, files)
    file = datastore.get_image_uri(series_uid("ct"))
    assert np.array_equal(voxels(file), hounsfield)
    assert np.abs(nib.load(file).affine - affine).max() < 1e-4
    assert np.abs(nib.load(file).get_qform() - affine).max() < 1e-4
    # The positions that the segmentation itself gives, without our reader.
    labels = some_labels(file, tmp_path / "label.nii.gz")
    datastore.save_label(series_uid("ct"), str(tmp_path / "label.nii.gz"), "final", {})
    (stored,) = segmentations(datastore, tmp_path / "seen")
    shared = stored.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    rows, columns = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    count = 0
    for picture, item in zip(stored.pixel_array, stored.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(item.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(picture):
            lps = corner + cosines[:3] * columns * column + cosines[3:] * rows * row
            x, y, z = np.rint(np.linalg.inv(affine) @ [-lps[0], -lps[1], lps[2], 1])[:3].astype(int)
            assert np.linalg.norm((affine @ [x, y, z, 1])[:3] * (-1, -1, 1) - lps) < 1e-3
            assert labels[x, y, z] == item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            count += 1
    assert count == np.count_nonzero(labels)


def test_lists_are_kept_for_a_while_and_renewed(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path, MONAI_LABEL_DICOMWEB_CACHE_EXPIRY=3600)
    assert not datastore.has_image(series_uid("ct"))
    send(datastore, ct_series(tmp_path)[0])
    assert datastore.list_images() == []
    assert datastore.has_image(series_uid("ct"))
    assert datastore.list_images() == [series_uid("ct")]
    send(datastore, enhanced(tmp_path, "us"))
    # A scan that is asked for by its id is looked up.
    some_labels(datastore.get_image_uri(series_uid("us")), tmp_path / "label.nii.gz")
    assert sorted(datastore.get_unlabeled_images()) == sorted([series_uid("ct"), series_uid("us")])
    # Saving a label renews the lists.
    datastore.save_label(series_uid("us"), str(tmp_path / "label.nii.gz"), "final", {})
    assert datastore.get_unlabeled_images() == [series_uid("ct")]
    assert make_datastore(orthanc.url, Settings(MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path))).lists.expiry == 10


def test_of_two_labels_the_later_counts(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    send(datastore, enhanced(tmp_path, "us"))
    image = series_uid("us")
    file = datastore.get_image_uri(image)
    for seed in (1, 2):
        some_labels(file, tmp_path / f"{seed}.nii.gz", seed)
        datastore.save_label(image, str(tmp_path / f"{seed}.nii.gz"), "final", {})
    assert len(segmentations(datastore, tmp_path / "seen")) == 2
    assert np.array_equal(voxels(datastore.datalist()[0]["label"]), voxels(tmp_path / "2.nii.gz"))
    assert np.array_equal(voxels(store(orthanc, tmp_path, "b").datalist()[0]["label"]), voxels(tmp_path / "2.nii.gz"))
    # The first, sent once more as a copy that was made later: it wins, also where the second is in the cache.
    oldest = min(segmentations(datastore, tmp_path / "seen"), key=lambda seg: str(seg.ContentTime))
    oldest.SOPInstanceUID = oldest.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    oldest.SeriesInstanceUID, oldest.ContentDate = pydicom.uid.generate_uid(), "29991231"
    oldest.save_as(tmp_path / "later.dcm")
    send(datastore, [tmp_path / "later.dcm"])
    assert np.array_equal(voxels(datastore.datalist()[0]["label"]), voxels(tmp_path / "1.nii.gz"))


def test_a_series_that_grew_is_read_again(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    files, *_ = ct_series(tmp_path)
    send(datastore, files[:4])
    assert voxels(datastore.get_image_uri(series_uid("ct"))).shape == (8, 7, 4)
    send(datastore, files[4:])
    assert voxels(datastore.get_image_uri(series_uid("ct"))).shape == (8, 7, 5)


def test_the_search_can_be_narrowed(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    for files in (ct_series(tmp_path)[0], enhanced(tmp_path, "us")):
        send(datastore, files)

    def listed(**filters: str) -> list[str]:
        return sorted(store(orthanc, tmp_path, MONAI_LABEL_DICOMWEB_SEARCH_FILTER=filters).list_images())

    assert sorted(datastore.list_images()) == sorted([series_uid("ct"), series_uid("us")])
    assert listed(Modality="US") == [series_uid("us")]
    assert listed(Modality="CT,MR") == [series_uid("ct")]
    assert listed(PatientID="patient-us") == listed(PatientID="*us", Modality="US,CT") == [series_uid("us")]
    assert listed(PatientID="patient-us", Modality="CT") == listed(PatientID="nobody") == []


@pytest.mark.parametrize("before", [0, 1])
def test_names_that_a_client_gives_count(orthanc: Orthanc, tmp_path: Path, before: int) -> None:
    datastore = store(orthanc, tmp_path)
    send(datastore, enhanced(tmp_path, "us"))
    image = series_uid("us")
    header = read_header(datastore.get_image_uri(image))
    values = np.random.default_rng(3).integers(0, 4, header.shape).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, header.affine), tmp_path / "label.nii.gz")
    # Of the layers only two are there, and one segment more. 3D Slicer counts those that it does not export as well.
    given = [{"name": name, "idx": before + i} for i, name in enumerate(("Deep_Fat", "muscle", "shadow"), start=1)]
    datastore.save_label(image, str(tmp_path / "label.nii.gz"), "final", {"label_info": given})
    expected = np.array([0, 4, 6, 0], np.uint8)[values]
    assert np.array_equal(voxels(datastore.get_label_uri(image, "final")), expected)
    assert np.array_equal(voxels(store(orthanc, tmp_path, "b").get_label_uri(image, "final")), expected)
    (stored,) = segmentations(datastore, tmp_path / "seen")
    assert [item.SegmentLabel for item in stored.SegmentSequence] == ["deep fat", "muscle", "shadow"]
    sizes = dict.fromkeys((1, 2, 3), 0)
    for picture, item in zip(stored.pixel_array, stored.PerFrameFunctionalGroupsSequence, strict=True):
        sizes[item.SegmentIdentificationSequence[0].ReferencedSegmentNumber] += int(picture.sum())
    assert sizes == {value: int((values == value).sum()) for value in (1, 2, 3)}


def test_two_subjects_are_told_apart(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    for name, patient in (("a", "p1"), ("b", "p2"), ("c", "p1")):
        send(datastore, renamed(enhanced(tmp_path, name), name, PatientID=patient))
        some_labels(datastore.get_image_uri(series_uid(name)), tmp_path / "label.nii.gz")
        datastore.save_label(series_uid(name), str(tmp_path / "label.nii.gz"), "final", {})
    subject = {Path(pair["image"]).name[: -len(".nii.gz")]: pair["subject"] for pair in datastore.datalist()}
    assert subject[series_uid("a")] == subject[series_uid("c")] != subject[series_uid("b")]


def test_requests_at_once_download_a_scan_once(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path, MONAI_LABEL_DICOMWEB_CACHE_EXPIRY=60)
    send(datastore, ct_series(tmp_path)[0])
    datastore.lists.forget()
    download, downloads = datastore.archive.download, []

    def counted(*args: Any) -> Any:
        downloads.append(args)
        return download(*args)

    datastore.archive.download = counted
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(datastore.get_image_uri, [series_uid("ct")] * 4))
    assert len(set(files)) == len(downloads) == 1
    assert voxels(files[0]).shape == (8, 7, 5)


def test_the_step_of_sweeps_is_a_setting(orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path / "cache"))
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_FRAME_SPACING", "0.75")
    datastore = make_datastore(orthanc.url, settings)
    send(datastore, sweep(tmp_path))
    steps = np.linalg.norm(nib.load(datastore.get_image_uri(series_uid("sweep"))).affine[:3, :3], axis=0)
    assert steps == pytest.approx([0.2, 0.75, 0.2])
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_FRAME_SPACING", "half")
    with pytest.raises(InputError, match="MONAI_LABEL_DICOMWEB_FRAME_SPACING: found 'half'"):
        make_datastore(orthanc.url, settings)


def test_a_stored_label_is_what_our_reader_reads(orthanc: Orthanc, tmp_path: Path) -> None:
    """The file in the archive, without the datastore."""
    datastore = store(orthanc, tmp_path)
    files, *_ = ct_series(tmp_path)
    send(datastore, files)
    header = read_header(datastore.get_image_uri(series_uid("ct")))
    labels = some_labels(datastore.get_image_uri(series_uid("ct")), tmp_path / "label.nii.gz")
    datastore.save_label(series_uid("ct"), str(tmp_path / "label.nii.gz"), "final", {})
    (stored,) = segmentations(datastore, tmp_path / "seen")
    read = read_dicom_seg(stored.filename, header.shape, header.affine)
    assert np.array_equal(read.labels, labels)
    assert read.unknown == ()
