"""Training in MONAI Label's environment, without a server."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

from grn_monai.data.cohort import load_cohort
from grn_monai.data.volume import scan_name
from grn_monai.errors import InputError, find_input_error
from grn_monai.files import file_stamps
from grn_monai.monailabel.layout import RECORD
from grn_monai.monailabel.requests import device_of, number, refuse_expressions, whole_number
from grn_monai.monailabel.start import previous_name
from grn_monai.monailabel.train import LayersTrainTask, split_subjects
from grn_monai.zoo.prepare import prepare_bundle
from tests.monailabel.conftest import BUNDLES, SERVED

GRN_PLUS, GRN_SSL, UNET = SERVED


class Store:
    """Labels and images as MONAI Label's datastore gives them."""

    def __init__(self, cohort: Path, labelled: int) -> None:
        items = load_cohort(cohort)[0]["training"]
        self.items = items[:labelled]
        self.others = {scan_name(item["image"]): str(item["image"]) for item in items[labelled:]}
        self.subjects = {scan_name(item["image"]): str(item["subject"]) for item in items}

    def datalist(self) -> list[dict[str, str]]:
        return [{"image": str(item["image"]), "label": str(item["label"])} for item in self.items]

    def get_unlabeled_images(self) -> list[str]:
        return list(self.others)

    def get_image_uri(self, image: str) -> str:
        return self.others[image]


def trainer(bundle: str, runs: Path, cohort: Path, out: Path, store: Store | None = None) -> LayersTrainTask:
    prepare_bundle(BUNDLES / bundle, out, runs / bundle / "models" / "model.pt", {"dataset_dir": str(cohort)})
    (out / RECORD).write_text(json.dumps({"run": str(runs / bundle)}))
    return LayersTrainTask(str(out), {}, store.subjects if store else None)


@pytest.fixture
def task(label_runs: Path, label_cohort: Path, tmp_path: Path) -> LayersTrainTask:
    return trainer(UNET, label_runs, label_cohort, tmp_path / UNET, Store(label_cohort, 4))


def contents(task: LayersTrainTask) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (Path(task.bundle_path) / "models").glob("*.pt")}


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Of the log, which a bundle writes to stdout, as a task's details have it."""
    return capsys.readouterr().out.splitlines()[-1]


def spoil(file: Path) -> None:
    """Weights of the same network that are worse than any training."""
    content = torch.load(file, weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for value in content["model"].values():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator))
    torch.save(content, file)


# Who validates --------------------------------------------------------------------------------------------------------


def held_out(names: list[str], share: float = 0.2, seen: set[str] | None = None) -> set[str]:
    items = [{"subject": name, "scan": f"{name}-{number}"} for name in names for number in range(2)]
    train, validation = split_subjects(items, share, seen or set())
    sides = [{item["subject"] for item in side} for side in (train, validation)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == set(names)
    assert len(train) + len(validation) == len(items)
    return sides[1]


def test_who_validates_hardly_changes_when_labels_are_added() -> None:
    names = [f"patient {number}" for number in range(60)]
    sets = [held_out(names[:count]) for count in range(2, 61)]
    for count, (before, after) in enumerate(itertools.pairwise(sets), 3):
        assert len(after) == max(1, round(0.2 * count))
        assert len(before - after) <= 1, "at most one goes, for the one that came"
    assert sum(len(before - after) for before, after in itertools.pairwise(sets)) < 20
    assert held_out(names) == held_out(names[::-1]), "the order of the labels does not matter"
    assert held_out(["a", "b"], 0.99) != {"a", "b"}


def test_subjects_that_the_weights_know_validate_last() -> None:
    names = [f"s{number}" for number in range(10)]
    assert held_out(names, 0.2, set(names[:8])) == {"s8", "s9"}
    assert held_out(names, 0.3, set(names[:8])) > {"s8", "s9"}, "one that is known where others are too few"
    assert held_out(names, 0.2, set(names)) == held_out(names, 0.2)


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="val_split"):
        split_subjects([{"subject": "a"}, {"subject": "b"}], share)


