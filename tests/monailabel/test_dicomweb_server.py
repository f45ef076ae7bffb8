"""The app on a DICOM archive: Orthanc and MONAI Label as processes, driven by MONAI Label's own client."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pydicom
import pytest

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")
pytest.importorskip("highdicom", reason="DICOM segmentations need highdicom")

from grn_monai.dicom.read import read_dicom_seg
from tests.bundles.contract import same_grid
from tests.monailabel.conftest import BUNDLES, SERVED
from tests.monailabel.dicom_scans import enhanced, series_uid
from tests.monailabel.orthanc import Orthanc, missing_orthanc, running_orthanc
from tests.monailabel.server import Server, finished, grn_server

pytestmark = pytest.mark.skipif(bool(missing_orthanc()), reason=missing_orthanc())

GRN_PLUS = SERVED[0]
SCANS = ("one", "two", "three")


class Site(NamedTuple):
    archive: Orthanc
    server: Server
    images: dict[str, Path]  # name of a scan to the file that its DICOM volume was made from
    labels: dict[str, Path]


@pytest.fixture(scope="module")
def site(label_cohort: Path, label_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    files = dict(zip(SCANS, sorted((label_cohort / "images").glob("*.nii.gz")), strict=False))
    with running_orthanc(folder / "orthanc") as archive:
        client = pytest.importorskip("grn_monai.monailabel.archive").Archive(archive.url)
        for name, file in files.items():
            for dicom in enhanced(folder, name, nib.load(file)):
                client.store(dicom)
        expiry = {"MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "0", "MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
        options = ["--conf", "models", GRN_PLUS, "--modality", "US"]
        server = grn_server(folder / "label", BUNDLES, label_runs, archive.url, *options, **expiry)
        try:
            yield Site(archive, server.wait(), files, {n: label_cohort / "labels" / f.name for n, f in files.items()})
        finally:
            server.stop()


def voxels(path: str | Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def segmentations(site: Site) -> list[Any]:
    found = []
    for series in site.archive.rest("/series?expand"):
        if series["MainDicomTags"]["Modality"] == "SEG":
            for instance in series["Instances"]:
                url = f"http://127.0.0.1:{site.archive.port}/instances/{instance}/file"
                with urllib.request.urlopen(url, timeout=30) as answer:
                    file = site.server.log.parent / f"{instance}.dcm"
                    file.write_bytes(answer.read())
                found.append(pydicom.dcmread(file))
    return found


def training_data(site: Site) -> list[dict[str, str]]:
    with urllib.request.urlopen(f"{site.server.url}/datastore/?output=train", timeout=60) as answer:
        return list(json.load(answer))


def test_infer_save_and_train(site: Site) -> None:
    client = site.server.client()
    assert client.info()["datastore"]["total"] == 3
    scan = client.next_sample("first", {})
    assert scan["id"] in {series_uid(name) for name in SCANS}
    (name,) = (name for name in SCANS if series_uid(name) == scan["id"])
    # The scan that came by DICOM is the one that was sent, in voxels and in place.
    assert same_grid(Path(scan["path"]), site.images[name])
    assert np.array_equal(voxels(scan["path"]), voxels(site.images[name]))
    file, params = client.infer(GRN_PLUS, scan["id"], {})
    assert same_grid(Path(file), site.images[name])
    assert params["label_names"]["muscle"] == 6

    assert training_data(site) == []
    for name in SCANS[:2]:
        client.save_label(series_uid(name), str(site.labels[name]), "final", {})
    stored = {str(seg.ReferencedSeriesSequence[0].SeriesInstanceUID): seg for seg in segmentations(site)}
    assert set(stored) == {series_uid("one"), series_uid("two")}
    for name in SCANS[:2]:
        header = nib.load(site.images[name])
        back = read_dicom_seg(stored[series_uid(name)].filename, header.shape, header.affine)
        assert np.array_equal(back.labels, voxels(site.labels[name]))
    assert client.next_sample("first", {})["id"] == series_uid("three")
    pairs = training_data(site)
    assert {Path(pair["image"]).name for pair in pairs} == {f"{series_uid(name)}.nii.gz" for name in SCANS[:2]}
    for pair in pairs:
        assert same_grid(Path(pair["image"]), Path(pair["label"]))

    client.train_start(GRN_PLUS, {"max_epochs": 1, "val_split": 0.5, "device": "cpu", "name": "t"})
    state = finished(site.server.url, "train", 300)
    assert state["status"] == "DONE", state["details"]
    file, _ = client.infer(GRN_PLUS, series_uid("three"), {})
    assert same_grid(Path(file), site.images["three"])


def test_the_server_lives_on_without_the_archive(site: Site) -> None:
    client = site.server.client()
    before = len(segmentations(site))
    site.archive.stop()
    try:
        assert "no answer" in client.info()["datastore"]["error"]
        with pytest.raises(Exception, match="Start the DICOM server, or correct the address"):
            client.infer(GRN_PLUS, series_uid("one"), {})
        with pytest.raises(Exception, match=r"Status: (500|422)"):
            client.save_label(series_uid("one"), str(site.labels["one"]), "final", {})
    finally:
        site.archive.start()
    assert len(segmentations(site)) == before
    file, _ = client.infer(GRN_PLUS, series_uid("one"), {})
    assert same_grid(Path(file), site.images["one"])
