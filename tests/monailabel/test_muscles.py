"""The CT and MR bundles in the app: layout by the scans, answers, saved labels, training, on real servers."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import create_workflow

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

from grn_monai.labels import CT_MUSCLES, MRI_MUSCLES
from tests.bundles.conftest import run
from tests.bundles.contract import same_grid
from tests.monailabel.conftest import BUNDLES
from tests.monailabel.muscles import CT, CT_SMALL, GRN, MRI, MRI_SMALL, small_cohort
from tests.monailabel.server import Server, finished, grn_server

CASES = ("ct", "mri")
BUNDLE = {"ct": CT, "mri": MRI}
NAMES = {"ct": CT_MUSCLES, "mri": MRI_MUSCLES}


@pytest.fixture(scope="module")
def muscle_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GRN+ training of five classes on CT and a plain one on MR, beside their cohorts."""
    folder = tmp_path_factory.mktemp("muscles")
    for kind, overlays, options in (
        ("ct", ("autochthon_iliopsoas", "grn_plus"), {**CT_SMALL, **GRN, "fraction": 0.5}),
        ("mri", (), {**MRI_SMALL, "fraction": 0.5}),
    ):
        small_cohort(folder / kind, kind, (4, 1, 1))
        where = {"dataset_dir": str(folder / kind), "output_dir": str(folder / "runs" / kind)}
        run(BUNDLE[kind], "train", *overlays, **where, **options)
    for file in (folder / "runs" / "ct" / "models").glob("*.pt"):  # an epoch taught it one class alone
        checkpoint = torch.load(file, weights_only=True)
        last = {key: value for key, value in checkpoint["model"].items() if "final_conv" in key}
        last["segmentor.final_conv.weight"].normal_(generator=torch.Generator().manual_seed(0))
        last["segmentor.final_conv.bias"].zero_()
        torch.save(checkpoint, file)
    return folder


@pytest.fixture(scope="module", params=CASES)
def served(request: Any, muscle_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server]]:
    """A server on the CT or the MR cohort, with trainings of both in the folder of runs."""
    kind = request.param
    out = tmp_path_factory.mktemp("served") / "label"
    server = grn_server(out, BUNDLES, muscle_runs / "runs", str(muscle_runs / kind))
    try:
        yield kind, server.wait()
    finally:
        server.stop()


def voxels(path: str | Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def app(server: Server) -> Path:
    return server.log.with_suffix("") / "app"


def by_the_bundle(kind: str, server: Server, scan: str, out: Path, **options: Any) -> np.ndarray:
    """What the copy's own inference.yaml answers."""
    folder = app(server) / "model" / BUNDLE[kind]
    where = {"bundle_root": str(folder), "dataset_dir": scan, "output_dir": str(out), "device": "cpu"}
    config = str(folder / "configs" / "inference.yaml")
    create_workflow(config_file=config, workflow_type="infer", **where, **options).run()
    return voxels(next(out.glob("*_seg.nii.gz")))


def test_the_server_tells_what_it_has(served: tuple[str, Server]) -> None:
    kind, server = served
    info = server.client().info()
    other = BUNDLE["mri" if kind == "ct" else "ct"]
    assert list(info["models"]) == [BUNDLE[kind]]
    assert "those of the cohort" in info["not_served"][other]
    labels = {name: value for value, name in NAMES[kind].items() if value}
    assert info["models"][BUNDLE[kind]]["labels"] == labels
    assert info["models"][BUNDLE[kind]]["dimension"] == 3
    assert info["description"].startswith("Muscles of the back")
    assert "first or random" in info["description"]
    assert list(info["strategies"]) == ["random", "first"]
    assert info["scoring"] == {}
    assert ("sge" in info["models"][BUNDLE[kind]]["config"]) is (kind == "ct")


def test_answers_are_those_of_the_bundle_on_the_scans_grid(served: tuple[str, Server], tmp_path: Path) -> None:
    kind, server = served
    client = server.client()
    scan = client.next_sample("first", {})
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {})]
    if kind == "ct":
        cases.append(({"sge": False}, {"displayable_configs#sge": False}))
    answers = []
    for number, (asked, given) in enumerate(cases):
        file, params = client.infer(BUNDLE[kind], scan["id"], asked)
        assert same_grid(Path(file), Path(scan["path"]))
        assert nib.load(file).get_data_dtype() == np.uint8
        answers.append(voxels(file))
        np.testing.assert_array_equal(
            answers[-1], by_the_bundle(kind, server, scan["path"], tmp_path / f"{number}", **given)
        )
        absent = [name for value, name in NAMES[kind].items() if value and not (answers[-1] == value).any()]
        assert params["missing"] == absent
        assert len(np.unique(answers[-1])) > 1
        assert params["label_names"] == {name: value for value, name in NAMES[kind].items() if value}
    assert kind == "mri" or (answers[0] != answers[1]).any()


