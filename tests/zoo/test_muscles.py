"""Packs of the CT and MR bundles, with their scores."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from monai.bundle import load

from grn_monai.errors import InputError
from grn_monai.labels import CT_MUSCLES
from grn_monai.zoo import pack_bundle, prepare_bundle, read_metadata
from grn_monai.zoo._labels import label_names
from grn_monai.zoo._overlays import overlay_of
from tests.bundles.conftest import MUSCLES, ROOT, run
from tests.monailabel.muscles import CT, CT_SMALL, GRN, MRI_SMALL, small_cohort

BUNDLE = {name: ROOT / "bundles" / name for name in MUSCLES}
NETWORK = {
    name: {k: v for k, v in {**CT_SMALL, **MRI_SMALL}.items() if k in options}
    for name, options in zip(
        MUSCLES, ({"slice_size", "device"}, {"spacing", "patch_size", "channels", "device"}), strict=True
    )
}
"""Options of a training that an evaluation has to be told."""


@pytest.fixture(scope="module")
def muscles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("muscles")
    for name, options in zip(MUSCLES, (CT_SMALL, MRI_SMALL), strict=True):
        cohort = small_cohort(folder / "cohorts" / name, name.partition("_")[0])
        where = {"dataset_dir": str(cohort), "output_dir": str(folder / name)}
        run(name, "train", **where, **options)
        run(name, "train", "evaluate", **where, **NETWORK[name], surface_distances=False)
    return folder


@pytest.mark.parametrize("bundle", MUSCLES)
def test_a_pack_has_the_weights_their_options_and_scores(bundle: str, muscles: Path, tmp_path: Path) -> None:
    model, evaluation = muscles / bundle / "models" / "model.pt", muscles / bundle / "evaluation"
    made = pack_bundle(BUNDLE[bundle], tmp_path, model, evaluations=[evaluation], data_source="simulated")
    mean = json.loads((evaluation / "metrics.json").read_text())["volume"]["mean"]
    assert made["eval_metrics"] == {"test_mean_dice_volume": pytest.approx(mean, abs=5e-5)}
    assert made["left_out"] == [], "overlays and pictures are named in the page by their files"
    with zipfile.ZipFile(made["file"]) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / bundle
    assert read_metadata(folder / "configs" / "metadata.json")["eval_metrics"] == made["eval_metrics"]
    block = (folder / "docs" / "README.md").read_text().partition("<!-- performance -->")[2]
    assert f"| `model.pt` | S(x) | `test` | 1 | {100 * mean:.1f} |" in block
    assert "Mean Dice of the muscles" in block
    assert "layers" not in block.partition("<!-- /performance -->")[0]
    inference = json.loads((folder / "configs" / "inference.json").read_text())
    assert all(inference[k] == v for k, v in NETWORK[bundle].items() if k != "device")
    network = load(bundle, bundle_dir=str(tmp_path), workflow_type="inference", device="cpu")
    assert sum(p.numel() for p in network.parameters()) > 1000


def test_a_training_with_other_labels_changes_the_metadata(muscles: Path, tmp_path: Path) -> None:
    where = {"dataset_dir": str(muscles / "cohorts" / CT), "output_dir": str(tmp_path / "run")}
    run(CT, "train", "autochthon_iliopsoas", **where, **CT_SMALL)
    prepare_bundle(BUNDLE[CT], tmp_path / "five", tmp_path / "run" / "models" / "model.pt")
    content = read_metadata(tmp_path / "five" / "configs" / "metadata.json")
    pred = content["network_data_format"]["outputs"]["pred"]
    assert pred["channel_def"] == {str(v): n for v, n in CT_MUSCLES.items()}
    assert label_names(tmp_path / "five") == CT_MUSCLES
    assert "4 iliopsoas right" in content["pred_classes"]
    # From those weights back to one class: a copy of that copy by the other run.
    prepare_bundle(tmp_path / "five", tmp_path / "one", muscles / CT / "models" / "model.pt")
    assert label_names(tmp_path / "one") == label_names(BUNDLE[CT])


def test_an_overlays_network_is_refused_unless_its_overlay_may_come_along(muscles: Path, tmp_path: Path) -> None:
    where = {"dataset_dir": str(muscles / "cohorts" / CT), "output_dir": str(tmp_path / "run")}
    run(CT, "train", "grn_plus", **where, **CT_SMALL, **GRN)
    model = tmp_path / "run" / "models" / "model.pt"
    with pytest.raises(InputError, match="network_def"):
        prepare_bundle(BUNDLE[CT], tmp_path / "no", model)
    made = prepare_bundle(BUNDLE[CT], tmp_path / "yes", model, overlays=True)
    assert made["overlays"] == {"train": "grn_plus.yaml", "inference": "sge.yaml"}
    assert made["weights"] == ["model.pt", "model_raw.pt"]
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    found = [overlay_of(BUNDLE[CT], stem, config) for stem in ("train", "inference")]
    assert [path.name for path in found if path] == ["grn_plus.yaml", "sge.yaml"]
    assert overlay_of(tmp_path / "yes", "train", config) is None, "the copy has it"
    shutil.copytree(BUNDLE[CT], tmp_path / "bare", ignore=shutil.ignore_patterns("sge.yaml"))
    with pytest.raises(InputError, match="network_def"):
        prepare_bundle(tmp_path / "bare", tmp_path / "out", model, overlays=True)
