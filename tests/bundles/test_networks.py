"""The overlays network_*.yaml of the supervised bundle, through monai.bundle; and the widths of G."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from grn_monai.errors import InputError, find_input_error
from grn_monai.networks import count_parameters
from grn_monai.zoo import prepare_bundle
from tests.bundles.conftest import BUNDLES, EXTRA, ROOT, SMALL, run, workflow
from tests.bundles.contract import read_history, same_grid
from tests.bundles.test_resume import differences

BUNDLE, PLUS = "us_layers_supervised", "us_layers_grn_plus"
FOLDER = ROOT / "bundles" / BUNDLE
NAMES = sorted(path.stem.removeprefix("network_") for path in (FOLDER / "configs").glob("network_*.yaml"))
needs_deeplab = pytest.mark.skipif(
    find_spec("segmentation_models_pytorch") is None, reason="segmentation_models_pytorch: make setup-deeplab"
)
QUICK = ("one_stage",)
"""The others take the same way, and the tests below train SegResNet."""
CASES = [
    pytest.param(name, marks=needs_deeplab if "deeplab" in name else () if name in QUICK else pytest.mark.slow)
    for name in NAMES
]


def options(cohort: Path, out: Path, **others: Any) -> dict[str, Any]:
    return {**SMALL, "epochs": 1, "dataset_dir": str(cohort), "output_dir": str(out), **others}


def refusal(*configs: str, bundle: str = BUNDLE, **given: Any) -> str:
    """The error that ends a run, in one line."""
    with pytest.raises((RuntimeError, ValueError)) as info:
        run(bundle, *configs, **given)
    error = find_input_error(info.value)
    assert isinstance(error, InputError)
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("name", CASES)
def test_a_network_trains_is_scored_and_segments(name: str, cohort: Path, tmp_path: Path) -> None:
    size = [64, 64] if "swin" in name else [32, 32]
    given = options(cohort, tmp_path / "run", slice_size=size)
    overlay = f"network_{name}"
    flow = run(BUNDLE, "train", overlay, **given)
    row = read_history(tmp_path / "run")[0]
    assert 0 < float(row["train_loss"]) < 1
    assert 0 < float(row["val_dice_loss"]) < 1
    adam = flow.parser.get_parsed_content("optimizer")
    assert adam.defaults["betas"] == (0.5, 0.999)
    network = flow.parser.get_parsed_content("network")
    assert sum(p.numel() for group in adam.param_groups for p in group["params"]) == count_parameters(network)

    evaluation = {k: v for k, v in given.items() if k not in ("epochs", "batch_size")}
    run(BUNDLE, "train", overlay, "evaluate", **evaluation, surface_distances=False)
    assert json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())["decoded"]["n"] == 2

    model = tmp_path / "run" / "models" / "model.pt"
    inference = {"dataset_dir": str(cohort), "output_dir": str(tmp_path / "out"), "ckpt_path": str(model),
                 "slice_size": size, "device": "cpu"}  # fmt: skip
    run(BUNDLE, "inference", overlay, workflow_type="infer", **inference)
    for item in json.loads((cohort / "dataset.json").read_text())["test"]:
        file = tmp_path / "out" / Path(item["image"]).name.replace(".nii.gz", "_seg.nii.gz")
        assert same_grid(file, cohort / item["image"])
        scored = tmp_path / "run" / "evaluation" / "predictions" / file.name
        assert file.read_bytes() == scored.read_bytes()


@pytest.mark.parametrize("name", ["vnet", "wide", "one_stage"])  # a network of its own, edits, an expression
def test_overlays_keep_the_properties_of_a_bundle(name: str, cohort: Path, tmp_path: Path) -> None:
    given = {"dataset_dir": str(cohort), "output_dir": str(tmp_path)}
    overlay = f"network_{name}"
    for configs, kind in ((("train", overlay), "train"), (("inference", overlay), "infer")):
        flow = workflow(BUNDLE, *configs, workflow_type=kind, **given)
        assert flow.check_properties() == []
        assert flow.parser.get("network_name") == name


# Another network than in training.


@pytest.fixture(scope="module")
def segresnet(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segresnet")
    run(BUNDLE, "train", "network_segresnet", **options(cohort, folder))
    return folder


def test_a_model_of_another_network_is_refused_by_its_name(
    segresnet: Path, trained: dict[str, Path], cohort: Path, tmp_path: Path
) -> None:
    given = {"dataset_dir": str(cohort), "slice_size": SMALL["slice_size"], "device": "cpu"}
    text = refusal("train", "evaluate", **given, output_dir=str(segresnet), eval_dir=str(tmp_path / "evaluation"))
    assert text.startswith(f"{segresnet}/models/model.pt: found a model trained with network_name segresnet")
    assert "expected network_name unet. Give the overlay of the training (configs/network_segresnet.yaml; " in text
    given |= {"output_dir": str(tmp_path / "out"), "ckpt_path": str(trained[BUNDLE] / "models" / "model.pt")}
    text = refusal("inference", "network_wide", workflow_type="infer", **given)
    assert "found a model trained with network_name unet; expected network_name wide" in text


def test_a_run_is_not_resumed_with_another_network(segresnet: Path, cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(segresnet, tmp_path / "run")
    for overlays, words in (
        ([], "network_name 'segresnet', now 'unet'"),
        (["network_wide"], "network_name 'segresnet', now 'wide'"),
    ):
        assert words in refusal("train", *overlays, **options(cohort, tmp_path / "run", epochs=2))
    run(BUNDLE, "train", "network_segresnet", **options(cohort, tmp_path / "run", epochs=2))
    assert [row["epoch"] for row in read_history(tmp_path / "run")] == ["1", "2"]


def test_weights_of_the_same_name_but_another_width_are_refused(cohort: Path, tmp_path: Path) -> None:
    given = options(cohort, tmp_path, **{"one_stage#generator#base_channels": 4})
    run(BUNDLE, "train", "network_one_stage", **given)
    text = refusal("train", "network_one_stage", **options(cohort, tmp_path, epochs=2))
    assert "checkpoint of another configuration" in text
    text = refusal("train", "network_one_stage", "evaluate", **options(cohort, tmp_path))
    assert "weights of another network" in text


def test_a_pack_of_another_network_is_refused(segresnet: Path, tmp_path: Path) -> None:
    """The pack's configs would build the U-Net."""
    model = segresnet / "models" / "model.pt"
    with pytest.raises(InputError, match=r"run.json: found network_def .*SegResNet"):
        prepare_bundle(FOLDER, tmp_path / "pack", model)
    shutil.copytree(model.parent, tmp_path / "alone")
    with pytest.raises(InputError, match="weights of another network"):
        prepare_bundle(FOLDER, tmp_path / "pack", tmp_path / "alone" / "model.pt")


