"""The bundle contract for the U-Net baseline, and its two overlays: augmentation, and GAN augmentation."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.transforms import Compose

from grn_monai.errors import find_input_error
from grn_monai.handlers.training import SeedEpochs
from tests.bundles.conftest import SMALL, run, workflow
from tests.bundles.contract import BundleContract, read_history
from tests.bundles.test_resume import differences

BUNDLE = "us_layers_supervised"
GAN: dict[str, Any] = {"base_channels": 4, "discriminator_channels": 4, "gan_epochs": 2}
GEOMETRIC = ("RandFlipd", "RandRotate90d", "Resized", "RandAffined", "RandZoomd")


class TestSupervised(BundleContract):
    bundle = BUNDLE


def options(cohort: Path, out: Path, **others: Any) -> dict[str, Any]:
    return {**SMALL, "dataset_dir": str(cohort), "output_dir": str(out), **others}


def content(overlay: str, cohort: Path, out: Path, name: str, **others: Any) -> Any:
    return workflow(BUNDLE, "train", overlay, **options(cohort, out, **others)).parser.get_parsed_content(name)


def checkpoint(folder: Path, name: str = "checkpoint.pt") -> dict[str, Any]:
    return torch.load(folder / name, weights_only=True)


def scores(cohort: Path, out: Path, tmp_path: Path, *overlays: str, **others: Any) -> dict[str, Any]:
    """What `evaluate.yaml` says of the model of a run."""
    run(BUNDLE, "train", *overlays, "evaluate", **options(cohort, out, eval_dir=str(tmp_path / "scores"), **others))
    metrics: dict[str, Any] = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    return metrics


def interrupted(trainer: str, iteration: int, *configs: str, **others: Any) -> None:
    """Run a training that ends with an error at an iteration of one of its trainers."""
    flow = workflow(BUNDLE, *configs, **others)

    def stop(_: Any) -> None:
        raise KeyboardInterrupt

    flow.parser.get_parsed_content(trainer).add_event_handler(Events.ITERATION_COMPLETED(once=iteration), stop)
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        flow.run()


# Augmentation.


def test_augmented_batches_are_plain_and_of_the_same_kind(cohort: Path, tmp_path: Path) -> None:
    flow = workflow(BUNDLE, "train", "augment", **options(cohort, tmp_path, augment_prob=1.0))
    plain = workflow(BUNDLE, "train", **options(cohort, tmp_path))
    loaders = [f.parser.get_parsed_content("train#dataloader") for f in (flow, plain)]
    for batches in zip(*loaders, strict=True):
        for key, dtype in (("image", torch.float32), ("label", torch.uint8)):
            assert all(type(b[key]) is torch.Tensor and b[key].dtype == dtype for b in batches)
            assert batches[0][key].shape == batches[1][key].shape
        assert batches[0].keys() == batches[1].keys()
        image, label = batches[0]["image"], batches[0]["label"]
        assert image.min() >= -1
        assert image.max() <= 1
        assert set(label.unique().tolist()) <= set(range(7))
    assert not torch.equal(batches[0]["image"], batches[1]["image"])
    assert flow.parser.get_parsed_content("validate#dataset").transform is None


def test_without_chance_slices_stay_as_they_are(cohort: Path, tmp_path: Path) -> None:
    augmented = content("augment", cohort, tmp_path, "train#dataset", augment_prob=0.0)
    plain = workflow(BUNDLE, "train", **options(cohort, tmp_path)).parser.get_parsed_content("train#dataset")
    for i in (0, 25, 50):
        torch.testing.assert_close(augmented[i]["image"], plain[i]["image"], rtol=0, atol=1e-6)
        assert torch.equal(augmented[i]["label"], plain[i]["label"])


def test_image_and_label_move_together_and_the_outside_is_black_background(cohort: Path, tmp_path: Path) -> None:
    dataset = content("augment", cohort, tmp_path, "train#dataset", augment_prob=1.0, slice_size=[64, 64])
    transforms = [t for t in dataset.transform.transforms if type(t).__name__ in GEOMETRIC]
    assert [type(t).__name__ for t in transforms] == ["RandFlipd", "RandAffined", "RandZoomd"]
    move = Compose(transforms)
    move.set_random_state(0)
    dataset.transform = None
    wrong, moved = [], []
    for i in range(0, len(dataset), 4):
        label = dataset[i]["label"]
        out = move({"image": label.float(), "label": label})
        image, after = out["image"].as_tensor(), out["label"].as_tensor()
        wrong.append(((image - after).abs() > 1).float().mean())
        moved.append((after != label).float().mean())
    # Along the borders of the moved slice the interpolation blends values that are far apart.
    assert max(wrong) < 0.04
    assert min(moved) > 0.1
    outside = move({"image": torch.ones(1, 64, 64), "label": torch.ones(1, 64, 64)})
    corner = outside["label"].as_tensor() == 0
    assert corner.float().mean() > 0.02
    assert (outside["image"].as_tensor()[corner] == 0).float().mean() > 0.7  # the rest is the blended border


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({}, ["RandFlipd", "RandAffined", "RandZoomd"]),
        ({"flip_depth": "false", "rot90": "0"}, ["RandFlipd", "RandAffined", "RandZoomd"]),
        ({"flip_depth": "true"}, ["RandFlipd", "RandFlipd", "RandAffined", "RandZoomd"]),
        ({"rot90": True}, ["RandFlipd", "RandRotate90d", "Resized", "RandAffined", "RandZoomd"]),
    ],
)
def test_switches_of_the_augmentation(
    switches: dict[str, Any], expected: list[str], cohort: Path, tmp_path: Path
) -> None:
    dataset = content("augment", cohort, tmp_path, "train#dataset", **switches, augment_prob=1.0, slice_size=[32, 64])
    names = [type(t).__name__ for t in dataset.transform.transforms]
    assert [name for name in names if name in GEOMETRIC] == expected
    item = dataset[3]
    assert item["image"].shape == item["label"].shape == (1, 32, 64)
    first = [t for t in dataset.transform.transforms if type(t).__name__ == "RandFlipd"]
    ramp = torch.arange(32.0)[:, None].expand(32, 64)[None]  # grows with depth
    flipped = first[-1]({"image": ramp, "label": ramp})["image"]
    assert bool(flipped[0, 0, 0] > flipped[0, -1, 0]) == ("flip_depth" in switches and switches["flip_depth"] == "true")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_augmentation_follows_seed_and_epoch_and_a_resumed_run_equals_an_uninterrupted_one(
    num_workers: int, cohort: Path, tmp_path: Path
) -> None:
    others = {"num_workers": num_workers, "batch_size": 16}
    run(BUNDLE, "train", "augment", **options(cohort, tmp_path / "whole", **others))
    for epochs in (1, 2):
        run(BUNDLE, "train", "augment", **options(cohort, tmp_path / "parts", **{**others, "epochs": epochs}))
    whole, parts = (checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert differences(whole, parts) == []
    curves = [read_history(tmp_path / name) for name in ("whole", "parts")]
    assert [r["train_loss"] for r in curves[0]] == [r["train_loss"] for r in curves[1]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_epochs_and_workers_draw_differently(num_workers: int, cohort: Path, tmp_path: Path) -> None:
    flow = workflow(BUNDLE, "train", "augment", **options(cohort, tmp_path, num_workers=num_workers, batch_size=1))
    loader, dataset = (flow.parser.get_parsed_content(f"train#{name}") for name in ("dataloader", "dataset"))
    dataset.data, dataset._ends = dataset.data[:1], [8]  # eight slices
    dataset._runs = [dataset._runs[0]._replace(length=8)]
    dataset.locate = lambda index: (0, "sagittal", 3)  # all the same one
    seed = SeedEpochs(0, dataset)

    class Engine:
        class state:  # noqa: N801
            epoch = 1
            epoch_length = 8
            dataloader = loader

        _dataloader_iter = None

    def epoch(number: int) -> torch.Tensor:
        Engine.state.epoch = number
        seed(Engine)  # type: ignore[arg-type]
        return torch.cat([b["image"] for b in loader])

    first = epoch(1)
    assert len({tuple(x.flatten().tolist()) for x in first}) == 8
    assert torch.equal(first, epoch(1))
    assert not torch.equal(first, epoch(2))


def test_an_augmented_run_is_its_own_and_its_model_is_a_plain_unet(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(BUNDLE, "train", "augment", **options(cohort, out, epochs=1))
    assert scores(cohort, out, tmp_path)["decoded"]["n"] == 2
    for switch, words in (
        ({"augment_prob": 0.25}, "augment_prob '0.5', now '0.25'"),
        ({"flip_depth": "true"}, "flip_depth 'False', now 'True'"),
        ({"rot90": "true"}, "rot90 'False', now 'True'"),
    ):
        with pytest.raises(RuntimeError) as info:
            run(BUNDLE, "train", "augment", **options(cohort, out, **switch))
        assert words in str(find_input_error(info.value))


def test_a_plain_run_is_not_resumed_with_an_overlay(trained: dict[str, Path], cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(trained[BUNDLE], tmp_path / "run")
    for overlay, others, words in (("augment", {}, "augment_prob None"), ("gan_augment", GAN, "gan None")):
        with pytest.raises(RuntimeError) as info:
            run(BUNDLE, "train", overlay, **options(cohort, tmp_path / "run", **others))
        assert words in str(find_input_error(info.value))


# GAN augmentation.


def history_gan(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history_gan.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def with_gan(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gan")
    run(BUNDLE, "train", "gan_augment", **options(cohort, folder, **GAN))
    return folder


def test_the_gan_is_trained_first_and_the_unet_on_twice_the_images(
    with_gan: Path, trained: dict[str, Path], cohort: Path, tmp_path: Path
) -> None:
    rows = history_gan(with_gan)
    assert [r["epoch"] for r in rows] == ["1", "2"]
    terms = ("train_loss", "l1_loss", "adversarial_loss", "discriminator_loss", "grad_norm_generator")
    assert all(float(row[name]) > 0 for row in rows for name in terms)
    assert float(rows[1]["l1_loss"]) < float(rows[0]["l1_loss"])
    assert [r["epoch"] for r in read_history(with_gan)] == ["1", "2"]
    for name in ("run.json", "run_gan.json"):
        assert json.loads((with_gan / name).read_text())["status"] == "completed"
    state = checkpoint(with_gan, "checkpoint_gan.pt")
    assert set(state["modules"]) == {"generator", "discriminator"}
    assert set(state["optimizers"]) == {"generator_optimizer", "discriminator_optimizer"}
    plain = checkpoint(trained[BUNDLE])
    mine = checkpoint(with_gan)
    assert plain["trainer"]["iteration"] == mine["trainer"]["iteration"]
    assert plain["modules"]["model"].keys() == mine["modules"]["model"].keys()
    assert differences(plain["modules"]["model"], mine["modules"]["model"])
    metrics = scores(cohort, with_gan, tmp_path)
    assert metrics["decoded"]["n"] == 2
    assert metrics == scores(cohort, with_gan, tmp_path, "gan_augment", **GAN)
    assert not list(with_gan.rglob(".*"))


def test_the_unet_sees_the_frozen_generator_of_the_checkpoint(with_gan: Path, cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(with_gan, tmp_path / "run")
    before = checkpoint(tmp_path / "run", "checkpoint_gan.pt")
    rows = history_gan(tmp_path / "run")
    flow = workflow(BUNDLE, "train", "gan_augment", **options(cohort, tmp_path / "run", **{**GAN, "epochs": 3}))
    fired: list[int] = []
    gan = flow.parser.get_parsed_content("gan#trainer")
    gan.add_event_handler(Events.ITERATION_COMPLETED, lambda e: fired.append(e.state.iteration))
    flow.run()
    assert not fired
    assert history_gan(tmp_path / "run") == rows
    assert differences(before, checkpoint(tmp_path / "run", "checkpoint_gan.pt")) == []
    assert [r["epoch"] for r in read_history(tmp_path / "run")] == ["1", "2", "3"]
    trainer = flow.parser.get_parsed_content("train#trainer")
    generator = trainer.prepare_batch.generator
    assert differences(before["modules"]["generator"], dict(generator.state_dict())) == []
    assert not generator.training
    image = trainer.state.output["image"]
    with torch.no_grad():
        torch.testing.assert_close(image.chunk(2)[1], generator(image.chunk(2)[0]))


def test_the_unet_starts_as_without_the_overlay(cohort: Path, tmp_path: Path) -> None:
    flows = [
        workflow(BUNDLE, "train", **options(cohort, tmp_path)),
        workflow(BUNDLE, "train", "gan_augment", **options(cohort, tmp_path, **GAN)),
    ]
    starts = []
    for flow in flows:
        flow.initialize()
        starts.append(dict(flow.parser.get_parsed_content("network").state_dict()))
    assert differences(*starts) == []


@pytest.mark.parametrize(("trainer", "iteration"), [("gan#trainer", 14), ("train#trainer", 1), ("train#trainer", 14)])
def test_interrupted_and_resumed_equals_uninterrupted(
    trainer: str, iteration: int, with_gan: Path, cohort: Path, tmp_path: Path
) -> None:
    """In the GAN's second epoch; between the two trainings; in the U-Net's second epoch."""
    interrupted(trainer, iteration, "train", "gan_augment", **options(cohort, tmp_path, **GAN))
    assert (tmp_path / "checkpoint.pt").is_file() == (iteration == 14 and trainer == "train#trainer")
    run(BUNDLE, "train", "gan_augment", **options(cohort, tmp_path, **GAN))
    for name in ("checkpoint_gan.pt", "checkpoint.pt"):
        assert differences(checkpoint(with_gan, name), checkpoint(tmp_path, name)) == []
    models = [torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (with_gan, tmp_path)]
    assert differences(*models) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"gan_epochs": 3}, "gan_epochs '2', now '3'"),
        ({"l1_weight": 10.0}, "l1_weight '100.0', now '10.0'"),
        ({"base_channels": 8}, "base_channels '4', now '8'"),
        ({"fraction": 0.5}, "fraction '1.0', now '0.5'"),
    ],
)
def test_another_gan_is_refused(
    changed: dict[str, Any], words: str, with_gan: Path, cohort: Path, tmp_path: Path
) -> None:
    shutil.copytree(with_gan, tmp_path / "run")
    with pytest.raises(RuntimeError) as info:
        run(BUNDLE, "train", "gan_augment", **options(cohort, tmp_path / "run", **{**GAN, **changed}))
    assert words in str(find_input_error(info.value))
    # Nor behind the back of the GAN's own checkpoint.
    (tmp_path / "run" / "checkpoint_gan.pt").unlink()
    with pytest.raises(RuntimeError) as info:
        run(BUNDLE, "train", "gan_augment", **options(cohort, tmp_path / "run", **{**GAN, **changed}))
    assert "checkpoint of another run" in str(find_input_error(info.value))


def test_a_run_without_the_gan_is_refused_before_a_gan_is_trained(cohort: Path, tmp_path: Path) -> None:
    run(BUNDLE, "train", **options(cohort, tmp_path, epochs=1))
    with pytest.raises(RuntimeError) as info:
        run(BUNDLE, "train", "gan_augment", **options(cohort, tmp_path, **{**GAN, "epochs": 1}))
    assert "gan None, now" in str(find_input_error(info.value))
    assert not (tmp_path / "checkpoint_gan.pt").exists()


@pytest.mark.parametrize("overlay", ["augment", "gan_augment"])
def test_without_the_overlay_its_checkpoint_is_refused(overlay: str, cohort: Path, tmp_path: Path) -> None:
    extra = {**GAN, "gan_epochs": 1} if overlay == "gan_augment" else {}
    run(BUNDLE, "train", overlay, **options(cohort, tmp_path, **{**extra, "epochs": 1}))
    with pytest.raises(RuntimeError) as info:
        run(BUNDLE, "train", **options(cohort, tmp_path, epochs=1))
    assert "now None" in str(find_input_error(info.value))


def test_images_without_label_are_for_the_gan_alone(cohort: Path, tmp_path: Path) -> None:
    others = {**GAN, "gan_epochs": 1, "epochs": 1, "fraction": 0.5, "gan_images": "all"}
    flow = run(BUNDLE, "train", "gan_augment", **options(cohort, tmp_path, **others))
    gan, trainer = (flow.parser.get_parsed_content(f"{name}#trainer") for name in ("gan", "train"))
    assert len(gan.data_loader.dataset) == 2 * len(trainer.data_loader.dataset) == 2 * (20 + 16)
    assert "label" not in gan.state.batch
    assert trainer.state.output["image"].shape[0] == trainer.state.output["label"].shape[0] > 1
    with pytest.raises(RuntimeError) as info:
        run(BUNDLE, "train", "gan_augment", **options(cohort, tmp_path, **{**others, "gan_images": "labelled"}))
    assert "gan_images 'all', now 'labelled'" in str(find_input_error(info.value))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"gan_images": "test"}, "gan_images: found 'test'; expected 'labelled' or 'all'"),
        ({"gan_images": "all", "fraction": 1.0}, "unlabel"),
        ({"adv_weight": -1.0}, "adv_weight: found -1.0"),
    ],
)
def test_bad_options_of_the_gan_are_named(bad: dict[str, Any], words: str, cohort: Path, tmp_path: Path) -> None:
    with pytest.raises((RuntimeError, ValueError)) as info:
        run(BUNDLE, "train", "gan_augment", **options(cohort, tmp_path, **{**GAN, **bad}))
    assert words in str(find_input_error(info.value))
    assert not list(tmp_path.rglob("*.pt"))


def test_both_overlays_together(cohort: Path, tmp_path: Path) -> None:
    others = {**GAN, "gan_epochs": 1, "epochs": 1}
    flow = run(BUNDLE, "train", "augment", "gan_augment", **options(cohort, tmp_path, **others))
    gan, trainer = (flow.parser.get_parsed_content(f"{name}#trainer") for name in ("gan", "train"))
    assert gan.data_loader.dataset.transform is None
    assert trainer.data_loader.dataset.transform is not None
    assert set(checkpoint(tmp_path)["identity"]) >= {"augment_prob", "gan"}


@pytest.mark.parametrize("overlay", ["augment", "gan_augment"])
def test_overlay_keeps_the_properties_of_a_bundle(overlay: str, cohort: Path, tmp_path: Path) -> None:
    flow = workflow(BUNDLE, "train", overlay, **options(cohort, tmp_path))
    assert flow.check_properties() == []
    assert flow.parser.get("run") == "@training"
