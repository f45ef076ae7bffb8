"""The ablation overlays of the joint bundles: what each one changes in the trainer, and that it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from grn_monai.errors import find_input_error
from tests.bundles.conftest import EXTRA, SMALL, run, workflow
from tests.bundles.contract import read_history

PLUS, SEL, SSL = "us_layers_grn_plus", "us_layers_grn_sel", "us_layers_grn_ssl"
CASES = [
    (PLUS, "single_stage", {"stages": 1, "segmentor_update": "joint"}),
    (PLUS, "freeze_segmentor", {"segmentor_update": "alternate", "seg_weight": 1.0}),
    (PLUS, "negated_seg_feedback", {"segmentor_update": "joint", "seg_weight": -1.0}),
    *(
        (bundle, name, changes)
        for bundle in (SEL, SSL)
        for name, changes in (
            ("no_seg_feedback", {"seg_weight": 0.0, "segmentor_update": "alternate"}),
            ("negated_seg_feedback", {"seg_weight": -100.0, "segmentor_update": "joint"}),
            ("freeze_segmentor", {"seg_weight": 100.0, "segmentor_update": "alternate"}),
        )
    ),
]


@pytest.mark.parametrize(("bundle", "overlay", "changes"), CASES)
def test_overlay(bundle: str, overlay: str, changes: dict[str, Any], cohort: Path, tmp_path: Path) -> None:
    options = {**SMALL, **EXTRA[bundle], "epochs": 1, "dataset_dir": str(cohort), "output_dir": str(tmp_path)}
    flow = run(bundle, "train", overlay, **options)
    trainer = flow.parser.get_parsed_content("train#trainer")
    assert {name: getattr(trainer, name) for name in changes} == changes
    row = read_history(tmp_path)[0]
    assert 0 < float(row["train_loss"]) < 1
    if overlay == "negated_seg_feedback":  # L_G is the other terms minus the loss of S
        others = 100 * float(row["l1_loss"]) if bundle != PLUS else 0.0
        assert float(row["stage1_loss"]) < others + 2
    assert ("loss_raw" in row) == (overlay != "single_stage")
    assert (tmp_path / "models" / "model.pt").is_file()


@pytest.mark.parametrize("bundle", [PLUS, SEL, SSL])
@pytest.mark.parametrize(("update", "s_optim"), [("joint", "shared"), ("joint", "separate"), ("alternate", "separate")])
def test_optimizers_follow_the_options(bundle: str, update: str, s_optim: str, cohort: Path, tmp_path: Path) -> None:
    options = {**SMALL, **EXTRA[bundle], "epochs": 1, "dataset_dir": str(cohort), "output_dir": str(tmp_path)}
    flow = run(bundle, "train", **options, segmentor_update=update, s_optim=s_optim)
    trainer = flow.parser.get_parsed_content("train#trainer")
    stepped = {id(p) for group in trainer.joint_optimizer.param_groups for p in group["params"]}
    in_joint = all(id(p) in stepped for p in trainer.network.parameters())
    assert in_joint == ((update, s_optim) == ("joint", "separate"))


def test_a_checkpoint_of_another_ablation_is_not_resumed(cohort: Path, tmp_path: Path) -> None:
    options = {**SMALL, **EXTRA[SEL], "epochs": 1, "dataset_dir": str(cohort), "output_dir": str(tmp_path)}
    run(SEL, "train", **options)
    with pytest.raises(RuntimeError) as info:
        run(SEL, "train", "no_seg_feedback", **options)
    assert "seg_weight '100.0', now '0.0'" in str(find_input_error(info.value))


@pytest.mark.parametrize("bundle", [PLUS, SEL, SSL])
def test_every_option_reaches_the_trainer(bundle: str, cohort: Path, tmp_path: Path) -> None:
    changed: dict[str, Any] = {"refresh_generated": True, "seg_weight": 7.0}
    if bundle != PLUS:
        changed |= {"adv_weight": 2.0, "l1_weight": 5.0}
    if bundle == SSL:
        changed |= {"consistency_weight": 3.0, "alpha": 0.7, "mix_per": "batch", "target_grad": True}
    options = {**EXTRA[bundle], "slice_size": [32, 32], "device": "cpu", **changed}
    flow = workflow(bundle, "train", **options, dataset_dir=str(cohort), output_dir=str(tmp_path))
    flow.initialize()
    trainer = flow.parser.get_parsed_content("train#trainer")
    assert {name: getattr(trainer, name) for name in changed} == changed


def test_weights_that_may_not_be_negative(cohort: Path, tmp_path: Path) -> None:
    options = {**SMALL, **EXTRA[SSL], "epochs": 1, "dataset_dir": str(cohort), "output_dir": str(tmp_path)}
    for name in ("adv_weight", "l1_weight", "consistency_weight"):
        with pytest.raises(RuntimeError) as info:
            run(SSL, "train", **options, **{name: -1.0})
        assert f"{name}: found -1.0; expected a number from 0" in str(find_input_error(info.value))
    assert not list(tmp_path.rglob("*.pt"))


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_scan(cohort: Path, tmp_path: Path) -> None:
    """The weights break in the second epoch: the first one's checkpoint stays, and is finite."""
    options = {**SMALL, **EXTRA[SSL], "dataset_dir": str(cohort), "output_dir": str(tmp_path), "epochs": 1}
    run(SSL, "train", **options)
    before = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    overlay = tmp_path / "break.yaml"
    overlay.write_text('"+train#handlers":\n- _target_: tests.bundles.kill.BreakAt\n  iteration: 6\n')
    flow = workflow(SSL, "train", str(overlay), **{**options, "epochs": 3})
    with pytest.raises(RuntimeError) as info:
        flow.run()
    text = str(info.getrepr(chain=True))
    assert "iteration 6" in text
    assert "loss nan" in text
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert after["trainer"]["iteration"] == before["trainer"]["iteration"] == 4
    assert all(torch.isfinite(t).all() for module in after["modules"].values() for t in tensors(module))


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, dict):
        return [t for v in state.values() for t in tensors(v)]
    return [state] if isinstance(state, torch.Tensor) and state.is_floating_point() else []
