"""Scores of scans in MONAI Label's environment, without a server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

from monailabel.datastore.local import LocalDatastore

from grn_monai.errors import InputError
from grn_monai.monailabel.archive import ArchiveError
from grn_monai.monailabel.scores import ScoreStore, file_stamp, weights_stamp
from grn_monai.monailabel.scoring import PARTIAL, DisagreementScoring, RankedStrategy, image_stamp


class Task:
    """Scores by the first number in a scan's file; a scan that has none cannot be read."""

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        self.seen: list[str] = []
        self.devices: set[str] = set()
        self.on_score: Any = lambda image: None

    def weights_file(self) -> Path:
        return self.weights

    def score(self, image: str, device: str = "cpu") -> dict[str, Any]:
        weights = weights_stamp(self.weights)
        self.seen.append(Path(image).name.split(".")[0])
        self.devices.add(device)
        self.on_score(image)
        text = Path(image).read_text()
        if not text.startswith("0."):
            raise InputError(image, "no volume", "a volume", "Mend it.")
        value = float(text.split()[0])
        disagreement = {"mean_dice": 1 - value, "disagreement_percent": 100 * value}
        quality = {"plane_disagreement": disagreement, "sge_disagreement": disagreement}
        return {"quality": quality, "entropy": value / 2, "weights": weights}


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    return ScoreStore(tmp_path / "scores")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    file = tmp_path / "model.pt"
    file.write_text("one")
    return file


@pytest.fixture
def studies(tmp_path: Path) -> LocalDatastore:
    folder = tmp_path / "studies"
    folder.mkdir()
    for name, content in {"a": "0.1", "b": "0.3", "c": "broken", "d": "0.2"}.items():
        (folder / f"{name}.nii.gz").write_text(content)
    return LocalDatastore(str(folder), extensions=["*.nii.gz"], auto_reload=False)


def write(datastore: LocalDatastore, image: str, content: str) -> None:
    file = Path(datastore.get_image_uri(image))
    file.write_text(content)
    os.utime(file, ns=(10**18, 10**18 + len(content)))


def test_store(store: ScoreStore) -> None:
    assert store.get("a", "w") is None
    store.save("a", "w", {"disagreement": 0.5}, "f1")
    assert store.get("a", "w") == {"disagreement": 0.5, "weights": "w", "image": "f1"}
    assert store.get("a", "w", "f1") == store.get("a", "w")
    assert store.get("a", "w", "f2") is None, "the file has changed"
    assert store.get("a", "other", "f1") is None, "the weights have"
    store.save("x/../y", "w", {}, "")
    assert store.get("x/../y", "w", "f2") == {"weights": "w", "image": ""}, "an unknown file is any"
    assert len(list(store.folder.iterdir())) == 2
    next(store.folder.glob("a*")).write_text("[1")
    assert store.get("a", "w") is None


def test_stamps_of_files(tmp_path: Path) -> None:
    header, voxels = tmp_path / "a.mhd", tmp_path / "a.raw"
    header.write_text("h")
    alone = file_stamp(header)
    voxels.write_bytes(b"12")
    both = file_stamp(header)
    assert alone != both
    voxels.write_bytes(b"123")
    assert file_stamp(header) != both, "the voxels count too"
    assert file_stamp(tmp_path / "none") == file_stamp("") == ""


def test_each_scan_is_scored_once_for_its_file_and_weights(
    store: ScoreStore, weights: Path, studies: LocalDatastore
) -> None:
    task = Task(weights)
    method = DisagreementScoring(task, store)  # type: ignore[arg-type]
    first = method({}, studies)
    assert task.seen == ["a", "b", "c", "d"]
    assert (first["total"], first["executed"], first["skipped"], list(first["failed"])) == (4, 4, 0, ["c"])
    assert store.get("b", weights_stamp(weights))["disagreement"] == pytest.approx(0.3)  # type: ignore[index]
    assert method.missing(studies) == []
    task.seen.clear()
    assert method({}, studies)["executed"] == 0
    write(studies, "c", "0.9")
    write(studies, "a", "0.8")
    again = method({}, studies)
    assert task.seen == ["a", "c"], "the mended and the replaced one"
    assert again["failed"] == {}
    kept = store.get("c", weights_stamp(weights), image_stamp(studies, "c"))
    assert kept is not None
    assert "error" not in kept
    assert kept["disagreement"] == pytest.approx(0.9)
    weights.write_text("other")
    task.seen.clear()
    assert method({"max_samples": "3"}, studies)["executed"] == 3
    assert task.seen == ["a", "b", "c"]


