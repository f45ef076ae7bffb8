"""The trainer contract for trainers with one segmentor and two streams of images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.handlers import StatsHandler, from_engine
from monai.networks.nets import UNet
from monai.utils import set_determinism
from torch import nn
from torch.utils.data import DataLoader

from grn_monai.engines import SemiSupervisedTrainer
from grn_monai.engines.semi_supervised_trainer import ramp_up
from grn_monai.errors import InputError
from grn_monai.handlers import ResumeHandler, SeedEpochs
from tests.engines.contract import LOSS, TrainerContract, adam, items, same, weights

SCALARS = ("loss", "supervised_loss", "unsupervised_loss", "unsupervised_weight")


def deep_segmentor(dropout: float = 0.0) -> UNet:
    """A U-Net with the papers' five levels, small."""
    return UNet(2, 1, 7, (4, 8, 8, 8, 8), (2, 2, 2, 2), dropout=dropout)


def two_streams(labelled: int = 2, unlabelled: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    """One batch."""
    first, second = items(labelled), items(unlabelled, seed=1)
    return {
        "image": torch.stack([d["image"] for d in first]).to(dtype),
        "label": torch.stack([d["label"] for d in first]),
        "unlabeled": torch.stack([d["image"] for d in second]).to(dtype),
    }


def planned(trainer: Any, iterations: int) -> Any:
    """A trainer whose ``_iteration`` may be called by itself, as the iterations of a run of this length."""
    trainer.state.max_epochs, trainer.state.epoch_length, trainer.state.iteration = 1, iterations, 0
    return trainer


def iterate(trainer: Any, batch: dict[str, torch.Tensor]) -> float:
    """The next iteration; gives its weight by the formula, of a ramp over the run."""
    trainer.state.iteration += 1
    trainer._iteration(trainer, batch)
    return trainer.max_weight * ramp_up(trainer.state.iteration / trainer.state.epoch_length)


class SemiContract(TrainerContract):
    """Inherit, and give ``trainer`` (the class) and ``parts`` (its networks and optimizers)."""

    trainer: type[SemiSupervisedTrainer]
    scalar_keys: tuple[str, ...] = SCALARS
    networks: tuple[str, ...] = ("network",)

    def parts(self) -> dict[str, Any]:
        network = deep_segmentor()
        return {"network": network, "optimizer": adam(network)}

    def loader(self, n: int = 6, batch_size: int = 2, **options: Any) -> DataLoader:
        pairs = zip(items(n), items(n, seed=1), strict=True)
        data = [{**labelled, "unlabeled": other["image"]} for labelled, other in pairs]
        return DataLoader(data, batch_size=batch_size, **options)

    def make(self, **options: Any) -> Any:
        loader = options.pop("train_data_loader", None) or self.loader()
        defaults = {"device": "cpu", "max_epochs": 1, "train_data_loader": loader, "loss_function": LOSS}
        return self.trainer(**{**defaults, **self.parts(), **options})

    def test_handlers_attach_and_see_own_attributes_and_events(self) -> None:
        seen = []

        class Handler:
            def attach(self, engine: Any) -> None:
                seen.extend([engine.max_weight, *(getattr(engine, name) for name in own)])

        own = self.networks[1:]  # MONAI's trainer sets the first itself, after the handlers
        self.make(train_handlers=[Handler(), StatsHandler(output_transform=from_engine(["loss"], first=True))])
        assert len(seen) == len(self.networks)
        assert all(isinstance(part, nn.Module) for part in seen[1:])

    def test_a_resumed_run_equals_an_uninterrupted_one(self, tmp_path: Path) -> None:
        """The ramp spans the planned run: the one that is cut has the same plan."""

        def run(folder: str, last: int) -> list[torch.Tensor]:
            set_determinism(3)
            trainer = self.make(max_epochs=3, train_data_loader=self.loader(shuffle=True))
            SeedEpochs(0).attach(trainer)
            # What a method adds to the plain network, the trainer itself names for the checkpoint.
            plain = getattr(trainer.network, "unet", trainer.network)
            ResumeHandler(tmp_path / f"{folder}.pt", {"model": plain}).attach(trainer)
            trainer.add_event_handler(Events.EPOCH_COMPLETED(once=last), lambda e: e.terminate())
            trainer.run()
            assert trainer.state.iteration == 3 * last
            states = [s for o in trainer.optimizers.values() for s in o.state_dict()["state"].values()]
            of_networks = [w for name in self.networks for w in weights(getattr(trainer, name))]
            return [*of_networks, *(t for s in states for t in s.values())]

        whole = run("whole", 3)
        run("parts", 1)
        assert same(whole, run("parts", 3))

    def test_the_weight_is_that_of_the_ramp_and_reaches_its_end(self) -> None:
        trainer = self.make(max_epochs=2, decollate=False, max_weight=0.3)
        seen = []
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output["unsupervised_weight"].item())
        )
        trainer.start = 0.0
        trainer.run()
        assert seen == pytest.approx([0.3 * ramp_up(t / 6) for t in range(1, 7)])
        assert seen[-1] == pytest.approx(0.3)

    def test_the_loss_is_the_sum_of_its_parts(self) -> None:
        trainer = self.make(max_epochs=1, decollate=False)
        trainer.start = 0.0
        trainer.run()
        out = trainer.state.output
        expected = out["supervised_loss"] + out["unsupervised_weight"] * out["unsupervised_loss"]
        torch.testing.assert_close(out["loss"].detach(), expected)
        assert out["unsupervised_loss"] > 0

    def test_training_lowers_the_loss(self) -> None:
        """The supervised one: a discriminator's judgement need not fall. The layers can be seen in the images."""
        rows = torch.arange(32).reshape(1, -1, 1).expand(1, 32, 32) * 7 // 32
        data = [{"image": rows / 3 - 1 + 0.1 * d["image"], "label": rows, "unlabeled": d["image"]} for d in items(6)]
        trainer = self.make(max_epochs=12, decollate=False, train_data_loader=DataLoader(data, batch_size=2))
        losses = []
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["supervised_loss"].item())
        )
        trainer.run()
        assert sum(losses[-3:]) < 0.9 * sum(losses[:3])

    def test_batches_without_unlabelled_images_are_refused(self) -> None:
        trainer = self.make()
        with pytest.raises(ValueError, match="TwoStreamBatchSampler"):
            trainer._iteration(trainer, {k: v for k, v in two_streams().items() if k != "unlabeled"})

    @pytest.mark.parametrize("option", [{"max_weight": -1}, {"ramp": 0}, {"ramp": 1.5}, {"start": 1}, {"start": -0.1}])
    def test_options_outside_their_range_are_refused(self, option: dict[str, float]) -> None:
        with pytest.raises(InputError, match=next(iter(option))):
            self.make(**option)
