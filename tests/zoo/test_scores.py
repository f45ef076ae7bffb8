from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from grn_monai.errors import InputError
from grn_monai.zoo import pack_bundle
from grn_monai.zoo._scores import performance, read_scores
from tests.bundles.conftest import run
from tests.zoo.conftest import BUNDLE, GRN_PLUS, model_of


def test_scores_come_from_the_evaluation_of_the_model(trained: dict, cohort: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(cohort), "output_dir": str(trained[GRN_PLUS]), "device": "cpu", "base_channels": 4}
    options |= {"slice_size": [32, 32], "surface_distances": False, "measure_enhancement": False}
    run(GRN_PLUS, "train", "evaluate", **options, eval_dir=str(tmp_path / "eval"))
    scores = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    record = json.loads((tmp_path / "eval" / "run.json").read_text())
    assert record["ckpt_sha256"] == hashlib.sha256(model_of(trained).read_bytes()).hexdigest()
    run_folder = Path(
        shutil.copytree(trained[GRN_PLUS], tmp_path / "moved")
    )  # the path is another, the weights are not
    made = pack_bundle(BUNDLE, tmp_path / "dist", model_of({GRN_PLUS: run_folder}), evaluations=[tmp_path / "eval"])
    with zipfile.ZipFile(made["file"]) as archive:
        packed = json.loads(archive.read(f"{GRN_PLUS}/configs/metadata.json"))["eval_metrics"]
        page = archive.read(f"{GRN_PLUS}/docs/README.md").decode()
    kinds = ("slice", "volume", "decoded")
    expected = {f"test_mean_dice_sge_{kind}": pytest.approx(scores[kind]["mean"], abs=5e-5) for kind in kinds}
    assert packed == made["eval_metrics"] == expected
    cells = " | ".join(f"{100 * scores[kind]['mean']:.1f}" for kind in kinds)
    assert f"| `model.pt` | S(G(x)) | `test` | 2 | {cells} |" in page
    assert "benchmarks.methods" not in page
    with pytest.raises(InputError, match="a second test_mean_dice_sge_decoded"):
        pack_bundle(BUNDLE, tmp_path / "dist", model_of(trained), evaluations=[tmp_path / "eval"] * 2)
    model = tmp_path / "moved" / "models" / "model.pt"
    content = torch.load(model, weights_only=True)
    next(iter(content["model"].values())).add_(1e-3)
    torch.save(content, model)
    with pytest.raises(InputError, match=r"an evaluation of other weights \(.*model\.pt, SHA-256 .*expected one of"):
        pack_bundle(BUNDLE, tmp_path / "dist", model, evaluations=[tmp_path / "eval"])


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """An evaluation as its files tell it, of S(x) by the weights in weights.pt."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    means = {"slice": 0.25, "volume": 0.5, "decoded": 0.75}
    (folder / "metrics.json").write_text(json.dumps({kind: {"mean": mean} for kind, mean in means.items()}))
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    record = {"config": {"section": "@x", "sge": "$1", "_meta_": {"name": "N"}}, "status": "completed", "scans": ["a"]}
    record["resolved"] = {"section": "validation", "sge": "false", "ckpt_path": str(weights)}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


DIGESTS = {hashlib.sha256(b"weights").hexdigest(): "model_raw.pt"}


def test_an_evaluation_without_digest_is_told_by_the_file_that_it_used(evaluation: Path, tmp_path: Path) -> None:
    scores = read_scores(evaluation, DIGESTS, "N")
    assert scores.metrics == {
        "validation_mean_dice_slice": 0.25,
        "validation_mean_dice_volume": 0.5,
        "validation_mean_dice_decoded": 0.75,
    }
    assert "| `model_raw.pt` | S(x) | `validation` | 1 | 25.0 | 50.0 | 75.0 |" in performance([scores])
    (tmp_path / "weights.pt").write_bytes(b"trained on")
    with pytest.raises(InputError, match="an evaluation of other weights"):
        read_scores(evaluation, DIGESTS, "N")
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(InputError, match=r"no digest of the weights, and no file .*weights\.pt any more"):
        read_scores(evaluation, DIGESTS, "N")


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("run.json", {"status": "1 scan failed"}, "with the status '1 scan failed'"),
        ("run.json", {"config": {"section": "test", "_meta_": {"name": "M"}}}, "of the bundle 'M'; expected 'N'"),
        ("run.json", {"config": None}, r"run.json: found no record \(TypeError\)"),
        ("run.json", {"resolved": {}, "config": {"epochs": 1}}, r"run.json: found no record \(KeyError\)"),
        ("metrics.json", {"volume": {}}, r"metrics.json: found no scores \(KeyError\)"),
        ("metrics.json", {"volume": {"mean": None}}, r"found no scores \(TypeError\)"),
        ("metrics.json", {"volume": {"mean": float("nan")}}, r"found no scores \(ValueError\)"),
    ],
)
def test_what_is_no_evaluation_of_the_bundle_is_refused(file: str, change: dict, words: str, evaluation: Path) -> None:
    content = json.loads((evaluation / file).read_text()) | change
    (evaluation / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        read_scores(evaluation, DIGESTS, "N")
    (evaluation / file).unlink()
    with pytest.raises(InputError, match=rf"{file}: found no (scores|record) \(FileNotFoundError\)"):
        read_scores(evaluation, DIGESTS, "N")