# What the networks ask of slices and batches.


@pytest.mark.parametrize(
    ("overlays", "size", "words"),
    [
        ([], [40, 32], "[40, 32], which unet does not take; expected [48, 32]. Give `--slice_size [48,32]`."),
        (["network_swin_unetr_2d"], [32, 32], "which swin_unetr_2d does not take; expected [64, 64]"),
        (["network_one_stage"], [48, 32], "which one_stage does not take; expected [64, 32]"),
    ],
)
def test_a_slice_size_that_does_not_fit_is_refused_before_the_training(
    overlays: list[str], size: list[int], words: str, cohort: Path, tmp_path: Path
) -> None:
    assert words in refusal("train", *overlays, **options(cohort, tmp_path, slice_size=size))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("bundle", [name for name in BUNDLES if name != BUNDLE])
def test_the_other_bundles_refuse_such_a_slice_size_too(bundle: str, cohort: Path, tmp_path: Path) -> None:
    given = options(cohort, tmp_path, **EXTRA[bundle], slice_size=[40, 32])
    assert "slice_size: found [40, 32], which" in refusal("train", bundle=bundle, **given)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_one_stage_leaves_out_a_single_image_where_g_ends_in_one_pixel(cohort: Path, tmp_path: Path) -> None:
    for size, smallest in (([32, 32], 2), ([64, 32], 1)):
        parser = workflow(BUNDLE, "train", "network_one_stage", **options(cohort, tmp_path, slice_size=size)).parser
        assert parser.get_parsed_content("min_batch") == smallest


