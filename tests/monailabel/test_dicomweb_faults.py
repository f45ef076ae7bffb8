"""The datastore on Orthanc where something is wrong: servers, series, labels, the cache."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
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
from monailabel.interfaces.exception import LabelNotFoundException

from grn_monai.data.volume import read_header
from grn_monai.errors import InputError
from tests.monailabel.archive_use import segmentations, send, some_labels, store, voxels
from tests.monailabel.dicom_scans import ct_series, enhanced, series_uid, sweep
from tests.monailabel.orthanc import Orthanc, missing_orthanc, running_orthanc

pytestmark = pytest.mark.skipif(bool(missing_orthanc()), reason=missing_orthanc())


def test_labels_that_are_gone_from_the_archive_are_no_labels(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    send(datastore, enhanced(tmp_path, "us"))
    image = series_uid("us")
    some_labels(datastore.get_image_uri(image), tmp_path / "label.nii.gz")
    datastore.save_label(image, str(tmp_path / "label.nii.gz"), "final", {})
    with pytest.raises(InputError, match="Remove the segmentation there"):
        datastore.remove_label(image, "final")
    for series in orthanc.rest("/series"):
        if orthanc.rest(f"/series/{series}")["MainDicomTags"]["Modality"] == "SEG":
            orthanc.rest(f"/series/{series}", "DELETE")
    assert datastore.get_unlabeled_images() == [image]
    assert datastore.datalist() == []
    assert datastore.get_label_uri(image, "final") == ""


def test_what_is_no_volume_is_left_out_and_named(
    orthanc: Orthanc, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    datastore = store(orthanc, tmp_path)
    datastore.frame_spacing = None
    send(datastore, ct_series(tmp_path, "good")[0])
    send(datastore, ct_series(tmp_path, "report", Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")[0][:1])
    send(datastore, ct_series(tmp_path, "capture", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")[0][:1])
    gap = ct_series(tmp_path, "gap")[0]
    send(datastore, [*gap[:2], *gap[3:]])
    send(datastore, sweep(tmp_path, "cine"))
    with caplog.at_level(logging.WARNING):
        # A report is never asked for; a capture shows in the search; the others when their files are read.
        assert sorted(datastore.list_images()) == sorted(series_uid(name) for name in ("good", "gap", "cine"))
        with pytest.raises(InputError, match=f"series {series_uid('gap')}: .*6 mm between .*a slice may be missing"):
            datastore.get_image_uri(series_uid("gap"))
        with pytest.raises(InputError, match="a cine loop over time is not a volume"):
            datastore.get_image_uri(series_uid("cine"))
    assert datastore.list_images() == [series_uid("good")]
    for name in ("capture", "gap", "cine"):
        assert f"series {series_uid(name)} is left out: " in caplog.text
    with pytest.raises(InputError, match=f"series {series_uid('capture')}: found no volume: CT of SOP class"):
        datastore.get_image_uri(series_uid("capture"))
    with pytest.raises(InputError, match=r"series 1\.2\.3: found no such series"):
        datastore.get_image_uri("1.2.3")
    # The slice that was missing arrives.
    send(datastore, gap[2:3])
    assert voxels(datastore.get_image_uri(series_uid("gap"))).shape == (8, 7, 5)
    assert sorted(datastore.list_images()) == sorted([series_uid("good"), series_uid("gap")])


def test_a_server_that_goes_and_comes_back(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    send(datastore, enhanced(tmp_path, "us"))
    image = series_uid("us")
    file = datastore.get_image_uri(image)
    labels = some_labels(file, tmp_path / "label.nii.gz")
    orthanc.stop()
    start = time.monotonic()
    with pytest.raises(InputError, match="no answer"):
        datastore.list_images()
    assert time.monotonic() - start < 10  # the client's own five tries take 30 s
    told = "no answer .*Start the DICOM server, or correct the address"
    for call in (datastore.datalist, datastore.get_unlabeled_images):
        with pytest.raises(InputError, match=told):
            call()
    with pytest.raises(InputError, match=told):
        datastore.save_label(image, str(tmp_path / "label.nii.gz"), "final", {})
    assert "no answer" in datastore.status()["error"]
    with pytest.raises(InputError, match=told):
        store(orthanc, tmp_path, "other")
    orthanc.start()
    assert datastore.get_labeled_images() == []
    assert not list((tmp_path / "cache").rglob("labels/final/*.nii.gz"))
    datastore.save_label(image, str(tmp_path / "label.nii.gz"), "final", {})
    assert np.array_equal(voxels(datastore.datalist()[0]["label"]), labels)


def test_what_the_archive_does_not_store_is_not_saved(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    # Orthanc answers that all is well, and lists nothing as stored.
    with pytest.raises(InputError, match="a file that it did not store"):
        send(datastore, ct_series(tmp_path, "nameless", StudyInstanceUID="")[0][:1])
    send(datastore, enhanced(tmp_path, "us"))
    image = series_uid("us")
    some_labels(datastore.get_image_uri(image), tmp_path / "label.nii.gz")

    def unstored(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID = ""
        dataset.save_as(path)
        type(datastore.archive).store(datastore.archive, path)

    datastore.archive.store = unstored
    with pytest.raises(InputError, match="a file that it did not store"):
        datastore.save_label(image, str(tmp_path / "label.nii.gz"), "final", {})
    assert not list((tmp_path / "cache").rglob("labels/final/*.nii.gz"))
    assert datastore.get_unlabeled_images() == [image]


def test_passwords_and_wrong_addresses(tmp_path: Path) -> None:
    with running_orthanc(tmp_path / "orthanc", ("site", "secret")) as server:
        with pytest.raises(InputError, match=r"401 .* Set MONAI_LABEL_DATASTORE_USERNAME"):
            store(server, tmp_path)
        account = {"MONAI_LABEL_DATASTORE_USERNAME": "site", "MONAI_LABEL_DATASTORE_PASSWORD": "secret"}
        assert store(server, tmp_path, **account).list_images() == []
        for url, message in ((server.url + "x", "404 .* Check the address"), ("ftp://x", "DICOMweb service")):
            with pytest.raises(InputError, match=message):
                make_datastore(url, Settings(**account, MONAI_LABEL_DICOMWEB_CACHE_PATH=str(tmp_path)))


def test_labels_of_another_grid_are_refused_and_other_orders_taken(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    send(datastore, enhanced(tmp_path, "us"))
    image = series_uid("us")
    file = datastore.get_image_uri(image)
    labels = some_labels(file, tmp_path / "label.nii.gz")
    moved = nib.load(tmp_path / "label.nii.gz")
    shift = np.eye(4)
    shift[0, 3] = 0.2
    nib.save(nib.Nifti1Image(labels, shift @ moved.affine), tmp_path / "moved.nii.gz")
    nib.save(nib.Nifti1Image(labels * 0, moved.affine), tmp_path / "empty.nii.gz")
    for name, message in (("moved", "another grid"), ("empty", "background alone")):
        with pytest.raises(InputError, match=message):
            datastore.save_label(image, str(tmp_path / f"{name}.nii.gz"), "final", {})
    assert segmentations(datastore, tmp_path / "seen") == []
    nib.save(moved.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])), tmp_path / "turned.nii.gz")
    datastore.save_label(image, str(tmp_path / "turned.nii.gz"), "final", {})
    assert np.array_equal(voxels(datastore.get_label_uri(image, "final")), labels)
    assert np.array_equal(voxels(store(orthanc, tmp_path, "b").get_label_uri(image, "final")), labels)


def test_segmentations_of_others(orthanc: Orthanc, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Other organs are no labels; a label that does not fit its scan is left out of the training data and named."""
    datastore = store(orthanc, tmp_path)
    send(datastore, ct_series(tmp_path)[0])
    image = series_uid("ct")
    some_labels(datastore.get_image_uri(image), tmp_path / "label.nii.gz")
    datastore.save_label(image, str(tmp_path / "label.nii.gz"), "final", {})
    (stored,) = segmentations(datastore, tmp_path / "seen")

    def sent_as(name: str, change: Callable[[Any], None]) -> None:
        other = pydicom.dcmread(stored.filename)
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        other.SeriesInstanceUID, other.ContentDate = series_uid(name), "29991231"
        change(other)
        other.save_as(tmp_path / f"{name}.dcm")
        send(datastore, [tmp_path / f"{name}.dcm"])

    def organs(seg: Any) -> None:
        for item in seg.SegmentSequence:
            item.SegmentLabel = "spleen"

    def shifted(seg: Any) -> None:
        for item in seg.PerFrameFunctionalGroupsSequence:
            item.PlanePositionSequence[0].ImagePositionPatient = [0.0, 0.0, 0.0]

    sent_as("organs", organs)
    sent_as("shifted", shifted)
    with caplog.at_level(logging.WARNING):
        assert datastore.get_labeled_images() == [image]
        assert datastore.datalist() == []
    assert f"segmentation {series_uid('organs')} is no label: segments spleen" in caplog.text
    assert f"series {series_uid('shifted')} is left out: segments on another grid" in caplog.text
    # The one that fits counts from then on.
    assert [Path(pair["image"]).name for pair in datastore.datalist()] == [f"{image}.nii.gz"]


