"""A bundle in MONAI Label's own `monaibundle` app, without anything of ours around it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

from grn_monai.monailabel.layout import find_runs, lay_out
from grn_monai.zoo.prepare import prepare_bundle
from tests.bundles.contract import same_grid
from tests.monailabel.conftest import BUNDLES, SERVED
from tests.monailabel.server import Server, finished, free_port

GRN_PLUS = SERVED[0]


@pytest.fixture(scope="module")
def stock(label_cohort: Path, label_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("stock")
    command = [sys.executable, "-m", "monailabel.main"]
    subprocess.run(
        [*command, "apps", "--download", "--name", "monaibundle", "--output", str(folder)], check=True, timeout=120
    )
    prepare_bundle(
        BUNDLES / GRN_PLUS,
        folder / "monaibundle" / "model" / GRN_PLUS,
        label_runs / GRN_PLUS / "models" / "model.pt",
    )
    bundles = [BUNDLES / GRN_PLUS]
    studies = lay_out(folder / "ours", bundles, find_runs(label_runs, bundles), str(label_cohort)).studies
    port = free_port()
    options = ["--app", str(folder / "monaibundle"), "--studies", studies, "--host", "127.0.0.1", "--port", str(port)]
    # Without `zoo_source ngc` it asks the internet for the list of the zoo.
    options += ["--conf", "models", GRN_PLUS, "--conf", "zoo_source", "ngc"]
    server = Server([*command, "start_server", *options], port, folder / "stock.log")
    try:
        yield server.wait()
    finally:
        server.stop()


def test_inference_with_and_without_sge(stock: Server) -> None:
    client = stock.client()
    scan = client.next_sample("first", {})
    answers = {}
    for sge in (True, False):
        file, params = client.infer(GRN_PLUS, scan["id"], {"sge": sge, "ordered": True})
        assert same_grid(Path(file), Path(scan["path"]))
        assert params["label_names"]["muscle"] == 6
        answers[sge] = np.asarray(nib.load(file).dataobj)
    assert (answers[True] != answers[False]).any()


def test_training_twice(stock: Server) -> None:
    """The second must not take the first's checkpoint for its own, nor trip over the handler that is put in front."""
    client = stock.client()
    scan = client.next_sample("first", {})["id"]
    model = stock.log.parent / "monaibundle" / "model" / GRN_PLUS / "models" / "model.pt"
    for _ in range(2):
        before = model.read_bytes()
        # Two labels: half of them validate.
        client.train_start(GRN_PLUS, {"max_epochs": 1, "device": "cpu", "val_split": 0.5, "run_id": ""})
        state = finished(stock.url, "train")
        assert state["status"] == "DONE", "\n".join(state["details"])
        assert model.read_bytes() != before
    client.infer(GRN_PLUS, scan, {"sge": True, "ordered": True})
