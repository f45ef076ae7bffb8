"""The app on a real server, driven by MONAI Label's own client."""

from __future__ import annotations

import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

from grn_monai.labels import LAYER_NAMES, LAYERS
from tests.bundles.conftest import MUSCLES
from tests.bundles.contract import same_grid
from tests.monailabel.conftest import SERVED
from tests.monailabel.server import Server, finished, task, wait_for

GRN_PLUS, GRN_SSL, UNET = SERVED
APP = "app/model"


def folder(server: Server) -> Path:
    return server.log.with_suffix("")


@pytest.fixture
def broken(server: Server) -> Iterator[None]:
    """A file among the studies that is no volume."""
    file = folder(server) / "studies" / "broken.nii.gz"
    file.write_bytes(b"no volume")
    wait_for(lambda: "broken" in server.client().datastore()["objects"], 30)
    yield
    file.unlink()
    wait_for(lambda: "broken" not in server.client().datastore()["objects"], 30)


def voxels(path: str | Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def bundle_answer(server: Server, bundle: str, scan: str, out: Path, **options: Any) -> np.ndarray:
    """What the bundle itself answers, through monai.bundle, with the weights that are in the app now."""
    from monai.bundle import create_workflow

    root = folder(server) / APP / bundle
    flow = create_workflow(
        config_file=str(root / "configs" / "inference.yaml"),
        workflow_type="infer",
        bundle_root=str(root),
        meta_file=str(root / "configs" / "metadata.json"),
        dataset_dir=str(folder(server) / "studies" / f"{scan}.nii.gz"),
        output_dir=str(out),
        device="cpu",
        **options,
    )
    flow.run()
    flow.finalize()
    return voxels(out / f"{scan}_seg.nii.gz")


def test_info(server: Server) -> None:
    info = server.client().info()
    assert set(info["models"]) == set(info["trainers"]) == set(SERVED)
    assert set(info["not_served"]) == {"us_layers_grn_sel", "us_layers_semi", *MUSCLES}
    assert "us_layers_grn_sel (no training of it was found)" in info["description"]
    assert info["labels"] == [LAYER_NAMES[layer] for layer in LAYERS]
    assert next(iter(info["strategies"])) == "disagreement"
    assert info["datastore"]["total"] == 6
    assert info["datastore"]["completed"] == 2
    model = info["models"][GRN_PLUS]
    assert model["labels"] == {LAYER_NAMES[layer]: layer for layer in LAYERS}
    assert model["dimension"] == 3
    assert model["config"]["sge"] is True
    assert model["config"]["model_filename"] == ["auto", "model.pt", "model_raw.pt"]
    assert "sge" not in info["models"][UNET]["config"]


@pytest.mark.parametrize("bundle", SERVED)
def test_answers_are_the_bundles_own(server: Server, bundle: str, tmp_path: Path) -> None:
    client = server.client()
    scan = client.next_sample("first", {})
    file, params = client.infer(bundle, scan["id"], {})
    assert same_grid(Path(file), Path(scan["path"]))
    assert nib.load(file).get_data_dtype() == np.uint8
    assert params["label_names"] == {LAYER_NAMES[layer]: layer for layer in LAYERS}
    expected = bundle_answer(server, bundle, scan["id"], tmp_path)
    np.testing.assert_array_equal(voxels(file), expected)
    quality = json.loads((tmp_path / f"{scan['id']}_quality.json").read_text())
    assert params["quality"] == {k: v for k, v in quality.items() if k in params["quality"]}
    assert {"planes", "sge", "plane_disagreement", "sge_disagreement", "layer_order"} <= set(params["quality"])
    assert not (folder(server) / APP / bundle / "eval").exists(), "nothing is written into the bundle"


def test_without_sge_and_without_decode(server: Server, tmp_path: Path) -> None:
    client = server.client()
    scan = client.next_sample("first", {})["id"]
    weights = folder(server) / APP / GRN_PLUS / "models"
    with_sge = voxels(client.infer(GRN_PLUS, scan, {})[0])
    file, params = client.infer(GRN_PLUS, scan, {"sge": False})
    assert params["quality"]["sge"] is False
    expected = bundle_answer(
        server, GRN_PLUS, scan, tmp_path / "raw", sge=False
    )  # with model_raw.pt, as the default is
    np.testing.assert_array_equal(voxels(file), expected)
    assert (expected != with_sge).any()
    file, _ = client.infer(GRN_PLUS, scan, {"sge": "false", "model_filename": "model.pt"})
    other = bundle_answer(server, GRN_PLUS, scan, tmp_path / "s", sge=False, ckpt_path=str(weights / "model.pt"))
    np.testing.assert_array_equal(voxels(file), other)
    file, params = client.infer(GRN_PLUS, scan, {"ordered": False})
    assert params["quality"]["ordered"] is False
    plain = bundle_answer(server, GRN_PLUS, scan, tmp_path / "argmax", ordered=False)
    np.testing.assert_array_equal(voxels(file), plain)
    assert (plain != with_sge).any()
    np.testing.assert_array_equal(voxels(client.infer(GRN_PLUS, scan, {})[0]), with_sge), "options do not stay"


def test_a_file_of_the_clients_own(server: Server, tmp_path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    client = server.client()
    scan = client.next_sample("first", {})
    mine = tmp_path / "mine.mha"
    sitk.WriteImage(sitk.ReadImage(scan["path"]), str(mine))
    file, _ = client.infer(GRN_PLUS, "", {}, file=str(mine))
    assert file.endswith(".mha")
    expected = sitk.GetArrayFromImage(sitk.ReadImage(client.infer(GRN_PLUS, scan["id"], {})[0]))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(file)), expected)


