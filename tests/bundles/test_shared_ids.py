"""Bundles of one family agree: an id that two of them have means the same in both, unless it is listed here."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.bundles.conftest import ALL, BUNDLES, MUSCLES, ROOT

CONFIGS = (
    "train", "evaluate", "inference", "multi_gpu_train", "no_sge", "freeze_segmentor", "no_seg_feedback",
    "negated_seg_feedback",
)  # fmt: skip
# Defaults that the papers fix for a method, and what follows from its networks.
METHOD = {
    "segmentor_update", "seg_weight", "train#trainer#_target_", "train#handlers#8#modules", "train#handlers#8#identity",
    "initialize",
}  # fmt: skip
# GRN-SSL reads two streams.
STREAMS = {"train#dataset#_target_", "train#dataloader"}
# The semi-supervised comparators have a loss of their own for labelled images, and name what the optimizer steps and
# what is saved.
SEMI = {
    "validate#evaluator#network",
    "validate#handlers#1#save_dict",
    "train#trainer#_target_",
    "train#trainer#loss_function",
    "train#handlers#8#identity",
    "optimizer#params",
}
# The baseline has one network and one optimizer, and knows neither S(G(x)) nor its best model.
SUPERVISED = {
    "network_def", "optimizer#params", "ckpt_path", "eval_dir", "imports", "train#trainer#network", "handlers",
    "early_stop#metric", "postprocessing", "validate#postprocessing", "inferer", "validate#inferer",
    "validate#handlers", "validate#evaluator#_target_",
}  # fmt: skip


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf of a config by its id."""
    if isinstance(node, dict) and node:
        pairs = list(node.items())
    elif isinstance(node, list) and any(isinstance(v, dict | list) for v in node):
        pairs = list(enumerate(node))
    else:
        return {prefix: node}
    return {k: v for name, child in pairs for k, v in flat(child, f"{prefix}#{name}" if prefix else str(name)).items()}


def ids(bundle: str, config: str) -> dict[str, Any]:
    file = ROOT / "bundles" / bundle / "configs" / f"{config}.yaml"
    return flat(yaml.safe_load(file.read_text())) if file.is_file() else {}


def differences(a: str, b: str, config: str, allowed: set[str]) -> dict[str, tuple[Any, Any]]:
    first, second = ids(a, config), ids(b, config)
    return {
        k: (first[k], second[k])
        for k in first.keys() & second.keys()
        if first[k] != second[k] and not any(k == x or k.startswith(x + "#") for x in allowed)
    }


GRN = [name for name in BUNDLES if "grn" in name]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(("a", "b"), list(combinations(GRN, 2)))
def test_ids_of_the_joint_methods(a: str, b: str, config: str) -> None:
    allowed = METHOD | (STREAMS if "us_layers_grn_ssl" in (a, b) else set())
    assert differences(a, b, config, allowed) == {}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("bundle", GRN)
def test_ids_of_the_baseline(bundle: str, config: str) -> None:
    allowed = METHOD | SUPERVISED | (STREAMS if bundle == "us_layers_grn_ssl" else set())
    assert differences("us_layers_supervised", bundle, config, allowed) == {}


@pytest.mark.parametrize("config", [*CONFIGS, "augment"])
def test_ids_of_the_comparators(config: str) -> None:
    allowed = SEMI | STREAMS | {"imports", "initialize", "train#preprocessing"}
    assert differences("us_layers_supervised", "us_layers_semi", config, allowed) == {}
    if config != "augment":
        # In float32 as the U-Net, of whose step bfloat16 saves little.
        allowed = SEMI | METHOD | SUPERVISED | {"amp"}
        assert differences("us_layers_grn_ssl", "us_layers_semi", config, allowed) == {}


def test_a_changed_default_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ids

    def changed(bundle: str, config: str) -> dict[str, Any]:
        return {**before(bundle, config), **({"learning_rate": 0.1} if bundle.endswith("sel") else {})}

    monkeypatch.setitem(globals(), "ids", changed)
    found = differences("us_layers_grn_plus", "us_layers_grn_sel", "train", METHOD)
    assert found == {"learning_rate": (0.0002, 0.1)}


def test_every_bundle_has_the_ids_that_users_rely_on() -> None:
    for bundle in ALL:
        train = yaml.safe_load((ROOT / "bundles" / bundle / "configs" / "train.yaml").read_text())
        assert train["run"] == "@training"
        assert train["training"] == ["$@train#trainer.run()"]
        assert {"network_def", "dataset_dir", "split", "fraction", "seed", "output_dir", "epochs", "device"} <= set(
            train
        )
        assert {"trainer", "dataset", "dataloader", "handlers", "inferer"} <= set(train["train"])
        assert {"evaluator", "dataset", "dataloader", "handlers", "key_metric"} <= set(train["validate"])


@pytest.mark.parametrize("bundle", ALL)
def test_a_checkpoint_knows_every_option_that_changes_the_training(bundle: str) -> None:
    """An option that is missing there would be changed in silence when a run is resumed."""
    train = yaml.safe_load((ROOT / "bundles" / bundle / "configs" / "train.yaml").read_text())
    start = list(train).index("device") + 1
    options = [name for name in list(train)[start:] if not name.endswith("_def")]
    options = options[: options.index("resume")]
    # Where and how fast, not what: these may change. The length of a run is the resumed run's to choose.
    free = {"epochs", "val_interval", "patience", "stop_metric", "num_workers", "amp_kwargs", "compile", "resume"}
    identity = next(h["identity"] for h in train["train"]["handlers"] if "identity" in h)
    if bundle in MUSCLES:  # how it is evaluated, how long the run is, and what follows from other options
        free |= {"sge", "infer_batch_size", "overlap", "iterations", "patch_divisor"}
    if bundle == "us_layers_semi":  # except where the ramp spans it
        free -= {"epochs"}
    assert set(options) - free == set(identity) - {"data"}


def test_ids_of_the_muscles() -> None:
    """What a user knows of one bundle holds in the other: names, and what an option means where both have it."""
    own = {  # of each one's network, paper or slices against patches
        "imports", "epochs", "batch_size", "learning_rate", "patience", "network_def", "loss", "optimizer", "min_batch",
        "initialize", "train", "validate",
    }  # fmt: skip
    first, second = MUSCLES
    assert differences(first, second, "train", own) == {}
    baseline = "us_layers_supervised"
    for bundle in MUSCLES:
        assert differences(baseline, bundle, "train", own) == {}
        # The skeleton of a training is the ultrasound bundles'.
        for part in ("train#handlers", "train#trainer", "validate#handlers", "validate#evaluator"):
            theirs, ours = ids(baseline, "train"), ids(bundle, "train")
            targets = {k: v for k, v in theirs.items() if k.startswith(part) and k.endswith("_target_")}
            changed = {k: (v, ours.get(k)) for k, v in targets.items() if ours.get(k) != v}
            assert changed == {}, (bundle, part)
        infer = {"network_def", "preprocessing", "inferer", "postprocessing", "handlers", "evaluator", "dataset"}
        assert infer | {"section", "ckpt_path", "device", "output_dir"} <= set(
            yaml.safe_load((ROOT / "bundles" / bundle / "configs" / "inference.yaml").read_text())
        )
