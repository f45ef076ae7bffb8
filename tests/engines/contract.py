"""The trainer contract of docs/architecture.md, inherited by the tests of every joint trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.handlers import StatsHandler, from_engine
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.utils import set_determinism
from torch import nn
from torch.utils.data import DataLoader

from grn_monai.handlers import ResumeHandler, SeedEpochs
from grn_monai.networks import PatchDiscriminator, ResNetGenerator

MONAI_EVENTS = (
    IterationEvents.FORWARD_COMPLETED,
    IterationEvents.LOSS_COMPLETED,
    IterationEvents.BACKWARD_COMPLETED,
    IterationEvents.MODEL_COMPLETED,
)


def items(n: int = 6, size: int = 32, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Random images in [-1, 1] with labels 0..6."""
    rng = torch.Generator().manual_seed(seed)
    return [
        {
            "image": torch.rand(1, size, size, generator=rng) * 2 - 1,
            "label": torch.randint(0, 7, (1, size, size), generator=rng),
        }
        for _ in range(n)
    ]


def small_segmentor() -> nn.Module:
    return UNet(2, 1, 7, (4, 8, 8), (2, 2))


def small_generator() -> nn.Module:
    return ResNetGenerator(base_channels=4)


def small_discriminator() -> PatchDiscriminator:
    return PatchDiscriminator(channels=4, num_layers=2)


