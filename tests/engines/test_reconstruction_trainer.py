"""ReconstructionTrainer and WithReconstructions (GAN augmentation): the contract, and their steps written out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch.nn.functional import l1_loss, mse_loss

from grn_monai.engines import ReconstructionTrainer, WithReconstructions
from grn_monai.errors import InputError
from tests.engines.contract import (
    LOSS,
    TrainerContract,
    adam,
    assert_same_weights,
    assert_scalars,
    items,
    parameters,
    same,
    small_discriminator,
    small_generator,
    small_segmentor,
    weights,
)


def make_trainer(loader: Any, **options: Any) -> ReconstructionTrainer:
    generator = options.pop("generator", None) or small_generator()
    discriminator = options.pop("discriminator", None) or small_discriminator()
    defaults = {
        "device": "cpu",
        "max_epochs": 1,
        "train_data_loader": loader,
        "generator": generator,
        "generator_optimizer": adam(generator),
        "discriminator": discriminator,
        "discriminator_optimizer": adam(discriminator),
    }
    return ReconstructionTrainer(**{**defaults, **options})


class TestReconstruction(TrainerContract):
    scalar_keys = ("loss", "discriminator_loss", "adversarial_loss", "l1_loss", "grad_norm_generator",
                   "grad_norm_discriminator")  # fmt: skip
    networks = ("generator", "discriminator")

    def make(self, **options: Any) -> ReconstructionTrainer:
        return make_trainer(options.pop("train_data_loader", None) or self.loader(), **options)

    # The contract speaks of S; here there is none.

    def test_handlers_attach_and_see_own_attributes_and_events(self) -> None:
        seen = []

        class Handler:
            def attach(self, engine: Any) -> None:
                seen.extend([engine.generator, engine.discriminator, engine.l1_weight, engine.optimizers])

        self.make(train_handlers=[Handler()])
        assert seen[2] == 100

    def test_decollation_gives_one_item_a_labelled_image(self) -> None:
        trainer = self.make(max_epochs=1)
        trainer.run()
        assert len(trainer.state.output) == 2
        assert set(self.scalar_keys) <= set(trainer.state.output[0])
        assert trainer.state.output[0]["generated"].shape == (1, 32, 32)

    def test_bfloat16_on_the_cpu_trains_and_reports_float32_losses(self) -> None:
        trainer = self.make(amp=True, decollate=False, max_epochs=2)
        before = {name: weights(getattr(trainer, name)) for name in self.networks}
        trainer.run()
        assert {v.dtype for v in trainer.state.output.values()} == {torch.float32}
        for name in self.networks:
            assert not same(before[name], weights(getattr(trainer, name)))

    def test_bfloat16_agrees_with_float32(self) -> None:
        losses = []
        for amp in (False, True):
            torch.manual_seed(0)
            trainer = self.make(amp=amp, decollate=False, max_epochs=1)
            trainer.run()
            losses.append(trainer.state.output["l1_loss"].item())
        assert losses[0] == pytest.approx(losses[1], rel=0.02)

    def test_float16_scales_the_loss_and_keeps_its_scalers_in_the_state(self) -> None:
        options = {"amp": True, "amp_kwargs": {"dtype": torch.float16}, "decollate": False, "max_epochs": 1}
        trainer = self.make(**options)
        trainer.run()
        scalers = {k: v for k, v in vars(trainer.state).items() if isinstance(v, torch.amp.GradScaler)}
        assert len(scalers) == len(trainer.optimizers)
        assert all(scaler.is_enabled() for scaler in scalers.values())
        out = trainer.state.output
        torch.testing.assert_close(out["loss"].detach(), out["adversarial_loss"] + 100 * out["l1_loss"])  # unscaled
        fresh = self.make(**options)
        state = trainer.state_dict()
        for name in scalers:
            state[name] = {**state[name], "scale": 128.0}
        fresh.load_state_dict(state)
        assert all(getattr(fresh.state, name).get_scale() == 128.0 for name in scalers)

    @pytest.mark.parametrize("option", ["accumulation_steps", "compile"])
    def test_what_is_not_supported_is_refused_with_the_mend(self, option: str) -> None:
        with pytest.raises(TypeError, match=option):
            self.make(**{option: 2})


def batch(n: int = 3, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    data = items(n)
    return {
        "image": torch.stack([d["image"] for d in data]).to(dtype),
        "label": torch.stack([d["label"] for d in data]),
    }


def twins() -> tuple[list[Any], list[Any]]:
    """G and D in float64, twice with the same weights."""
    torch.manual_seed(0)
    first = [small_generator().double(), small_discriminator().double()]
    second = [small_generator().double(), small_discriminator().double()]
    for a, b in zip(first, second, strict=True):
        b.load_state_dict(a.state_dict())
    return first, second


@pytest.mark.parametrize(("adv_weight", "l1_weight"), [(1.0, 100.0), (2.0, 0.0), (0.0, 3.0)])
def test_three_iterations_equal_the_method_written_out(adv_weight: float, l1_weight: float) -> None:
    """Gradients and weights of plain torch, every pass by itself."""
    (generator, discriminator), (g, d) = twins()
    trainer = make_trainer(
        [batch()],
        generator=generator,
        discriminator=discriminator,
        adv_weight=adv_weight,
        l1_weight=l1_weight,
        decollate=False,
    )
    of_g, of_d = adam(g), adam(d)
    x = batch()["image"]
    for _ in range(3):
        trainer._iteration(trainer, batch())
        fake = g(x)
        if adv_weight:
            of_d.zero_grad()
            one, zero = torch.ones_like(d(x)), torch.zeros_like(d(x))
            loss_d = 0.5 * (mse_loss(d(x), one) + mse_loss(d(fake.detach()), zero))
            loss_d.backward()
            gradients_d = [p.grad.clone() for p in d.parameters()]
            of_d.step()
        of_g.zero_grad()
        terms = {}
        if adv_weight:
            terms["adversarial_loss"] = mse_loss(d(fake), one)
        if l1_weight:
            terms["l1_loss"] = l1_loss(fake, x)
        loss_g = adv_weight * terms.get("adversarial_loss", 0) + l1_weight * terms.get("l1_loss", 0)
        loss_g.backward()
        for p, q in zip(generator.parameters(), g.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-9)
        if adv_weight:
            terms["discriminator_loss"] = loss_d
            for p, gradient in zip(discriminator.parameters(), gradients_d, strict=True):
                torch.testing.assert_close(p.grad, gradient, rtol=1e-6, atol=1e-9)
        of_g.step()
        assert_scalars(trainer.state.output, {**terms, "loss": loss_g})
    assert_same_weights((generator, g), (discriminator, d))
    if not adv_weight:
        assert same(parameters(discriminator), parameters(twins()[0][1]))
        assert "discriminator_loss" not in trainer.state.output


def test_each_step_moves_its_own_network_only() -> None:
    """D moves between FORWARD and LOSS, G after BACKWARD."""
    generator, discriminator = twins()[0]
    trainer = make_trainer([batch()], generator=generator, discriminator=discriminator, decollate=False)
    moments = [[parameters(m) for m in (generator, discriminator)]]
    for event in (
        IterationEvents.FORWARD_COMPLETED,
        IterationEvents.LOSS_COMPLETED,
        IterationEvents.BACKWARD_COMPLETED,
        IterationEvents.MODEL_COMPLETED,
    ):
        trainer.add_event_handler(event, lambda _: moments.append([parameters(m) for m in (generator, discriminator)]))
    trainer._iteration(trainer, batch())
    moved = [tuple(not same(a, b) for a, b in zip(before, after, strict=True)) for before, after in pairwise(moments)]
    assert moved == [(False, False), (False, True), (False, False), (True, False)]
    assert all(p.requires_grad for m in (generator, discriminator) for p in m.parameters())


def test_labels_are_not_needed() -> None:
    images = [{"image": item["image"]} for item in items(4)]
    trainer = make_trainer(torch.utils.data.DataLoader(images, batch_size=2))
    trainer.run()
    assert trainer.state.iteration == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"adv_weight": -1}, "adv_weight: found -1; expected a number from 0"),
        ({"l1_weight": -0.5}, "l1_weight: found -0.5; expected a number from 0"),
        ({"l1_weight": float("nan")}, "l1_weight: found nan"),
        ({"adv_weight": 0, "l1_weight": 0}, "a loss for the generator"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_trainer([], **options)


def test_optimizers_with_the_wrong_parameters_are_refused() -> None:
    generator, discriminator = twins()[0]
    parts = {"generator": generator, "discriminator": discriminator}
    with pytest.raises(ValueError, match="`generator_optimizer` has to step `generator`"):
        make_trainer([], **parts, generator_optimizer=adam(small_generator()))
    with pytest.raises(ValueError, match="`generator_optimizer` must not step `discriminator`"):
        make_trainer([], **parts, generator_optimizer=adam(generator, discriminator))
    with pytest.raises(ValueError, match="`discriminator_optimizer` must not step `generator`"):
        make_trainer([], **parts, discriminator_optimizer=adam(generator, discriminator))


def test_the_doubled_batch_holds_images_and_reconstructions_under_the_same_labels() -> None:
    generator = twins()[0][0]
    data = batch()
    x, y = data["image"], data["label"]
    prepare = WithReconstructions(generator)
    generator.train()
    before = weights(generator)
    images, labels = prepare({**data, "image": MetaTensor(x)}, "cpu")
    assert images.shape == (6, 1, 32, 32)
    assert type(images) is type(labels) is torch.Tensor
    torch.testing.assert_close(images[:3], x, rtol=0, atol=0)
    torch.testing.assert_close(labels, torch.cat((y, y)), rtol=0, atol=0)
    assert not images.requires_grad
    assert not generator.training
    assert same(before, weights(generator))  # BatchNorm's statistics too
    alone, _ = prepare({"image": x[:1], "label": y[:1]})
    torch.testing.assert_close(alone[1], images[3])  # whatever else is in the batch


def test_training_on_the_doubled_batch_is_the_mean_of_both_losses() -> None:
    """½ [Dice(S(x), y) + Dice(S(G(x)), y)] and its gradients, and G as it was."""
    generator = twins()[0][0].eval()
    network, reference = small_segmentor().double(), small_segmentor().double()
    reference.load_state_dict(network.state_dict())
    before = weights(generator)
    x, y = batch()["image"], batch()["label"]
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch()],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=LOSS,
        prepare_batch=WithReconstructions(generator),
        decollate=False,
    )
    losses = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda e: losses.append(e.state.output["loss"].detach()))
    trainer.run()
    expected = 0.5 * (LOSS(reference(x), y) + LOSS(reference(generator(x).detach()), y))
    expected.backward()
    torch.testing.assert_close(losses[0], expected.detach(), rtol=1e-12, atol=0)
    for p, q in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)
    assert same(before, weights(generator))
    assert all(p.grad is None for p in generator.parameters())