def test_the_log_tells_who_validates(
    task: LayersTrainTask, label_cohort: Path, label_runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scans = set(json.loads((label_runs / UNET / "run.json").read_text())["scans"])
    items = task._fetch_datalist({}, Store(label_cohort, 6))
    seen = {item["subject"] for item in items if item["scan"] in scans}
    assert len(seen) == 2
    with caplog.at_level(logging.INFO):
        _, validation = task._partition_datalist(items, {"val_split": 0.5})
    assert validation is not None
    held = {item["subject"] for item in validation}
    assert len(held) == 3
    assert not held & seen
    assert f"3 scans train, 3 validate, of {', '.join(sorted(held))} (new to the weights)" in caplog.text
    only_seen = [item for item in items if item["subject"] in seen]
    with caplog.at_level(logging.INFO):
        task._partition_datalist(only_seen, {"val_split": 0.5})
    assert "have learned from " in caplog.text


# Requests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("model_filename", "none.pt", "model_filename: found 'none.pt'; expected auto or one of model.pt"),
        ("model_filename", "../models/model.pt", "model_filename: found '../models/model.pt'"),
        ("model_filename", 3, "model_filename: found 3"),
        ("max_epochs", "many", "max_epochs: found 'many'; expected a whole number of 1 or more"),
        ("max_epochs", 0, "max_epochs: found 0"),
        ("val_split", "half", "val_split: found 'half'; expected a number"),
        ("val_split", "nan", "val_split: found 'nan'"),
        ("val_split", 0, "val_split: found 0; expected a share"),
        ("device", "cuda:77", "device: found 'cuda:77'; expected one of cpu"),
        ("device", "$__import__('os').system('true')", "expected a plain value"),
        ("run_id", "$1", "run_id: found '\\$1'; expected a plain value"),
        ("tracking", ["mlflow", "None"], "tracking: found 'mlflow'; expected None"),
        ("pretrained", "perhaps", "pretrained: found 'perhaps'; expected true or false"),
    ],
)
def test_bad_options_are_refused_before_anything_changes(
    task: LayersTrainTask, label_cohort: Path, option: str, value: Any, message: str
) -> None:
    before = contents(task)
    with pytest.raises(InputError, match=message):
        task({"model": UNET, "max_epochs": 1, "device": "cpu", option: value}, Store(label_cohort, 4))
    assert contents(task) == before


@pytest.mark.parametrize(
    "request_",
    [
        {"a": "$1"},
        {"a": ["x", "@network"]},
        {"a": {"b": ({"c": "%train.yaml"},)}},
        {"a": {"_target_": "os.system"}},
        {"$a": 1},
    ],
)
def test_expressions_are_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected a plain value"):
        refuse_expressions(request_)


def test_plain_values_pass() -> None:
    refuse_expressions({"image": "/data/a$b@c%.nii", "n": 1, "list": [None, True, {"k": "v"}]})
    assert whole_number("n", "5", 1) == whole_number("n", 5.0, 1) == 5
    assert number("n", "0.25") == 0.25
    for value in (None, "", [], ["cuda"], "cuda"):
        assert device_of(value) == ("cuda" if torch.cuda.is_available() else "cpu")


def test_options_that_clients_show(task: LayersTrainTask) -> None:
    (Path(task.bundle_path) / "models" / "a.pt").write_bytes(b"")
    options = task.config()
    assert options["model_filename"][0] == "model.pt", "the first is preselected"
    assert "multi_gpu" not in options


# Weights --------------------------------------------------------------------------------------------------------------


def test_better_weights_replace_those_of_before(
    task: LayersTrainTask, label_cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = Path(task.bundle_path) / "models"
    spoil(models / "model.pt")
    before = contents(task)
    request = {  # as 3D Slicer sends it: every option that it was shown
        "model": UNET,
        "name": "train_01",
        "device": "cpu",
        "pretrained": True,
        "max_epochs": "2",
        "val_split": "0.3",
        "multi_gpu": True,
        "gpus": "all",
        "tracking": ["None", "mlflow"],
        "tracking_uri": "",
        "tracking_experiment_name": "",
        "run_id": "",
        "model_filename": "model.pt",
        "client_id": "user-xyz",
    }
    task(request, Store(label_cohort, 4))
    after = contents(task)
    assert after["model.pt"] != before["model.pt"]
    assert after["previous.pt"] == before["model.pt"]
    assert "model.pt has the best weights of this training. Validated on sub-0" in last_line(capsys)
    assert task.stats()["epoch"] == 2
    assert json.loads((Path(task.bundle_path) / "run.json").read_text())["status"] == "completed"


def test_worse_weights_replace_nothing(
    label_runs: Path, label_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(label_cohort, 4)
    task = trainer(GRN_PLUS, label_runs, label_cohort, tmp_path / GRN_PLUS, store)
    before, models = contents(task), Path(task.bundle_path) / "models"
    assert set(before) == {"model.pt", "model_raw.pt"}
    stamps = [file_stamps(models / name) for name in before]
    run = task.run_single_gpu

    def misled(request: dict[str, Any], overrides: dict[str, Any]) -> None:
        """Trains on labels without any layer; those that validate stay as they are."""
        for item in overrides["train#dataset#data"]:
            image = nib.load(item["label"])
            item["label"] = str(tmp_path / Path(item["label"]).name)
            nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), item["label"])
        run(request, {**overrides, "learning_rate": 0.05})

    task.run_single_gpu = misled  # type: ignore[method-assign]
    task({"model": GRN_PLUS, "max_epochs": 1, "device": "cpu"}, store)
    assert [file_stamps(models / name) for name in before] == stamps
    after = contents(task)
    for name in before:
        assert after[name] == before[name], f"{name} stays"
        assert after[previous_name(name)] == before[name]
    told = "No epoch validated better than the weights before: model.pt stays as it was. Validated on sub-0"
    assert told in last_line(capsys)
    history = (Path(task.bundle_path) / "history.csv").read_text().splitlines()
    assert len(history) == 2, "the validation of the start is no epoch"