def test_a_name_without_its_network_is_refused(cohort: Path, tmp_path: Path) -> None:
    text = refusal("train", **options(cohort, tmp_path, network_name="vnet"))
    assert text.startswith(
        "network_name: found 'vnet' of a UNet; expected a VNet. Give the overlay configs/network_vnet"
    )
    text = refusal("train", "network_wide", **options(cohort, tmp_path, network_name="unet"))
    assert "found 'unet' of a UNet of channels [41, 82, 164, 328, 656]; expected a UNet of channels [16, 32" in text


@pytest.mark.parametrize(("batch", "smallest", "batches"), [(71, 1, 2), (71, 2, 1), (70, 2, 2), (72, 2, 1), (8, 2, 9)])
def test_a_last_batch_that_is_too_small_is_left_out(
    batch: int, smallest: int, batches: int, cohort: Path, tmp_path: Path
) -> None:
    flow = workflow(BUNDLE, "train", **options(cohort, tmp_path, batch_size=batch, min_batch=smallest))
    loader = flow.parser.get_parsed_content("train#dataloader")
    assert len(loader.dataset) == 72
    assert len(loader) == batches


def test_a_batch_of_one_is_refused_where_two_are_needed(cohort: Path, tmp_path: Path) -> None:
    text = refusal("train", **options(cohort, tmp_path, batch_size=1, min_batch=2))
    assert "batch_size: found 1; expected at least 2: unet normalises" in text


@needs_deeplab
def test_deeplab_trains_where_one_image_would_be_left_over(cohort: Path, tmp_path: Path) -> None:
    run(BUNDLE, "train", "network_deeplabv3plus", **options(cohort, tmp_path, batch_size=71))
    assert json.loads((tmp_path / "run.json").read_text())["iterations"] == 1


# What the controls are compared with.


def test_one_stage_trains_as_the_single_stage_of_grn_plus(cohort: Path, tmp_path: Path) -> None:
    """JointTrainer without its second stage is a plain training of S(G(x)), from the same start in the same order."""
    width = 4
    run(
        BUNDLE,
        "train",
        "network_one_stage",
        **options(cohort, tmp_path / "a"),
        **{"one_stage#generator#base_channels": width},
    )
    run(PLUS, "train", "single_stage", **options(cohort, tmp_path / "b"), base_channels=width, amp=False)
    first, second = (torch.load(tmp_path / x / "checkpoint.pt", weights_only=True)["modules"]["model"] for x in "ab")
    renamed = {re.sub("^0", "generator", re.sub("^1", "segmentor", key)): value for key, value in first.items()}
    assert differences(renamed, second) == []


@pytest.mark.parametrize("width", [8, *(pytest.param(width, marks=pytest.mark.slow) for width in (12, 20, 64))])
def test_every_width_of_g_trains(width: int, cohort: Path, tmp_path: Path) -> None:
    # Larger slices than elsewhere: of 32 x 32 the bottom of G is one pixel, and BatchNorm leaves it hardly a gradient.
    given = options(cohort, tmp_path, base_channels=width, batch_size=4, slice_size=[64, 64])
    flow = workflow(PLUS, "train", **given, **{"train#handlers": [], "train#trainer#epoch_length": 1})
    flow.initialize()
    network = flow.parser.get_parsed_content("network")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    flow.parser.get_parsed_content("train#trainer").run()
    # Of S, which steps twice, a single number (PReLU) can come back: Adam's first steps are of one length. And biases
    # ahead of a normalisation change nothing. So: every convolution.
    moved = {key: not torch.equal(p, before[key]) for key, p in network.named_parameters() if p.ndim == 4}
    assert all(moved.values()), moved
    assert {key.partition(".")[0] for key in moved} == {"generator", "segmentor"}
    counts = {8: 581_729, 12: 1_306_993, 20: 3_626_321, 64: 37_089_025}
    assert count_parameters(network.generator) == counts[width]
