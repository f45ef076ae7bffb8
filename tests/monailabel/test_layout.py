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
from grn_monai.monailabel.layout import Layout, find_runs, lay_out, only_one
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
    rest = {bundle.name for bundle in ALL} - set(SERVED)
    assert "us_layers_grn_sel" in rest
    assert layout.not_served == dict.fromkeys(rest, "no training of it was found")
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
    """With the folder inside that of the runs, as `make label` has it."""
    runs = tmp_path / "runs"
    shutil.copytree(label_runs, runs)
    out = runs / "label"

    def again(**options: bool) -> tuple[bytes, Layout]:
        layout = lay_out(out, ALL, find_runs(runs, ALL, skip=out), str(label_cohort), **options)
        return (layout.app / "model" / SERVED[0] / "models" / "model.pt").read_bytes(), layout

    first, layout = again()
    assert (layout.kept, layout.newer) == ([], {})
    # What a training there leaves: a run.json of its own, newer weights, labels.
    folder = out / "app" / "model" / SERVED[0]
    shutil.copy(runs / SERVED[0] / "run.json", folder / "run.json")
    (folder / "models" / "model.pt").write_bytes(b"trained here")
    corrected = next((out / "studies" / "labels" / "final").iterdir())
    corrected.write_bytes(b"corrected")
    weights, layout = again()
    assert weights == b"trained here"
    assert (set(layout.kept), layout.newer) == (set(SERVED), {})
    assert corrected.read_bytes() == b"corrected"
    # Another training outside: what was trained in the app stays, what was not is replaced.
    for name in SERVED[:2]:
        os.utime(runs / name / "models" / "model.pt", ns=(2**60, 2**60))
    weights, layout = again()
    assert weights == b"trained here"
    assert layout.newer == {SERVED[0]: str(runs / SERVED[0])}
    assert layout.kept == [SERVED[0], SERVED[2]]
    weights, layout = again(fresh=True)
    assert weights == first
    assert layout.kept == []
    before = out / "before-1"
    assert (before / "app" / "model" / SERVED[0] / "models" / "model.pt").read_bytes() == b"trained here"
    assert (before / "studies" / "labels" / "final" / corrected.name).read_bytes() == b"corrected"
    again(fresh=True)
    assert (out / "before-2" / "app").is_dir()


def test_only_finished_runs_count(label_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(label_runs / SERVED[0], tmp_path / "run")
    record = tmp_path / "run" / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "status": "running"}))
    assert find_runs(tmp_path, ALL) == {}


def test_other_scans_do_not_get_old_labels(label_cohort: Path, label_runs: Path, tmp_path: Path) -> None:
    runs, cohort = find_runs(label_runs, ALL), tmp_path / "cohort"
    shutil.copytree(label_cohort, cohort)
    lay_out(tmp_path / "label", ALL, runs, str(cohort), sections=["training", "test"])
    with pytest.raises(InputError, match=r"scans of the sections \['test', 'training'\]"):
        lay_out(tmp_path / "label", ALL, runs, str(cohort))
    with pytest.raises(InputError, match="scans of the cohort"):
        lay_out(tmp_path / "label", ALL, runs, str(label_cohort), sections=["training", "test"])
    image = next((cohort / "images").iterdir())
    os.utime(image, ns=(2**60, 2**60))
    with pytest.raises(InputError, match="a scan that has changed since it was laid out"):
        lay_out(tmp_path / "label", ALL, runs, str(cohort), sections=["training", "test"])
    lay_out(tmp_path / "label", ALL, runs, str(cohort), fresh=True)
    assert len(list((tmp_path / "label" / "studies").glob("*.nii.gz"))) == 6


def test_a_users_own_folders_are_left_alone(label_cohort: Path, label_runs: Path, tmp_path: Path) -> None:
    runs = find_runs(label_runs, ALL)
    shutil.copytree(label_cohort / "images", tmp_path / "mine" / "studies")
    with pytest.raises(InputError, match=r"studies inside .*mine, the folder of the app"):
        lay_out(tmp_path / "mine", ALL, runs, str(tmp_path / "mine" / "studies"), fresh=True)
    assert list((tmp_path / "mine" / "studies").iterdir())
    (tmp_path / "other" / "app" / "model").mkdir(parents=True)
    with pytest.raises(InputError, match="a folder of something else"):
        lay_out(tmp_path / "other", ALL, runs, str(label_cohort), fresh=True)
    with only_one(tmp_path / "x"), pytest.raises(InputError, match="another server works in"), only_one(tmp_path / "x"):
        pass


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
    options = ["label", "--bundles", str(BUNDLES), "--studies", str(label_cohort), "--prepare-only"]
    options += ["--out", str(tmp_path / "x")]
    assert main([*options, "--runs", str(label_runs)]) == 0
    text = capsys.readouterr().out
    assert f"us_layers_grn_plus: weights of {label_runs / SERVED[0]}" in text
    assert "us_layers_grn_sel: not served, no training of it was found" in text
    assert "6 scans, 2 of them with labels" in text
    assert main([*options, "--runs", str(tmp_path / "none")]) == 0, "what was laid out before is served again"
    assert f"weights of {label_runs / SERVED[0]}, as it is in the app" in capsys.readouterr().out
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
    assert store.get("a/b", stamp) == {"disagreement": 0.25, "weights": stamp, "image": ""}
    assert store.get("..", stamp) == {"disagreement": 0.5, "weights": stamp, "image": ""}
    assert {p.parent for p in (tmp_path / "scores").rglob("*")} == {tmp_path / "scores"}
    weights.write_bytes(b"12")
    assert store.get("a/b", weights_stamp(weights)) is None, "other weights score anew"
    next((tmp_path / "scores").glob("a*")).write_text("{")
    assert store.get("a/b", stamp) is None
    with pytest.raises(InputError, match="no such file"):
        weights_stamp(tmp_path / "none.pt")