def test_predictions_and_uploads_stay_out_of_the_archive(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    send(datastore, enhanced(tmp_path, "us"))
    image = series_uid("us")
    labels = some_labels(datastore.get_image_uri(image), tmp_path / "label.nii.gz")
    datastore.save_label(image, str(tmp_path / "label.nii.gz"), "original", {"model": "us_layers_grn_plus"})
    assert np.array_equal(voxels(datastore.get_label_uri(image, "original")), labels)
    assert datastore.get_labeled_images() == []
    datastore.remove_label(image, "original")
    assert datastore.get_label_uri(image, "original") == ""
    for call in (lambda: datastore.add_image("a", "a.nii.gz", {}), lambda: datastore.remove_image(image)):
        with pytest.raises(InputError, match=r"(of the archive|Remove the series there)"):
            call()
    assert datastore.list_images() == [image]
    # No name, no id of the patient leaves by MONAI Label's own lists.
    assert "patient-us" not in str(datastore.json())


def test_a_damaged_cache_is_made_again(orthanc: Orthanc, tmp_path: Path) -> None:
    datastore = store(orthanc, tmp_path)
    send(datastore, enhanced(tmp_path, "us"))
    image = series_uid("us")
    before = voxels(datastore.get_image_uri(image))
    shutil.rmtree(next((tmp_path / "cache").glob("*/dicom")) / image)
    assert np.array_equal(voxels(store(orthanc, tmp_path).get_image_uri(image)), before)
    (file,) = (tmp_path / "cache").glob("*/*.nii.gz")
    file.unlink()
    (listed,) = (tmp_path / "cache").glob("*/datastore_v2.json")
    listed.write_text(listed.read_text()[:100])
    assert np.array_equal(voxels(store(orthanc, tmp_path).get_image_uri(image)), before)
    assert len(list(listed.parent.glob("datastore_v2.json.damaged-1"))) == 1


def test_a_refused_label_leaves_nothing(orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datastore = store(orthanc, tmp_path)
    send(datastore, enhanced(tmp_path, "us"))
    image = series_uid("us")
    file = datastore.get_image_uri(image)
    uploads = tmp_path / "system"
    uploads.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(uploads))
    header = read_header(file)
    for tag, top, message in (("final", 7, "unknown label values 7"), ("original", 7, "7"), ("../x", 6, "tag: found")):
        nib.save(nib.Nifti1Image(np.full(header.shape, top, np.uint8), header.affine), uploads / "t.nii.gz")
        with pytest.raises(InputError, match=message):
            datastore.save_label(image, str(uploads / "t.nii.gz"), tag, {})
        assert list(uploads.iterdir()) == []
    (uploads / "t.nii.gz").write_bytes(Path(file).read_bytes())
    with pytest.raises(InputError, match="a series of the archive"):
        datastore.add_image("x", str(uploads / "t.nii.gz"), {})
    # As OHIF sends it: bytes in the order of the voxels. Nothing of the way there stays either.
    labels = np.random.default_rng(0).integers(0, 7, header.shape).astype(np.uint8)
    (uploads / "t.bin").write_bytes(labels.tobytes(order="F"))
    datastore.save_label(image, str(uploads / "t.bin"), "original", {})
    assert np.array_equal(voxels(datastore.get_label_uri(image, "original")), labels)
    assert [path.name for path in uploads.iterdir()] == ["t.bin"]
    with pytest.raises(LabelNotFoundException):
        datastore.remove_label(image, "second")
    assert segmentations(datastore, tmp_path / "seen") == []
