"""The inference task by itself, without a server: servers answer one request at a time, so they cannot show races."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

from grn_monai.errors import InputError
from grn_monai.monailabel.infer import LayersInferTask
from grn_monai.monailabel.scores import weights_stamp
from grn_monai.zoo.prepare import prepare_bundle
from tests.monailabel.conftest import BUNDLES, SERVED

GRN_PLUS = SERVED[0]


@pytest.fixture
def task(label_runs: Path, tmp_path: Path) -> LayersInferTask:
    folder = tmp_path / "model" / GRN_PLUS
    prepare_bundle(BUNDLES / GRN_PLUS, folder, label_runs / GRN_PLUS / "models" / "model.pt")
    return LayersInferTask(str(folder), {})


@pytest.fixture
def scans(label_cohort: Path) -> list[str]:
    return sorted(str(path) for path in (label_cohort / "images").iterdir())


def answer(task: LayersInferTask, scan: str, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    file, params = task({"image": scan, "device": "cpu", **options})
    voxels = np.asarray(nib.load(file).dataobj)
    os.unlink(file)
    return voxels, params


def test_requests_of_several_threads_do_not_mix(task: LayersInferTask, scans: list[str]) -> None:
    cases = [(scan, {"sge": sge, "ordered": ordered}) for scan in scans[:2] for sge in (True, False)
             for ordered in (True, False)]  # fmt: skip
    alone = [answer(task, scan, **options) for scan, options in cases]
    assert len({voxels.tobytes() for voxels, _ in alone}) == len(cases), "every case has an answer of its own"
    order = [number % len(cases) for number in range(5 * len(cases))]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda number: answer(task, cases[number][0], **cases[number][1]), order))
    for number, (voxels, params) in zip(order, together, strict=True):
        np.testing.assert_array_equal(voxels, alone[number][0])
        assert params["quality"]["sge"] is cases[number][1]["sge"]
        assert params["weights"] == alone[number][1]["weights"]


def test_an_answer_tells_its_weights(task: LayersInferTask, scans: list[str]) -> None:
    models = Path(task.path[0]).parent
    assert answer(task, scans[0])[1]["weights"] == weights_stamp(models / "model.pt")
    assert answer(task, scans[0], sge=False)[1]["weights"] == weights_stamp(models / "model_raw.pt")
    before = answer(task, scans[0])[0]
    checkpoint = torch.load(models / "model_raw.pt", weights_only=True)
    for weight in checkpoint["model"].values():
        if weight.is_floating_point() and weight.ndim > 1:
            weight.neg_()
    torch.save(checkpoint, models / "model_raw.pt")
    shutil.copy(models / "model_raw.pt", models / "model.pt")
    voxels, params = answer(task, scans[0])
    assert params["weights"] == weights_stamp(models / "model.pt")
    np.testing.assert_array_equal(voxels, answer(task, scans[0], model_filename="model_raw.pt")[0])
    assert (voxels != before).any()


def test_another_slice_size_than_in_training_is_refused(label_runs: Path, scans: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "model" / GRN_PLUS
    model = label_runs / GRN_PLUS / "models" / "model.pt"
    prepare_bundle(BUNDLES / GRN_PLUS, folder, model)
    config = folder / "configs" / "inference.yaml"
    config.write_text(config.read_text().replace("slice_size: [32, 32]", "slice_size: [64, 64]"))
    with pytest.raises(InputError, match=r"trained with slice_size \[32, 32\]"):
        LayersInferTask(str(folder), {})({"image": scans[0], "device": "cpu"})


def test_two_files_are_answered_by_one(task: LayersInferTask, scans: list[str], tmp_path: Path) -> None:
    header = tmp_path / "scan.mhd"
    sitk.WriteImage(sitk.ReadImage(scans[0]), str(header))
    file, _ = task({"image": str(header), "device": "cpu"})
    assert file.endswith(".mha")
    got = sitk.ReadImage(file)
    assert got.GetSize() == sitk.ReadImage(str(header)).GetSize()
    expected = answer(task, scans[0])[0]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(got).T, expected)


def test_scores_need_no_more_than_a_segmentation(task: LayersInferTask, scans: list[str]) -> None:
    scored = task.score(scans[0])
    quality = answer(task, scans[0])[1]["quality"]
    for name in ("plane_disagreement", "sge_disagreement"):
        assert scored["quality"][name] == quality[name]
    assert 0 < scored["entropy"] < np.log(7)
    with pytest.raises(InputError, match="no such file"):
        task.score("/nowhere/a.nii.gz")