def test_what_a_request_left_is_completed(store: ScoreStore, weights: Path, studies: LocalDatastore) -> None:
    stamp = weights_stamp(weights)
    store.save("b", stamp, {"disagreement": 0.3, "entropy": None, PARTIAL: True}, image_stamp(studies, "b"))
    task = Task(weights)
    DisagreementScoring(task, store)({}, studies)  # type: ignore[arg-type]
    assert "b" in task.seen
    assert store.get("b", stamp)["entropy"] == pytest.approx(0.15)  # type: ignore[index]


def test_weights_that_change_meanwhile_score_all_again(
    store: ScoreStore, weights: Path, studies: LocalDatastore
) -> None:
    task = Task(weights)

    def retrained(image: str) -> None:
        if len(task.seen) == 2:
            weights.write_text("trained")

    task.on_score = retrained
    before = weights_stamp(weights)
    DisagreementScoring(task, store)({}, studies)  # type: ignore[arg-type]
    now = weights_stamp(weights)
    assert now != before
    assert all(store.get(name, now) for name in "abcd")
    assert task.seen == ["a", "b", "c", "d", "a", "b"]


def test_a_file_that_changes_while_it_is_scored_is_scored_again(
    store: ScoreStore, weights: Path, studies: LocalDatastore
) -> None:
    task = Task(weights)
    task.on_score = lambda image: write(studies, "a", "0.7") if "a.nii" in image else None
    method = DisagreementScoring(task, store)  # type: ignore[arg-type]
    method({}, studies)
    assert method.missing(studies) == ["a"]
    task.on_score = lambda image: None
    method({}, studies)
    assert json.loads((store.folder / "a.json").read_text())["disagreement"] == pytest.approx(0.7)


@pytest.mark.parametrize(("option", "value"), [("max_samples", "many"), ("max_samples", -1), ("device", "@x")])
def test_bad_options_are_refused(
    store: ScoreStore, weights: Path, studies: LocalDatastore, option: str, value: Any
) -> None:
    with pytest.raises(InputError, match=option):
        DisagreementScoring(Task(weights), store)({option: value}, studies)  # type: ignore[arg-type]
    assert not store.folder.exists()


def test_an_archive_that_is_away_is_no_fault_of_the_scan(
    store: ScoreStore, weights: Path, studies: LocalDatastore
) -> None:
    def away(image: str) -> None:
        raise ArchiveError("http://archive", "no answer", "an archive", "Start it.")

    task = Task(weights)
    task.on_score = away
    with pytest.raises(ArchiveError):
        DisagreementScoring(task, store)({}, studies)  # type: ignore[arg-type]
    assert not store.folder.exists()


def test_a_gpu_scores_where_there_is_one(
    store: ScoreStore, weights: Path, studies: LocalDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(weights)
    monkeypatch.setattr("grn_monai.monailabel.requests.torch.cuda.is_available", lambda: True)
    DisagreementScoring(task, store)({}, studies)  # type: ignore[arg-type]
    assert task.devices == {"cuda"}


def test_what_cannot_be_read_is_offered_again_once_it_is_mended(
    store: ScoreStore, weights: Path, studies: LocalDatastore
) -> None:
    DisagreementScoring(Task(weights), store)({}, studies)  # type: ignore[arg-type]
    strategy = RankedStrategy("disagreement", store, lambda: weights_stamp(weights), "")
    request = {"strategy": "disagreement"}
    assert strategy(request, studies) == {"id": "b", "score": pytest.approx(0.3), "scored": True, "rank": 1}
    write(studies, "c", "0.9")
    write(studies, "b", "0.05")
    answer = strategy(request, studies)
    assert answer is not None
    assert (answer["id"], answer["rank"]) == ("d", 1), "old scores of changed files do not count"
    DisagreementScoring(Task(weights), store)({}, studies)  # type: ignore[arg-type]
    answer = strategy(request, studies)
    assert answer is not None
    assert answer["id"] == "c"