def test_from_a_copy_of_before(task: LayersTrainTask, label_cohort: Path) -> None:
    models = Path(task.bundle_path) / "models"
    shutil.copy(models / "model.pt", models / "previous.pt")
    spoil(models / "model.pt")
    before = contents(task)
    task({"model": UNET, "max_epochs": 1, "device": "cpu", "model_filename": "previous.pt"}, Store(label_cohort, 4))
    after = contents(task)
    assert after["start.pt"] == before["previous.pt"], "what it started from is not lost"
    assert after["previous.pt"] == before["model.pt"]


def test_anew_keeps_what_was_there(task: LayersTrainTask, label_cohort: Path) -> None:
    before = contents(task)
    task({"model": UNET, "max_epochs": 1, "device": "cpu", "pretrained": "false"}, Store(label_cohort, 4))
    after = contents(task)
    assert after["model.pt"] != before["model.pt"]
    assert after["previous.pt"] == before["model.pt"]


def test_weights_of_another_network_are_refused_and_nothing_changes(
    task: LayersTrainTask, label_runs: Path, label_cohort: Path
) -> None:
    models = Path(task.bundle_path) / "models"
    shutil.copy(label_runs / GRN_PLUS / "models" / "model.pt", models / "other.pt")
    before = contents(task)
    request = {"model": UNET, "max_epochs": 1, "device": "cpu", "model_filename": "other.pt"}
    with pytest.raises(RuntimeError) as info:
        task(request, Store(label_cohort, 4))
    assert "weights of another network" in str(find_input_error(info.value))
    assert contents(task) == before


def test_scans_without_labels_of_subjects_that_validate_do_not_train(
    label_runs: Path, label_cohort: Path, tmp_path: Path
) -> None:
    store = Store(label_cohort, 3)
    first, *_ = store.others
    task = trainer(GRN_SSL, label_runs, label_cohort, tmp_path / GRN_SSL, store)
    items = task._fetch_datalist({}, store)
    (validating,) = {item["subject"] for item in split_subjects(items, 0.2, _seen(label_runs, items))[1]}
    task.subjects = {**store.subjects, first: validating}  # another scan of the same person
    task({"model": GRN_SSL, "max_epochs": 1, "device": "cpu"}, store)
    record = json.loads((Path(task.bundle_path) / "run.json").read_text())
    unlabelled = {scan_name(scan) for scan in record["unlabelled_scans"]}
    assert unlabelled == set(store.others) - {first}
    assert validating not in {store.subjects[scan] for scan in record["scans"]}
    store.others = {first: store.others[first]}
    with pytest.raises(InputError, match="no scan without a label of a subject that does not validate"):
        task({"model": GRN_SSL, "max_epochs": 1, "device": "cpu"}, store)


def _seen(runs: Path, items: list[dict[str, Any]]) -> set[str]:
    scans = set(json.loads((runs / GRN_SSL / "run.json").read_text())["scans"])
    return {item["subject"] for item in items if item["scan"] in scans}


def test_what_the_weights_learned_from_is_not_forgotten(task: LayersTrainTask, label_cohort: Path) -> None:
    store = Store(label_cohort, 4)
    request = {"model": UNET, "max_epochs": 1, "device": "cpu"}
    of_run = task._seen_scans()
    task(request, store)
    first = set(json.loads((Path(task.bundle_path) / "run.json").read_text())["scans"])
    assert task._seen_scans() == of_run | first
    store.items = store.items[2:]
    task(request, store)
    assert task._seen_scans() >= of_run | first