def adam(*modules: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam([p for m in modules for p in m.parameters()], lr=2e-3, betas=(0.5, 0.999))


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [t.detach().clone() for t in module.state_dict().values()]


def parameters(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def assert_scalars(output: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """The scalars of an iteration are those of the algorithm written out, in float64."""
    for key, value in expected.items():
        torch.testing.assert_close(output[key].detach(), value.detach(), rtol=1e-6, atol=1e-9, msg=key)


def assert_same_weights(*pairs: tuple[nn.Module, nn.Module]) -> None:
    """Trained networks have the weights of their references, in float64 after some steps of Adam."""
    for mine, reference in pairs:
        for a, b in zip(parameters(mine), parameters(reference), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class TrainerContract:
    """Inherit, and give ``make`` (a small trainer) and ``stage_events`` (own events, once an iteration each)."""

    stage_events: tuple[Any, ...] = ()
    scalar_keys: tuple[str, ...] = ("loss",)
    networks: tuple[str, ...] = ("network", "generator")

    def make(self, **options: Any) -> Any:
        raise NotImplementedError

    def loader(self, n: int = 6, batch_size: int = 2, **options: Any) -> DataLoader:
        return DataLoader(items(n), batch_size=batch_size, **options)

    @pytest.fixture(autouse=True)
    def _seed(self) -> Any:
        set_determinism(0)
        yield
        set_determinism(None)

    def test_handlers_attach_and_see_own_attributes_and_events(self) -> None:
        seen = []

        class Handler:
            def attach(self, engine: Any) -> None:
                seen.extend([engine.generator, engine.segmentor_update])
                for event in TrainerContract.stage_events_of(outer):
                    engine.add_event_handler(event, lambda e: None)

        outer = self
        self.make(train_handlers=[Handler(), StatsHandler(output_transform=from_engine(["loss"], first=True))])
        assert seen[0] is not None

    @staticmethod
    def stage_events_of(test: TrainerContract) -> tuple[Any, ...]:
        return test.stage_events

    def test_the_callers_list_of_events_is_left_alone(self) -> None:
        names: list[Any] = ["extra_event"]
        trainer = self.make(event_names=names)
        assert names == ["extra_event"]
        assert trainer.has_registered_events("extra_event")

    def test_every_event_fires_once_an_iteration_in_order(self) -> None:
        trainer = self.make(max_epochs=1)
        fired: list[Any] = []
        for event in (*MONAI_EVENTS, *self.stage_events):
            trainer.add_event_handler(event, lambda _, e=event: fired.append(e))
        trainer.run()
        n = trainer.state.iteration
        assert n == 3
        assert {e: fired.count(e) for e in fired} == dict.fromkeys((*MONAI_EVENTS, *self.stage_events), n)
        monai_events = [e for e in fired if e in MONAI_EVENTS]
        assert monai_events == list(MONAI_EVENTS) * n

    def test_output_is_filled_in_place_and_returned(self) -> None:
        trainer = self.make(decollate=False, max_epochs=1)
        seen = []
        trainer.add_event_handler(IterationEvents.FORWARD_COMPLETED, lambda e: seen.append(id(e.state.output)))
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(id(e.state.output)))
        trainer.run()
        assert all(a == b for a, b in zip(seen[::2], seen[1::2], strict=True))

    def test_output_holds_labelled_batches_and_scalars_only(self) -> None:
        trainer = self.make(decollate=False, max_epochs=1)
        trainer.run()
        for key, value in trainer.state.output.items():
            assert isinstance(value, torch.Tensor), key
            assert value.ndim == 0 or value.shape[0] == 2, key
        for key in self.scalar_keys:
            assert trainer.state.output[key].ndim == 0
            assert torch.isfinite(trainer.state.output[key])

    def test_decollation_gives_one_item_a_labelled_image(self) -> None:
        trainer = self.make(max_epochs=1)
        trainer.run()
        assert len(trainer.state.output) == 2
        assert set(self.scalar_keys) <= set(trainer.state.output[0])
        assert trainer.state.output[0]["pred"].shape == (7, 32, 32)

    @pytest.mark.parametrize("to_none", [True, False])
    def test_gradients_are_cleared_the_way_that_is_asked(self, to_none: bool) -> None:
        trainer = self.make(optim_set_to_none=to_none, max_epochs=1)
        seen = []
        for optimizer in trainer.optimizers.values():
            original = optimizer.zero_grad
            optimizer.zero_grad = lambda set_to_none=True, f=original: (seen.append(set_to_none), f(set_to_none))
        trainer.run()
        assert len(seen) >= len(trainer.optimizers)
        assert set(seen) == {to_none}

    def test_bfloat16_on_the_cpu_trains_and_reports_float32_losses(self) -> None:
        trainer = self.make(amp=True, decollate=False, max_epochs=2)
        before = {name: weights(getattr(trainer, name)) for name in self.networks}
        trainer.run()
        assert trainer.state.output["pred"].dtype == torch.bfloat16
        assert trainer.state.output["loss"].dtype == torch.float32
        for name in self.networks:
            assert not same(before[name], weights(getattr(trainer, name)))

    def test_bfloat16_agrees_with_float32(self) -> None:
        losses = []
        for amp in (False, True):
            set_determinism(0)
            trainer = self.make(amp=amp, decollate=False, max_epochs=1)
            trainer.run()
            losses.append(trainer.state.output["loss"].item())
        assert losses[0] == pytest.approx(losses[1], abs=0.02)

    def test_float16_scales_the_loss_and_keeps_its_scalers_in_the_state(self) -> None:
        trainer = self.make(amp=True, amp_kwargs={"dtype": torch.float16}, decollate=False, max_epochs=1)
        trainer.run()
        scalers = {k: v for k, v in vars(trainer.state).items() if isinstance(v, torch.amp.GradScaler)}
        assert len(scalers) == len(trainer.optimizers)
        for scaler in scalers.values():
            assert scaler.is_enabled()
        fresh = self.make(amp=True, amp_kwargs={"dtype": torch.float16}, max_epochs=1)
        state = trainer.state_dict()
        for name in scalers:
            state[name] = {**state[name], "scale": 128.0}
        fresh.load_state_dict(state)
        assert all(getattr(fresh.state, name).get_scale() == 128.0 for name in scalers)
        assert 0 < trainer.state.output["loss"].item() < 1  # unscaled

    def test_state_dict_holds_tensors_and_numbers_and_goes_round(self, tmp_path: Any) -> None:
        trainer = self.make(max_epochs=1)
        trainer.run()
        torch.save(trainer.state_dict(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        fresh = self.make(max_epochs=1)
        fresh.load_state_dict(state)
        assert fresh.state.iteration == trainer.state.iteration
        assert all(isinstance(v, torch.amp.GradScaler) for k, v in vars(fresh.state).items() if k.endswith("_scaler"))

    def test_a_second_run_goes_on(self) -> None:
        trainer = self.make(max_epochs=1)
        trainer.run()
        trainer.state.max_epochs = 2
        trainer.run()
        assert trainer.state.iteration == 6

    def test_same_seed_same_weights(self) -> None:
        results = []
        for _ in range(2):
            set_determinism(7)
            trainer = self.make(max_epochs=2)
            trainer.run()
            results.append([w for name in self.networks for w in weights(getattr(trainer, name))])
        assert same(*results)

    def test_a_resumed_run_equals_an_uninterrupted_one(self, tmp_path: Path) -> None:
        def run(folder: str, epochs: int) -> list[torch.Tensor]:
            set_determinism(3)
            loader = self.loader(shuffle=True)
            trainer = self.make(max_epochs=epochs, train_data_loader=loader)
            SeedEpochs(0).attach(trainer)
            modules = {name: getattr(trainer, name) for name in self.networks}
            ResumeHandler(tmp_path / f"{folder}.pt", modules).attach(trainer)
            trainer.run()
            states = [s for o in trainer.optimizers.values() for s in o.state_dict()["state"].values()]
            of_networks = [w for module in modules.values() for w in weights(module)]
            return [*of_networks, *(t for s in states for t in s.values())]

        whole = run("whole", 3)
        run("parts", 1)
        assert same(whole, run("parts", 3))

    @pytest.mark.parametrize(
        ("options", "mend"), [({"accumulation_steps": 2}, "batch size"), ({"compile": True}, r"network\.compile\(\)")]
    )
    def test_what_is_not_supported_is_refused_with_the_mend(self, options: dict[str, Any], mend: str) -> None:
        with pytest.raises(ValueError, match=mend):
            self.make(**options)

    def test_none_batch_is_refused(self) -> None:
        trainer = self.make()
        with pytest.raises(ValueError, match="batch data"):
            trainer._iteration(trainer, None)

    def test_training_lowers_the_loss(self) -> None:
        trainer = self.make(max_epochs=50, decollate=False)
        losses = []
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"].item()))
        trainer.run()
        assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


LOSS = DiceLoss(softmax=True, to_onehot_y=True)
__all__ = [
    "LOSS",
    "TrainerContract",
    "adam",
    "assert_same_weights",
    "assert_scalars",
    "items",
    "parameters",
    "same",
    "small_discriminator",
    "small_generator",
    "small_segmentor",
    "weights",
]
