"""Every bundle writes NAME_quality.json beside its labels, and the switch turns it off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from grn_monai.measure.agreement import layer_order
from tests.bundles.conftest import EXTRA, run
from tests.bundles.contract import SLICES

BUNDLES = ("us_layers_grn_plus", "us_layers_supervised")


def predict(bundle: str, trained: dict[str, Path], cohort: Path, out: Path, **options: Any) -> dict[str, Any]:
    model = trained[bundle] / "models" / options.pop("model", "model.pt")
    given = {"ckpt_path": str(model), **SLICES, **EXTRA[bundle], **options}
    run(bundle, "inference", workflow_type="infer", dataset_dir=str(cohort), output_dir=str(out), **given)
    return {p.name.removesuffix("_quality.json"): json.loads(p.read_text()) for p in out.glob("*_quality.json")}


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_writes_the_numbers(bundle: str, trained: dict[str, Path], cohort: Path, tmp_path: Path) -> None:
    found = predict(bundle, trained, cohort, tmp_path / "on")
    assert len(found) == 2
    grn = "grn" in bundle
    for name, content in found.items():
        assert (tmp_path / "on" / f"{name}_seg.nii.gz").is_file()
        assert content["scan"] == name
        assert content["ordered"] is True
        assert content["sge"] is grn
        assert (content["sge_disagreement"] is not None) is grn
        assert 0 <= content["plane_disagreement"]["disagreement_percent"] <= 100
        assert content["plane_disagreement"]["tissue_voxels"] <= 20 * 16 * 40
    assert predict(bundle, trained, cohort, tmp_path / "off", quality="false") == {}
    for file in (tmp_path / "on").glob("*_seg.nii.gz"):
        on, off = (np.asarray(nib.load(p).dataobj) for p in (file, tmp_path / "off" / file.name))
        np.testing.assert_array_equal(on, off)


def test_argmax_and_one_plane(trained: dict[str, Path], cohort: Path, tmp_path: Path) -> None:
    options = {"ordered": "false", "planes": ["transverse"]}
    found = predict("us_layers_supervised", trained, cohort, tmp_path, **options)
    for name, content in found.items():
        labels = np.asarray(nib.load(tmp_path / f"{name}_seg.nii.gz").dataobj)
        assert content["planes"] == ["transverse"]
        assert content["plane_disagreement"] is None
        assert content["layer_order"] == pytest.approx(layer_order(labels))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_evaluation_writes_them_too(bundle: str, trained: dict[str, Path], cohort: Path, tmp_path: Path) -> None:
    options = {"dataset_dir": str(cohort), "output_dir": str(trained[bundle]), "surface_distances": "false"}
    options |= {k: v for k, v in EXTRA[bundle].items() if k != "fraction"}
    run(bundle, "train", "evaluate", eval_dir=str(tmp_path), **options, **SLICES)
    expected = predict(bundle, trained, cohort, tmp_path / "inference")
    written = {p.name.removesuffix("_quality.json"): p for p in (tmp_path / "predictions").glob("*_quality.json")}
    assert set(written) == set(expected)
    for name, path in written.items():
        assert json.loads(path.read_text()) == expected[name]
