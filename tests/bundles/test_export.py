"""Export of every bundle through monai.bundle, and its inference on other backends, against eager torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ckpt_export, onnx_export

from grn_monai.data import read_volume
from grn_monai.errors import find_input_error
from grn_monai.inferers import backends
from grn_monai.inferers.backends import import_onnxruntime
from grn_monai.transforms import DepthLast, ScaleEcho, VolumeToSlices
from tests.bundles.conftest import BUNDLES, EXTRA, ROOT, run, workflow
from tests.bundles.contract import PHANTOM, SLICES

pytestmark = pytest.mark.graphs

BATCHES = (1, 3, 8)
# What docs/export.md gives: MONAI's own way leaves a copy of the weights in the temporary folder.
AXES = {0: "batch", 2: "height", 3: "width"}
ONNX = {"external_data": False, "input_names": ["image"], "output_names": ["pred"], "dynamic_axes": {"image": AXES}}


def slices(source: Path, size: tuple[int, int]) -> torch.Tensor:
    """Slices of both planes of a real file, (N, 1, H, W) in [-1, 1]."""
    scan = ScaleEcho()(DepthLast()(read_volume(source)))
    both = [VolumeToSlices(plane, size)(scan).as_tensor() for plane in ("sagittal", "transverse")]
    return torch.cat(both)[:: max(1, sum(map(len, both)) // 24)].contiguous()


def inputs(bundle: str, cohort: Path) -> list[torch.Tensor]:
    sizes = [(32, 32), (64, 96)] + ([(50, 37)] if "grn" in bundle else [])  # the U-Net takes multiples of 16
    sources = [PHANTOM, *sorted((cohort / "images").glob("*.nii.gz"))[:1]]
    return [slices(source, size) for source in sources for size in sizes]


def options(bundle: str, checkpoint: Path, out: Path) -> dict[str, Any]:
    configs = ROOT / "bundles" / bundle / "configs"
    return {
        "net_id": "network_def", "filepath": str(out), "ckpt_file": str(checkpoint), "key_in_ckpt": "model",
        "meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.yaml"),
        **{k: v for k, v in EXTRA[bundle].items() if k == "base_channels"},
    }  # fmt: skip


def eager(bundle: str, checkpoint: Path, **given: Any) -> torch.nn.Module:
    flow = workflow(bundle, "inference", workflow_type="infer", **EXTRA[bundle], device="cpu", **given)
    network = flow.parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    return network.eval()


def compare(bundle: str, cohort: Path, network: torch.nn.Module, other: Any) -> None:
    for images in inputs(bundle, cohort):
        assert images.std() > 0.1
        for batch in BATCHES:
            x = images[:batch]
            with torch.no_grad():
                expected = network(x)
            found = other(x)
            assert found.shape == (batch, 7, *x.shape[2:])
            assert expected.std() > 0.1, "a trained network has something to say"
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
            torch.testing.assert_close(found.softmax(1), expected.softmax(1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_torchscript(bundle: str, trained: dict[str, Path], cohort: Path, tmp_path: Path) -> None:
    model = trained[bundle] / "models" / "model.pt"
    ckpt_export(**options(bundle, model, tmp_path / "model.ts"))
    extra = {"metadata.json": "", "inference.json": ""}
    script = torch.jit.load(tmp_path / "model.ts", _extra_files=extra)
    assert b"network_def" in extra["inference.json"]
    network = eager(bundle, model)
    with torch.no_grad():
        compare(bundle, cohort, network, script)
        if "grn" in bundle:  # what MONAI Label asks of a network is there too
            x = inputs(bundle, cohort)[0][:2]
            torch.testing.assert_close(script.segment(x), network.segment(x), rtol=0, atol=1e-4)
            torch.testing.assert_close(script.enhance(x), network.enhance(x), rtol=0, atol=1e-4)
            assert (script.segment(x) - script(x)).abs().max() > 0.01


def session(file: Path) -> Any:
    opened = import_onnxruntime().InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (image,) = opened.get_inputs()
    assert image.name == "image"
    assert image.shape == ["batch", 1, "height", "width"]
    return lambda x: torch.from_numpy(opened.run(["pred"], {"image": x.numpy()})[0])


# The networks of the three GRN bundles are the same; the export takes several seconds.
@pytest.mark.parametrize(
    "bundle", [pytest.param(b, marks=pytest.mark.slow if b.endswith(("sel", "ssl")) else ()) for b in BUNDLES]
)
def test_onnx(
    bundle: str, trained: dict[str, Path], cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        pytest.skip('needs: pip install "grn-monai[export]"')
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    model = trained[bundle] / "models" / "model.pt"
    arguments = options(bundle, model, tmp_path / "model.onnx")
    onnx_export(**arguments, use_trace=True, input_shape=[2, 1, 64, 64], converter_kwargs=dict(ONNX))
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["model.onnx"]  # weights within
    assert not list((tmp_path / "temporary").iterdir())
    compare(bundle, cohort, eager(bundle, model), session(tmp_path / "model.onnx"))


def test_without_enhancement(trained: dict[str, Path], cohort: Path, tmp_path: Path) -> None:
    bundle = "us_layers_grn_plus"
    model = trained[bundle] / "models" / "model_raw.pt"
    ckpt_export(**options(bundle, model, tmp_path / "raw.ts"), sge="false")
    network = eager(bundle, model, sge="false")
    with torch.no_grad():
        compare(bundle, cohort, network, torch.jit.load(tmp_path / "raw.ts"))
        x = inputs(bundle, cohort)[0][:2]
        assert torch.equal(network(x), network.segment(x))


def test_the_command(trained: dict[str, Path], cohort: Path, tmp_path: Path) -> None:
    """As docs/export.md gives it."""
    bundle = "us_layers_supervised"
    model = trained[bundle] / "models" / "model.pt"
    arguments = {k: v for k, v in options(bundle, model, tmp_path / "model.ts").items() if k != "net_id"}
    line = [part for k, v in arguments.items() for part in (f"--{k}", v)]
    command = [sys.executable, "-m", "monai.bundle", "ckpt_export", "network_def", *line]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    with torch.no_grad():
        compare(bundle, cohort, eager(bundle, model), torch.jit.load(tmp_path / "model.ts"))


def infer(bundle: str, trained: dict[str, Path], source: Path, out: Path, **given: Any) -> list[np.ndarray]:
    model = trained[bundle] / "models" / "model.pt"
    given = {"ckpt_path": str(model), **SLICES, **EXTRA[bundle], **given}
    run(bundle, "inference", workflow_type="infer", dataset_dir=str(source), output_dir=str(out), **given)
    return [np.asarray(nib.load(p).dataobj) for p in sorted(out.glob("*.nii.gz"))]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_on_another_backend(
    bundle: str, backend: str, trained: dict[str, Path], cohort: Path, tmp_path: Path
) -> None:
    if find_spec(backend) is None:
        pytest.skip('needs: pip install "grn-monai[export]"')
    enhanced = {"save_enhanced": "true"} if "grn" in bundle else {}
    expected = infer(bundle, trained, cohort, tmp_path / "torch", **enhanced)
    found = infer(bundle, trained, cohort, tmp_path / backend, backend=backend, **enhanced)
    assert len(found) == len(expected) == (4 if enhanced else 2)
    for a, b in zip(found, expected, strict=True):
        assert np.count_nonzero(a != b) <= 1e-3 * b.size
        assert len(np.unique(b)) > 2
    qualities = sorted(p.name for p in (tmp_path / backend).glob("*_quality.json"))
    assert qualities == sorted(p.name for p in (tmp_path / "torch").glob("*_quality.json"))


def score(bundle: str, trained: dict[str, Path], cohort: Path, out: Path, **given: Any) -> dict[str, Any]:
    given = {**SLICES, **{k: v for k, v in EXTRA[bundle].items() if k != "fraction"}, **given}
    where = {"dataset_dir": str(cohort), "output_dir": str(trained[bundle]), "eval_dir": str(out)}
    run(bundle, "train", "evaluate", **where, **given, surface_distances=False)
    metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return metrics


def numbers(node: Any) -> list[float]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [node] if isinstance(node, float) else [n for child in children for n in numbers(child)]


@pytest.mark.parametrize("bundle", ["us_layers_grn_plus", "us_layers_supervised"])
def test_scores_on_another_backend(
    bundle: str, trained: dict[str, Path], cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("openvino") is None:
        pytest.skip('needs: pip install "grn-monai[export]"')
    expected = score(bundle, trained, cohort, tmp_path / "torch")
    made = []
    monkeypatch.setattr(backends, "onnx_graph", lambda m, x, f=backends.onnx_graph: made.append(1) or f(m, x))
    found = score(bundle, trained, cohort, tmp_path / "openvino", backend="openvino")
    assert len(made) == (2 if "grn" in bundle else 1), "it was not torch that answered"
    assert len(numbers(expected)) > 20
    np.testing.assert_allclose(numbers(found), numbers(expected), atol=0.01)


def test_amp_of_an_evaluation_is_its_own(trained: dict[str, Path], cohort: Path, tmp_path: Path) -> None:
    """Float32 unless it is asked for, also where the training takes bfloat16 by itself."""
    bundle = "us_layers_grn_plus"
    where = {"dataset_dir": str(cohort), "output_dir": str(trained[bundle]), "eval_dir": str(tmp_path / "out")}
    for given, expected in (({}, False), ({"amp": "true"}, True)):
        flow = workflow(bundle, "train", "evaluate", **where, **SLICES, **EXTRA[bundle], **given)
        assert flow.parser.get_parsed_content("validate#inferer").amp is expected


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"backend": "tensorrt"}, "backend: found 'tensorrt'; expected 'torch' or 'compiled'"),
        ({"backend": "onnxruntime", "amp": "true"}, "amp: found bfloat16 with the backend onnxruntime"),
        ({"amp": "maybe"}, "found 'maybe'; expected true or false"),
    ],
)
def test_an_evaluation_that_cannot_run_leaves_no_folder(
    bundle: str, given: dict[str, str], words: str, cohort: Path, tmp_path: Path
) -> None:
    if given.get("backend") == "onnxruntime" and find_spec("onnxruntime") is None:
        pytest.skip('needs: pip install "grn-monai[export]"')
    with pytest.raises((RuntimeError, ValueError)) as info:
        score(bundle, {bundle: tmp_path / "run"}, cohort, tmp_path / "run" / "evaluation", **given)
    assert words in str(find_input_error(info.value))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"backend": "tensorrt"}, "backend: found 'tensorrt'; expected 'torch' or 'compiled'"),
        ({"backend": "openvino", "device": "cuda"}, "backend: found openvino on the device cuda; expected the device"),
        ({"backend": "onnxruntime", "amp": "true"}, "amp: found bfloat16 with the backend onnxruntime"),
    ],
)
def test_what_cannot_run_is_said_before_any_scan(
    given: dict[str, str], words: str, trained: dict[str, Path], cohort: Path, tmp_path: Path
) -> None:
    if given["backend"] in ("openvino", "onnxruntime") and find_spec(given["backend"]) is None:
        pytest.skip('needs: pip install "grn-monai[export]"')
    with pytest.raises((RuntimeError, ValueError)) as info:
        infer("us_layers_supervised", trained, cohort, tmp_path / "out", **given)
    assert words in str(find_input_error(info.value))
    assert not (tmp_path / "out").exists()
