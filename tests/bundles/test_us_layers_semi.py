"""The bundle contract for the semi-supervised comparators, and what each overlay does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import torch
import yaml
from ignite.engine import Events

from grn_monai.engines.semi._method import known_methods
from grn_monai.errors import find_input_error
from grn_monai.handlers import load_model
from grn_monai.networks import count_parameters
from tests.bundles.conftest import EXTRA, ROOT, SMALL, run, workflow
from tests.bundles.contract import BundleContract, read_history
from tests.bundles.test_resume import differences

BUNDLE = "us_layers_semi"
CONFIGS = ROOT / "bundles" / BUNDLE / "configs"
METHODS = sorted(p.stem for p in CONFIGS.glob("method_*.yaml"))
PARTS = {"urpc": {"heads"}, "sassnet": {"discriminator", "sdm_head"}, "dan": {"discriminator"}, "rdrop": set()}
"""What a resumed run of a method needs beside the plain network; elsewhere a teacher."""


def options(cohort: Path, out: Path, **others: Any) -> dict[str, Any]:
    return {**SMALL, **EXTRA[BUNDLE], "dataset_dir": str(cohort), "output_dir": str(out), **others}


def failure(cohort: Path, out: Path, *overlays: str, **others: Any) -> str:
    with pytest.raises((RuntimeError, ValueError)) as info:
        run(BUNDLE, "train", *overlays, **options(cohort, out, **others))
    return str(find_input_error(info.value))


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


class TestSemi(BundleContract):
    bundle = BUNDLE
    highest_loss = 2.0  # cross-entropy is in it

    def test_a_finished_run_is_not_trained_again_but_can_go_on(
        self, trained: dict, cohort: Path, tmp_path: Path
    ) -> None:
        """It is not trained again; with another number of epochs its ramp would have been another."""
        shutil.copytree(trained[self.bundle], tmp_path / "run")
        before = (tmp_path / "run" / "models" / "model.pt").stat().st_mtime_ns
        run(self.bundle, "train", **options(cohort, tmp_path / "run"))
        assert (tmp_path / "run" / "models" / "model.pt").stat().st_mtime_ns == before
        assert [r["epoch"] for r in read_history(tmp_path / "run")] == ["1", "2"]
        assert "epochs '2', now '3'" in failure(cohort, tmp_path / "run", epochs=3)


# The overlays of the methods.


class Runs(dict[str, tuple[Path, Any]]):
    """Folder and workflow of one epoch with each overlay, made when it is first asked for; not to be changed."""

    def __init__(self, cohort: Path, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self.cohort, self.factory = cohort, factory

    def __missing__(self, name: str) -> tuple[Path, Any]:
        folder = self.factory.mktemp(name or "plain")
        given = options(self.cohort, folder, epochs=1, max_weight=0.5)
        self[name] = folder, run(BUNDLE, "train", *([name] if name else []), **given)
        return self[name]


@pytest.fixture(scope="module")
def runs(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(cohort, tmp_path_factory)


def overlay_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def test_there_is_an_overlay_for_every_method_and_it_is_short() -> None:
    names = {name.removeprefix("method_") for name in METHODS}
    assert {m for m, cls in known_methods().items() if cls.__module__.startswith("grn_monai.")} <= names
    for name in METHODS:
        config = overlay_of(name)
        assert len((CONFIGS / f"{name}.yaml").read_text().splitlines()) <= 15
        assert config["method"] == name.removeprefix("method_") == locate(config["train#trainer#_target_"]).method
        # The delay is Mean Teacher's alone, and train.yaml has it.
        assert ("start" in config) == (name != "method_mean_teacher")
        assert config.get("start", 0) == 0


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_leaves_the_plain_network(name: str, runs: Runs, tmp_path: Path) -> None:
    folder, flow = runs[name]
    trainer = flow.parser.get_parsed_content("train#trainer")
    assert type(trainer) is locate(overlay_of(name)["train#trainer#_target_"])
    row = read_history(folder)[0]
    assert all(float(row[k]) > 0 for k in ("supervised_loss", "unsupervised_loss", "unsupervised_weight", "train_loss"))
    assert 0 < float(row["val_dice_loss"]) < 1
    assert trainer.state.output["unsupervised_weight"].item() == pytest.approx(0.5)  # the end of the ramp
    method = name.removeprefix("method_")
    assert checkpoint(folder)["identity"]["method"] == method
    own = PARTS.get(method, {"teacher"})
    assert set(checkpoint(folder)["modules"]) - {"model", "early_stop", "best"} == own
    plain = workflow(BUNDLE, "inference", workflow_type="infer", output_dir=str(tmp_path), device="cpu")
    network = load_model(folder / "models" / "model.pt", plain.parser.get_parsed_content("network_def")).eval()
    assert count_parameters(network) == 661_727
    image = torch.rand(1, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        trained = flow.parser.get_parsed_content("network").eval()(image)
        torch.testing.assert_close(network(image), trained)


def test_a_model_is_scored_without_its_overlay_and_alike_with_it(runs: Runs, cohort: Path, tmp_path: Path) -> None:
    """Also with an overlay, of a method with a teacher, that is named last."""
    folder, _ = runs["method_ict"]
    left_out = ("epochs", "batch_size", "fraction")
    given = {k: v for k, v in options(cohort, folder).items() if k not in left_out}
    scores = []
    for overlays in ((), ("method_ict",)):
        out = tmp_path / str(len(overlays))
        run(BUNDLE, "train", "evaluate", *overlays, **given, eval_dir=str(out), surface_distances=False, quality=False)
        scores.append(json.loads((out / "metrics.json").read_text()))
    assert scores[0] == scores[1]
    assert scores[0]["decoded"]["n"] == 2


@pytest.mark.parametrize("name", METHODS)
def test_overlays_keep_the_properties_of_a_bundle(name: str, cohort: Path, tmp_path: Path) -> None:
    """Also named last, behind the overlay of the evaluation."""
    given = {"dataset_dir": str(cohort), "output_dir": str(tmp_path), "fraction": 0.5}
    flow = workflow(BUNDLE, "train", "evaluate", name, **given)
    assert flow.check_properties() == []
    assert flow.parser.get("method") == name.removeprefix("method_")
    assert flow.parser.get("validate#evaluator#network") == "@network"


def test_without_an_overlay_it_is_mean_teacher(runs: Runs) -> None:
    states = [{k: v for k, v in checkpoint(runs[n][0]).items() if k != "identity"} for n in ("", "method_mean_teacher")]
    assert differences(*states) == []


@pytest.mark.parametrize(
    ("overlays", "given", "words"),
    [
        ((), {"method": "dan"}, "method: found 'dan'; expected 'mean_teacher', which grn_monai.engines.Mean"),
        (("method_dan",), {"method": "mean_teacher"}, "expected 'dan'"),
        ((), {"infer_with": "teacher"}, "infer_with: found 'teacher'; expected no such option: mean_teacher"),
        ((), {"noise": 5.0}, "Give the overlay of the method (method_mean_teacher, method_uamt), or leave"),
        (("method_rdrop",), {"ema_decay": 0.5}, "ema_decay: found 0.5; expected no such option: rdrop"),
        ((), {"slice_size": [40, 32]}, "expected [48, 32]"),
    ],
)
def test_what_would_be_ignored_or_fail_late_is_refused_before_the_training(
    overlays: tuple[str, ...], given: dict[str, Any], words: str, cohort: Path, tmp_path: Path
) -> None:
    assert words in failure(cohort, tmp_path, *overlays, **given)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_discriminators_rate_and_channels_follow_the_config(cohort: Path, tmp_path: Path) -> None:
    given = {"discriminator_learning_rate": 0.01, "network_def#out_channels": 5}
    for name, channels in (("method_dan", 5), ("method_sassnet", 4)):
        parser = workflow(BUNDLE, "train", name, **options(cohort, tmp_path, **given)).parser
        assert parser.get_parsed_content("discriminator").of_map.in_channels == channels
        assert parser.get_parsed_content("discriminator_optimizer").param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize(
    "overlays",
    [
        ("method_uamt",),
        ("preset_ssl4mis", "method_rdrop"),
        *(
            pytest.param((name,), marks=pytest.mark.slow)
            for name in METHODS
            if name not in ("method_uamt", "method_mean_teacher")
        ),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(overlays: tuple[str, ...], cohort: Path, tmp_path: Path) -> None:
    more = {"two_network": True} if "preset_ssl4mis" in overlays else {}
    whole, parts = (options(cohort, tmp_path / name, **more) for name in ("whole", "parts"))
    run(BUNDLE, "train", *overlays, **whole)
    flow = workflow(BUNDLE, "train", *overlays, **parts)

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    trainer = flow.parser.get_parsed_content("train#trainer")
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=6), stop)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        flow.run()
    assert [r["epoch"] for r in read_history(tmp_path / "parts")] == ["1"]
    run(BUNDLE, "train", *overlays, **parts)
    assert differences(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")) == []


def test_it_starts_with_the_weights_of_the_baseline(cohort: Path, tmp_path: Path) -> None:
    starts = []
    for bundle, overlays in (
        ("us_layers_supervised", ()),
        *((BUNDLE, (name,)) for name in METHODS),
        (BUNDLE, ("preset_ssl4mis", "method_rdrop")),
    ):
        flow = workflow(bundle, "train", *overlays, **options(cohort, tmp_path))
        flow.initialize()  # all that is made later is made after the network
        starts.append(dict(flow.parser.get_parsed_content("network").state_dict()))
    assert all(differences(starts[0], start) == [] for start in starts[1:])


def test_the_teacher_may_be_validated_and_saved(cohort: Path, tmp_path: Path) -> None:
    flow = run(BUNDLE, "train", "method_ict", **options(cohort, tmp_path, epochs=1, infer_with="teacher"))
    saved = torch.load(tmp_path / "models" / "model.pt", weights_only=True)["model"]
    modules = checkpoint(tmp_path)["modules"]
    assert differences(saved, modules["teacher"]) == []
    assert differences(saved, modules["model"])
    assert flow.parser.get_parsed_content("train#trainer").teacher.training


@pytest.mark.parametrize(
    ("overlay", "bad", "words"),
    [
        ("method_mean_teacher", {"infer_with": "both"}, "infer_with: found 'both'"),
        ("method_mean_teacher", {"sup_loss": "focal"}, "sup_loss: found 'focal'"),
        ("method_uamt", {"passes": 0}, "passes: found 0"),
        ("method_ict", {"unlabelled_batch_size": 3}, "found 3 unlabelled images"),
        ("method_rdrop", {"dropout": 0.0}, "network: found no dropout"),
        ("method_rdrop", {"max_weight": -1.0}, "max_weight: found -1.0"),
    ],
)
def test_bad_options_are_named(overlay: str, bad: dict[str, Any], words: str, cohort: Path, tmp_path: Path) -> None:
    assert words in failure(cohort, tmp_path, overlay, **bad)


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("method_sassnet", {"empty": "zero"}, "empty 'one', now 'zero'"),
        ("method_dan", {"discriminator_learning_rate": 0.01}, "discriminator_learning_rate '0.0001', now '0.01'"),
    ],
)
def test_options_of_a_method_belong_to_the_run(
    name: str, changed: dict, words: str, runs: Runs, cohort: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs[name][0], tmp_path / "run")
    assert words in failure(cohort, tmp_path / "run", name, epochs=1, max_weight=0.5, **changed)


@pytest.mark.parametrize(
    ("overlays", "changed", "words"),
    [
        (("method_ict",), {}, "method 'mean_teacher', now 'ict'"),
        ((), {"sup_loss": "dice"}, "sup_loss 'dice_ce', now 'dice'"),
        ((), {"unlabelled": "all"}, "unlabelled 'rest', now 'all'"),
        (("preset_ssl4mis",), {}, "optimizer None, now 'sgd'"),
        (("augment",), {}, "augment_prob None, now '0.5'"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    overlays: tuple[str, ...], changed: dict, words: str, trained: dict[str, Path], cohort: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[BUNDLE], tmp_path / "run")
    assert words in failure(cohort, tmp_path / "run", *overlays, **changed)


# Labelled images as unlabelled ones.


def test_labelled_images_serve_as_unlabelled_ones_on_request(cohort: Path, tmp_path: Path) -> None:
    for fraction, labelled in ((1.0, 2), (0.5, 1)):
        out = tmp_path / str(fraction)
        flow = run(BUNDLE, "train", **options(cohort, out, epochs=1, fraction=fraction, unlabelled="all"))
        record = json.loads((out / "run.json").read_text())
        assert len(record["scans"]) == labelled
        assert len(record["unlabelled_scans"]) == 2
        assert set(record["scans"]) <= set(record["unlabelled_scans"])
        dataset = flow.parser.get_parsed_content("train#dataset")
        assert "label" not in dataset[len(dataset.labelled)]
        assert all("label" not in item for item in dataset.unlabelled.data)


def test_with_all_labels_and_nothing_else_the_option_is_named(cohort: Path, tmp_path: Path) -> None:
    assert "give `unlabelled: all`" in failure(cohort, tmp_path, fraction=1.0)
    assert "unlabelled: found 'some'; expected 'rest' or 'all'" in failure(cohort, tmp_path, unlabelled="some")


# The other overlays.


def test_the_preset_is_the_reference_codes_optimizer(cohort: Path, tmp_path: Path) -> None:
    flow = workflow(BUNDLE, "train", "preset_ssl4mis", "method_uamt", **options(cohort, tmp_path))
    trainer = flow.parser.get_parsed_content("train#trainer")
    rates: list[float] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: rates.append(e.optimizer.param_groups[0]["lr"]))
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    group = trainer.optimizer.param_groups[0]
    assert (group["momentum"], group["weight_decay"], group["lr"]) == (0.9, 1e-4, 0.01)
    flow.run()
    total = trainer.state.iteration
    # This handler was attached last: it sees the rate of the next iteration.
    assert rates == pytest.approx([0.01 * (1 - t / total) ** 0.9 for t in range(1, total + 1)])


def test_both_streams_are_augmented(cohort: Path, tmp_path: Path) -> None:
    flows = [
        workflow(BUNDLE, "train", *overlays, **options(cohort, tmp_path, augment_prob=1.0))
        for overlays in ((), ("augment",))
    ]
    plain, augmented = (next(iter(f.parser.get_parsed_content("train#dataloader"))) for f in flows)
    assert plain.keys() == augmented.keys()
    for key in ("image", "unlabeled", "label"):
        assert type(augmented[key]) is torch.Tensor
        assert augmented[key].dtype == plain[key].dtype
        assert augmented[key].shape == plain[key].shape
        assert not torch.equal(augmented[key], plain[key])
    assert augmented["unlabeled"].abs().max() <= 1
    assert flows[1].parser.get_parsed_content("validate#dataset").transform is None


@pytest.mark.parametrize("bundle", ["us_layers_supervised", "us_layers_grn_plus"])
def test_the_other_bundles_train_with_the_same_loss_on_request(bundle: str, cohort: Path, tmp_path: Path) -> None:
    given = {**SMALL, **EXTRA[bundle], "dataset_dir": str(cohort), "output_dir": str(tmp_path), "epochs": 1}
    flow = run(bundle, "train", "dice_ce", **given)
    mine = workflow(BUNDLE, "train", **options(cohort, tmp_path)).parser
    losses = [p.get_parsed_content("train#trainer#loss_function") for p in (flow.parser, mine)]
    logits, labels = torch.randn(2, 7, 8, 8), torch.randint(0, 7, (2, 1, 8, 8))
    assert torch.equal(losses[0](logits, labels), losses[1](logits, labels))
    for parser in (flow.parser, mine):
        assert type(parser.get_parsed_content("loss")).__name__ == "DiceLoss"
        assert parser.get("validate#key_metric#val_dice_loss#loss_fn") == "@loss"
    assert checkpoint(tmp_path)["identity"]["sup_loss"] == "dice_ce"
    assert 0 < float(read_history(tmp_path)[0]["val_dice_loss"]) < 1
    with pytest.raises(RuntimeError) as info:
        run(bundle, "train", **given)
    assert "sup_loss 'dice_ce', now None" in str(find_input_error(info.value))