def test_two_requests_at_once_do_not_mix(server: Server) -> None:
    client = server.client()
    scans = sorted(client.datastore()["objects"])[:2]
    cases = [(UNET, scans[0], {}), (GRN_PLUS, scans[0], {}), (GRN_PLUS, scans[0], {"sge": False})]
    cases += [(GRN_PLUS, scans[1], {})]
    alone = [voxels(client.infer(*case)[0]) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda case: voxels(server.client().infer(*case)[0]), cases * 3))
    for number, answer in enumerate(together):
        np.testing.assert_array_equal(answer, alone[number % 4])


PLAN = "$__import__('pathlib').Path({!r}).write_text('x') > 0"


@pytest.mark.parametrize(
    ("model", "image", "params", "code", "message"),
    [
        (GRN_PLUS, "nobody", {}, 404, "an image of the datastore"),
        (GRN_PLUS, "labels", {}, 404, "an image of the datastore"),
        (GRN_PLUS, "/etc/hostname", {}, 404, "an image of the datastore"),
        (GRN_PLUS, "x" * 300, {}, 404, "an image of the datastore"),
        ("unet", None, {}, 404, "expected one of us_layers_grn_plus"),
        (GRN_PLUS, "broken", {}, 422, "broken.nii.gz"),
        (GRN_PLUS, None, {"sge": "perhaps"}, 422, "sge: found 'perhaps'; expected true or false"),
        (GRN_PLUS, None, {"ordered": None}, 422, "ordered: found None"),
        (GRN_PLUS, None, {"ordered": PLAN}, 422, "expected a plain value"),
        (GRN_PLUS, None, {"device": PLAN}, 422, "expected a plain value"),
        (GRN_PLUS, None, {"device": "tpu"}, 422, "expected one of cpu"),
        (GRN_PLUS, None, {"result_extension": "/../../x.nii"}, 422, "expected one of .nii.gz"),
        (GRN_PLUS, None, {"image": "/etc/hostname"}, 404, "an image of the datastore"),
        (GRN_PLUS, None, {"model_filename": "../../../x.pt"}, 422, "expected auto or one of model.pt, model_raw.pt"),
    ],
)
def test_bad_requests_are_told(
    server: Server, broken: None, model: str, image: str | None, params: Any, code: int, message: str, tmp_path: Path
) -> None:
    from monailabel.client.client import MONAILabelClientException

    client = server.client()
    mark = tmp_path / "evaluated"
    params = {k: v.format(str(mark)) if v == PLAN else v for k, v in params.items()}
    with pytest.raises(MONAILabelClientException) as info:
        client.infer(model, image or sorted(client.datastore()["objects"])[1], params)
    text = info.value.msg
    assert f"Status: {code}" in text
    assert message in text
    assert not mark.exists()
    assert client.info()["name"] == "grn-monai", "the server goes on"


