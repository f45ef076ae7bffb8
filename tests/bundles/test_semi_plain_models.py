"""Overlays of us_layers_semi whose method has parts for training alone: what they save is the plain U-Net."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet

from grn_monai.errors import find_input_error
from tests.bundles.conftest import SMALL, run, workflow
from tests.bundles.contract import read_history

BUNDLE = "us_layers_semi"
PARTS = {"urpc": {"heads"}, "sassnet": {"discriminator", "sdm_head"}, "dan": {"discriminator"}}
"""What a resumed run needs beside the plain network."""


def options(cohort: Path, out: Path, **others: Any) -> dict[str, Any]:
    return {**SMALL, "epochs": 1, "fraction": 0.5, "dataset_dir": str(cohort), "output_dir": str(out), **others}


@pytest.mark.parametrize("method", PARTS)
def test_the_model_saved_is_the_plain_network_and_is_scored_without_the_overlay(
    method: str, cohort: Path, tmp_path: Path
) -> None:
    given = options(cohort, tmp_path)
    run(BUNDLE, "train", f"method_{method}", **given)
    row = read_history(tmp_path)[0]
    assert float(row["unsupervised_loss"]) > 0
    assert 0 < float(row["val_dice_loss"]) < 1

    plain = UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2))
    plain.load_state_dict(torch.load(tmp_path / "models" / "model.pt", weights_only=True)["model"])
    assert sum(p.numel() for p in plain.parameters()) == 661_727
    modules = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["modules"]
    assert set(modules) - {"model", "early_stop", "best"} == PARTS[method]

    evaluation = {k: v for k, v in given.items() if k not in ("epochs", "batch_size", "fraction")}
    run(BUNDLE, "train", "evaluate", **evaluation, surface_distances=False, quality=False)
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["decoded"]["n"] == 2


@pytest.mark.parametrize("method", PARTS)
def test_overlays_keep_the_properties_of_a_bundle(method: str, cohort: Path, tmp_path: Path) -> None:
    """Also with the overlay named last, behind that of the evaluation."""
    given = {"dataset_dir": str(cohort), "output_dir": str(tmp_path), "fraction": 0.5}
    for configs in (("train", f"method_{method}"), ("train", "evaluate", f"method_{method}")):
        flow = workflow(BUNDLE, *configs, **given)
        assert flow.check_properties() == []
        assert flow.parser.get("method") == method


def test_options_of_a_method_belong_to_the_run(cohort: Path, tmp_path: Path) -> None:
    given = options(cohort, tmp_path)
    run(BUNDLE, "train", "method_sassnet", **given)
    with pytest.raises(RuntimeError) as info:
        run(BUNDLE, "train", "method_sassnet", **given, empty="zero")
    assert "empty 'one', now 'zero'" in str(find_input_error(info.value))
