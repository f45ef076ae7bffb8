"""Small trainings and a real server, shared by the tests of this folder.

Those that need MONAI Label run in its environment: `make test-label`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from data_prep.simulate.cohort import simulate_cohort
from data_prep.simulate.settings import Settings
from tests.bundles.conftest import EXTRA, ROOT, SMALL, run
from tests.monailabel.orthanc import Orthanc, running_orthanc
from tests.monailabel.server import Server, grn_server

if TYPE_CHECKING:
    from grn_monai.monailabel.studies import LayersDatastore

BUNDLES = ROOT / "bundles"
SERVED = ("us_layers_grn_plus", "us_layers_grn_ssl", "us_layers_supervised")
"""GRN-SEL is left without a training."""


@pytest.fixture(scope="session")
def label_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("label_cohort")
    settings = Settings(split=(6, 1, 1), split_scans=(6, 1, 1), shape=(20, 16, 40), seed=4)
    simulate_cohort(folder, settings, workers=1, progress=False)
    return folder


@pytest.fixture(scope="session")
def label_runs(label_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training of each served bundle, on two of six subjects."""
    folder = tmp_path_factory.mktemp("runs")
    for bundle in SERVED:
        options: dict[str, Any] = {**SMALL, **EXTRA[bundle], "fraction": 0.34, "batch_size": 4}
        run(bundle, "train", dataset_dir=str(label_cohort), output_dir=str(folder / bundle), **options)
    return folder


@pytest.fixture(scope="module")
def server(label_cohort: Path, label_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    out = tmp_path_factory.mktemp("served") / "label"
    served = grn_server(out, BUNDLES, label_runs, str(label_cohort))
    try:
        yield served.wait()
    finally:
        served.stop()


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, where MONAI Label puts what clients send."""
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path, uploads: Path) -> LayersDatastore:
    from tests.monailabel.folder_use import two_scans  # needs MONAI Label

    return two_scans(tmp_path / "studies")


@pytest.fixture(scope="module")
def shared_orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def orthanc(shared_orthanc: Orthanc) -> Orthanc:
    shared_orthanc.clear()
    return shared_orthanc