def test_options_as_slicer_sends_them(server: Server) -> None:
    client = server.client()
    scan = client.next_sample("first", {})["id"]
    options = {
        "device": ["cpu"],
        "model_filename": "auto",
        "sge": True,
        "ordered": True,
        "label_info": [],
        "result": {},
    }
    expected = voxels(client.infer(GRN_PLUS, scan, {})[0])
    np.testing.assert_array_equal(voxels(client.infer(GRN_PLUS, scan, options)[0]), expected)


def test_what_cannot_be_saved_is_told(server: Server, tmp_path: Path) -> None:
    from monailabel.client.client import MONAILabelClientException

    client = server.client()
    scan = client.next_sample("first", {})["id"]
    text = tmp_path / "label.nii.gz"
    text.write_text("no volume")
    before = set(Path(tempfile.gettempdir()).glob("*.nii.gz"))
    for image, code in (("nobody", 404), (scan, 422)):
        with pytest.raises(MONAILabelClientException) as info:
            client.save_label(image, str(text), "final", {})
        assert f"Status: {code}" in info.value.msg
    assert "final" not in client.datastore()["objects"][scan]["labels"]
    assert set(Path(tempfile.gettempdir()).glob("*.nii.gz")) <= before, "what was sent is not left behind"


def test_pages_of_other_sites_are_not_answered(server: Server) -> None:
    def ask(origin: str) -> int:
        request = urllib.request.Request(f"{server.url}/info/", headers={"Origin": origin})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert ask("https://elsewhere.example") == 403
    assert ask(server.url) == 200


def test_scoring_ranks_what_is_not_labelled(server: Server, broken: None) -> None:
    client = server.client()
    finished(server.url, "scoring")  # of the start
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/scoring/disagreement", method="POST"), timeout=60)
    assert finished(server.url, "scoring")["status"] == "DONE"
    store = folder(server) / "app" / "scores" / GRN_PLUS
    scores = {p.stem: json.loads(p.read_text()) for p in store.glob("*.json")}
    unlabelled = [k for k, v in client.datastore()["objects"].items() if "final" not in v["labels"]]
    assert set(unlabelled) <= set(scores)
    assert "broken.nii.gz" in scores["broken"]["error"]
    good = {k: scores[k] for k in unlabelled if k != "broken"}  # requests of other tests left those of labelled scans
    for name, value in good.items():
        _, params = client.infer(GRN_PLUS, name, {})
        parts = [params["quality"][f"{kind}_disagreement"] for kind in ("plane", "sge")]
        assert value["disagreement"] == pytest.approx(np.mean([1 - part["mean_dice"] for part in parts]))
        assert 0 < value["entropy"] < np.log(7)
    for key in ("disagreement", "entropy"):
        ranked = sorted((name for name in unlabelled if name != "broken"), key=lambda name: -scores[name][key])
        offered = [client.next_sample(key, {}) for _ in ranked]
        assert [sample["id"] for sample in offered] == ranked, "asked again, it goes down the list"
        assert [sample["rank"] for sample in offered] == [1, 2, 3, 4][: len(ranked)]
        assert offered[0]["score"] == scores[ranked[0]][key]
        assert client.next_sample(key, {})["id"] != "broken", "not while there are others"


def train(server: Server, bundle: str, **params: Any) -> dict[str, Any]:
    server.client().train_start(bundle, {"max_epochs": 2, "device": "cpu", "name": "t", **params})
    return finished(server.url, "train")


@pytest.mark.parametrize("bundle", SERVED)
def test_training_on_saved_labels_changes_the_answers(
    server: Server, bundle: str, label_cohort: Path, tmp_path: Path
) -> None:
    client = server.client()
    scan = client.next_sample("first", {})["id"]
    before = voxels(client.infer(bundle, scan, {})[0])
    labelled = [k for k, v in client.datastore()["objects"].items() if "final" in v["labels"]]
    more = client.next_sample("random", {})["id"]
    truth = label_cohort / "labels" / f"{more}.nii.gz"
    client.save_label(more, str(truth), "final", {})
    assert more in [k for k, v in client.datastore()["objects"].items() if "final" in v["labels"]]
    models = folder(server) / APP / bundle / "models"
    old = (models / "model.pt").read_bytes()
    for _ in range(2):  # the second goes on from the first's weights, and is not taken for a resumed run of it
        state = train(server, bundle)
        assert state["status"] == "DONE", "\n".join(state["details"])
    new = (models / "model.pt").read_bytes()
    assert new != old
    text = "\n".join(state["details"])
    assert "best weights of this training. Validated on sub-" in text or "stays as it was. Validated on sub-" in text
    after = voxels(client.infer(bundle, scan, {})[0])
    np.testing.assert_array_equal(after, bundle_answer(server, bundle, scan, tmp_path))
    assert (after != before).any()
    record = json.loads((folder(server) / APP / bundle / "run.json").read_text())
    subjects = json.loads((folder(server) / "app" / "layout.json").read_text())["subjects"]
    assert {subjects[s] for s in record["scans"]} < {subjects[s] for s in [*labelled, more]}, "some validated"
    assert client.info()["train_stats"][bundle]["epoch"] == 2
    client.infer(bundle, scan, {"model_filename": "previous.pt"})