def test_what_cannot_be_ranked_is_told(served: tuple[str, Server]) -> None:
    from monailabel.client.client import MONAILabelClientException

    client = served[1].client()
    with pytest.raises(MONAILabelClientException) as info:
        client.next_sample("disagreement", {})
    assert "Status: 422" in info.value.msg
    assert "Next samples come by first or random" in info.value.msg
    assert client.next_sample("random", {})["id"]


def test_saved_labels_are_numbered_by_the_names(served: tuple[str, Server], tmp_path: Path) -> None:
    from monailabel.client.client import MONAILabelClientException

    kind, server = served
    client = server.client()
    unlabelled = sorted(k for k, v in client.datastore()["objects"].items() if "final" not in v["labels"])
    image = app(server).parent / "studies" / f"{unlabelled[0]}.nii.gz"
    affine, values = nib.load(image).affine, np.zeros(nib.load(image).shape, np.uint8)
    values[1, 1], values[2, 2] = 1, 2
    file = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), file)
    named = [{"name": NAMES[kind][v].replace(" ", "_").title(), "idx": i} for i, v in ((1, 4), (2, 3))]
    client.save_label(unlabelled[0], str(file), "final", {"label_info": named})
    saved = voxels(app(server).parent / "studies" / "labels" / "final" / f"{unlabelled[0]}.nii.gz")
    np.testing.assert_array_equal(saved, np.choose(values, [0, 4, 3]))
    with pytest.raises(MONAILabelClientException) as info:
        client.save_label(unlabelled[0], str(file), "final", {"label_info": [{"name": "dermis", "idx": 1}, named[1]]})
    assert "dermis" in info.value.msg
    assert NAMES[kind][1] in info.value.msg


def test_training_on_saved_labels(served: tuple[str, Server], muscle_runs: Path, tmp_path: Path) -> None:
    kind, server = served
    client = server.client()
    for scan, item in client.datastore()["objects"].items():
        if "final" not in item["labels"]:
            client.save_label(scan, str(muscle_runs / kind / "labels" / f"{scan}.nii.gz"), "final", {})
    models = app(server) / "model" / BUNDLE[kind] / "models"
    before = (models / "model.pt").read_bytes()
    client.train_start(BUNDLE[kind], {"max_epochs": 2, "device": "cpu", "val_split": 0.3, "pretrained": False})
    state = finished(server.url, "train")
    assert state["status"] == "DONE", "\n".join(state["details"])
    assert (models / "model.pt").read_bytes() != before
    assert (models / "previous.pt").read_bytes() == before
    record = json.loads((models.parent / "run.json").read_text())
    assert len(record["scans"]) == 3, "one of four subjects validated"
    scan = client.next_sample("first", {}) or {"id": sorted(client.datastore()["objects"])[0]}
    image = app(server).parent / "studies" / f"{scan['id']}.nii.gz"
    file, params = client.infer(BUNDLE[kind], scan["id"], {})
    np.testing.assert_array_equal(voxels(file), by_the_bundle(kind, server, str(image), tmp_path / "after"))
    assert params["weights"]


def test_batch_inference(served: tuple[str, Server]) -> None:
    kind, server = served
    body = json.dumps({"device": "cpu", "label_tag": "original", "save_label": True}).encode()
    url = f"{server.url}/batch/infer/{BUNDLE[kind]}?images=all"
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=60)
    state = finished(server.url, "batch/infer")
    assert state["status"] == "DONE", "\n".join(state["details"])
    saved = sorted((app(server).parent / "studies" / "labels" / "original").glob("*.nii.gz"))
    assert len(saved) == 4
