"""Laying out needs no MONAI Label, so this runs with all other tests."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from grn_monai.cli import main
from grn_monai.errors import InputError
from grn_monai.monailabel.layout import find_runs, lay_out
from grn_monai.monailabel.scores import ScoreStore, weights_stamp
from tests.monailabel.conftest import BUNDLES, SERVED

ALL = sorted(p.parents[1] for p in BUNDLES.glob("*/configs/metadata.json"))


def digest(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_newest_training_of_each_bundle_is_found(label_runs: Path, tmp_path: Path) -> None:
    assert find_runs(label_runs, ALL) == {name: label_runs / name for name in SERVED}
    newer = tmp_path / "runs" / "deep" / "again"
    shutil.copytree(label_runs / SERVED[0], tmp_path / "runs" / "first")
    shutil.copytree(label_runs / SERVED[0], newer)
    os.utime(newer / "models" / "model.pt", ns=(2**62, 2**62))
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    no_model = tmp_path / "runs" / "unfinished"
    shutil.copytree(label_runs / SERVED[1], no_model)
    (no_model / "models" / "model.pt").unlink()
    assert find_runs(tmp_path / "runs", ALL) == {SERVED[0]: newer}
    assert find_runs(tmp_path / "nowhere", ALL) == {}


def test_layout_of_a_cohort(label_cohort: Path, label_runs: Path, tmp_path: Path) -> None:
    before = digest(label_cohort)
    layout = lay_out(tmp_path / "label", ALL, find_runs(label_runs, ALL), str(label_cohort))
    assert set(layout.served) == set(SERVED)
    assert layout.not_served == {"us_layers_grn_sel": "no training of it was found"}
    assert (layout.images, layout.labelled) == (6, 2)
    for name in SERVED:
        folder = layout.app / "model" / name
        assert (folder / "models" / "model.pt").read_bytes() == (label_runs / name / "models" / "model.pt").read_bytes()
        for config in ("train", "inference"):
            content = yaml.safe_load((folder / "configs" / f"{config}.yaml").read_text())
            assert content["slice_size"] == [32, 32], "as in the training, not the bundle's default"
            assert content["dataset_dir"] == str(label_cohort)
    studies = Path(layout.studies)
    items = {s: [Path(i["image"]).name for i in v] for s, v in json.loads(
        (label_cohort / "dataset.json").read_text()).items() if s in ("training", "validation", "test")}  # fmt: skip
    assert sorted(p.name for p in studies.glob("*.nii.gz")) == sorted(items["training"]), "no scan of another section"
    used = set(json.loads((label_runs / SERVED[0] / "run.json").read_text())["scans"])
    assert {p.name.removesuffix(".nii.gz") for p in (studies / "labels" / "final").iterdir()} == used
    subjects = json.loads((layout.app / "layout.json").read_text())["subjects"]
    assert subjects == {name.removesuffix(".nii.gz"): name.split("_")[0] for name in items["training"]}
    assert digest(label_cohort) == before
    assert all(p.stat().st_nlink == 1 for p in studies.rglob("*.nii.gz")), "no link into the cohort"


def test_weights_trained_in_the_app_stay_until_fresh(label_cohort: Path, label_runs: Path, tmp_path: Path) -> None:
    runs = find_runs(label_runs, ALL)

    def again(**options: bool) -> tuple[bytes, list[str], bytes]:
        layout = lay_out(tmp_path / "label", ALL, runs, str(label_cohort), **options)
        label = next((Path(layout.studies) / "labels" / "final").iterdir())
        return (layout.app / "model" / SERVED[0] / "models" / "model.pt").read_bytes(), layout.kept, label.read_bytes()

    first, kept, label = again()
    assert kept == []
    model = tmp_path / "label" / "app" / "model" / SERVED[0] / "models" / "model.pt"
    model.write_bytes(b"trained here")
    corrected = next((tmp_path / "label" / "studies" / "labels" / "final").iterdir())
    corrected.write_bytes(b"corrected")
    assert again() == (b"trained here", list(SERVED), b"corrected")
    assert again(fresh=True) == (first, [], label)


def test_what_cannot_be_laid_out(label_cohort: Path, label_runs: Path, tmp_path: Path) -> None:
    runs = find_runs(label_runs, ALL)
    with pytest.raises(InputError, match=r"no bundle to serve .*us_layers_grn_plus: no training of it was found"):
        lay_out(tmp_path / "a", ALL, {}, str(label_cohort))
    with pytest.raises(InputError, match="sections: found 'trainig'"):
        lay_out(tmp_path / "b", ALL, runs, str(label_cohort), sections=["trainig"])
    with pytest.raises(InputError, match="no scan in unlabeled"):
        lay_out(tmp_path / "c", ALL, runs, str(label_cohort), sections=["unlabeled"])
    with pytest.raises(InputError, match="no such folder"):
        lay_out(tmp_path / "d", ALL, runs, str(tmp_path / "nothing"))
    layout = lay_out(tmp_path / "e", ALL, runs, "http://127.0.0.1:1/dicom-web")
    assert (layout.studies, layout.images) == ("http://127.0.0.1:1/dicom-web", None)
    layout = lay_out(tmp_path / "f", ALL, runs, str(label_cohort / "images"))
    assert layout.studies == str(label_cohort / "images"), "a folder without dataset.json is served in place"


def test_command(label_cohort: Path, label_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["label", "--bundles", str(BUNDLES), "--out", str(tmp_path / "x"), "--prepare-only"]
    options += ["--studies", str(label_cohort)]
    assert main([*options, "--runs", str(label_runs)]) == 0
    text = capsys.readouterr().out
    assert f"us_layers_grn_plus: weights of {label_runs / SERVED[0]}" in text
    assert "us_layers_grn_sel: not served, no training of it was found" in text
    assert "6 scans, 2 of them with labels" in text
    assert main([*options, "--runs", str(tmp_path / "none")]) == 0, "what was laid out before is served again"
    assert "weights of an earlier layout, as it is in the app" in capsys.readouterr().out
    assert main([*options, "--model", f"us_layers_grn_sel={label_runs / SERVED[0]}"]) == 2, "another bundle's run"
    assert "a training of the bundle" in capsys.readouterr().err
    assert main([*options, "--model", "unet"]) == 2
    assert "NAME=RUN" in capsys.readouterr().err


def test_scores_belong_to_weights(tmp_path: Path) -> None:
    weights, store = tmp_path / "model.pt", ScoreStore(tmp_path / "scores")
    weights.write_bytes(b"1")
    stamp = weights_stamp(weights)
    assert store.get("a/b", stamp) is None
    store.save("a/b", stamp, {"disagreement": 0.25})
    store.save("..", stamp, {"disagreement": 0.5})
    assert store.get("a/b", stamp) == {"disagreement": 0.25, "weights": stamp}
    assert store.get("..", stamp) == {"disagreement": 0.5, "weights": stamp}
    assert {p.parent for p in (tmp_path / "scores").rglob("*")} == {tmp_path / "scores"}
    weights.write_bytes(b"12")
    assert store.get("a/b", weights_stamp(weights)) is None, "other weights score anew"
    next((tmp_path / "scores").glob("a*")).write_text("{")
    assert store.get("a/b", stamp) is None
    with pytest.raises(InputError, match="no such file"):
        weights_stamp(tmp_path / "none.pt")