def test_training_that_cannot_be_is_refused(server: Server) -> None:
    state = train(server, UNET, val_split=0)
    assert state["status"] == "ERROR"
    assert "val_split: found 0; expected a share above 0 and below 1" in state["details"][-1]
    state = train(server, UNET, val_split=-1)
    assert state["status"] == "DONE", "the cohort's own validation section"
    models = folder(server) / APP / GRN_PLUS / "models"
    before = (models / "model.pt").read_bytes()
    state = train(server, GRN_PLUS, model_filename="none.pt", pretrained=True)
    assert state["status"] == "ERROR"
    assert "model_filename: found 'none.pt'; expected auto or one of model.pt" in state["details"][-1]
    assert (models / "model.pt").read_bytes() == before


def test_batch_inference_goes_on_past_a_bad_scan(server: Server, broken: None) -> None:
    client = server.client()
    body = json.dumps({"device": "cpu", "multi_gpu": False, "label_tag": "original", "save_label": True}).encode()
    request = urllib.request.Request(
        f"{server.url}/batch/infer/{GRN_PLUS}?images=all", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=60)
    state = finished(server.url, "batch/infer")
    assert state["status"] == "ERROR"
    assert "1 scan of 7 that failed: broken: " in state["details"][-1]
    saved = folder(server) / "studies" / "labels" / "original"
    assert len(list(saved.glob("*.nii.gz"))) == 6
    scan = next(name for name in sorted(client.datastore()["objects"]) if name != "broken")
    np.testing.assert_array_equal(voxels(saved / f"{scan}.nii.gz"), voxels(client.infer(GRN_PLUS, scan, {})[0]))


def test_a_client_that_goes_away_is_not_missed(server: Server) -> None:
    import socket

    client = server.client()
    scan = client.next_sample("first", {})["id"]
    expected = voxels(client.infer(GRN_PLUS, scan, {})[0])
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as line:
            head = f"POST /infer/{GRN_PLUS}?image={scan} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            line.sendall(head.encode())  # and hang up without waiting for the answer
    np.testing.assert_array_equal(voxels(client.infer(GRN_PLUS, scan, {})[0]), expected)


def test_a_stopped_training_leaves_whole_weights(server: Server) -> None:
    import torch

    client = server.client()
    client.train_start(GRN_PLUS, {"max_epochs": 500, "device": "cpu"})
    history = folder(server) / APP / GRN_PLUS / "history.csv"
    history.unlink(missing_ok=True)
    wait_for(lambda: history.is_file() and len(history.read_text().splitlines()) > 2)
    client.train_stop()
    state = task(server.url, "train")
    assert state is not None
    assert state["status"] == "STOPPED"
    for file in (folder(server) / APP / GRN_PLUS / "models").glob("*.pt"):
        torch.load(file, weights_only=True)
    scan = client.next_sample("first", {})["id"]
    client.infer(GRN_PLUS, scan, {})


def test_weights_that_do_not_fit_are_never_answered_from(server: Server) -> None:
    from monailabel.client.client import MONAILabelClientException

    client = server.client()
    models = folder(server) / APP / UNET / "models"
    scan = client.next_sample("first", {})["id"]
    good = (models / "model.pt").read_bytes()
    shutil.copy(folder(server) / APP / GRN_PLUS / "models" / "model.pt", models / "model.pt")
    with pytest.raises(MONAILabelClientException) as info:
        client.infer(UNET, scan, {})
    assert "weights of another network" in info.value.msg
    (models / "model.pt").write_bytes(good)
    client.infer(UNET, scan, {})
