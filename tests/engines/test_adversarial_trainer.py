"""AdversarialJointTrainer (GRN-SEL): the contract, its iteration written out, and what it refuses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn.functional import l1_loss, mse_loss

from grn_monai.engines import AdversarialJointTrainer, JointEvents
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
)


def make_adversarial(loader: Any, cls: type[AdversarialJointTrainer] = AdversarialJointTrainer, **options: Any) -> Any:
    network = options.pop("network", None) or small_segmentor()
    generator = options.pop("generator", None) or small_generator()
    discriminator = options.pop("discriminator", None) or small_discriminator()
    both = options.get("segmentor_update", "alternate") == "joint" and options.get("s_optim") != "shared"
    defaults = {
        "device": "cpu",
        "max_epochs": 1,
        "train_data_loader": loader,
        "network": network,
        "optimizer": adam(network),
        "loss_function": LOSS,
        "generator": generator,
        "joint_optimizer": adam(generator, network) if both else adam(generator),
        "discriminator": discriminator,
        "discriminator_optimizer": adam(discriminator),
    }
    return cls(**{**defaults, **options})


class TestAlternate(TrainerContract):
    stage_events = (JointEvents.DISCRIMINATOR_COMPLETED, JointEvents.STAGE1_COMPLETED, JointEvents.STAGE2_COMPLETED)
    scalar_keys = ("loss", "stage1_loss", "loss_raw", "loss_sge", "discriminator_loss", "adversarial_loss", "l1_loss",
                   "grad_norm_generator", "grad_norm_segmentor", "grad_norm_discriminator")  # fmt: skip
    networks = ("network", "generator", "discriminator")

    def make(self, **options: Any) -> AdversarialJointTrainer:
        return make_adversarial(options.pop("train_data_loader", None) or self.loader(), **options)


class TestJoint(TestAlternate):
    scalar_keys = (*TestAlternate.scalar_keys, "grad_norm_segmentor_stage1")

    def make(self, **options: Any) -> AdversarialJointTrainer:
        return super().make(segmentor_update="joint", **options)


class TestSharedOptimizer(TestJoint):
    def make(self, **options: Any) -> AdversarialJointTrainer:
        return super().make(s_optim="shared", **options)


class TestUnshared(TestAlternate):
    def make(self, **options: Any) -> AdversarialJointTrainer:
        return super().make(share_passes=False, **options)


def double_batch(n: int = 3) -> dict[str, torch.Tensor]:
    data = items(n)
    return {
        "image": torch.stack([d["image"] for d in data]).double(),
        "label": torch.stack([d["label"] for d in data]),
    }


def twins() -> tuple[list[Any], list[Any]]:
    """G, S and D in float64, twice with the same weights."""
    torch.manual_seed(0)
    first = [small_generator().double(), small_segmentor().double(), small_discriminator().double()]
    second = [small_generator().double(), small_segmentor().double(), small_discriminator().double()]
    for a, b in zip(first, second, strict=True):
        b.load_state_dict(a.state_dict())
    return first, second


@pytest.mark.parametrize("update", ["alternate", "joint"])
@pytest.mark.parametrize("s_optim", ["separate", "shared"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("seg_weight", [100.0, 0.0, -100.0])
def test_three_iterations_equal_the_algorithm_written_out(
    update: str, s_optim: str, share: bool, seg_weight: float
) -> None:
    """GRN-SEL in plain torch, every pass by itself."""
    (generator, network, discriminator), (g, s, d) = twins()
    batch = double_batch()
    trainer = make_adversarial(
        [batch],
        generator=generator,
        network=network,
        discriminator=discriminator,
        segmentor_update=update,
        s_optim=s_optim,
        share_passes=share,
        seg_weight=seg_weight,
        decollate=False,
    )
    joint, alone, judge = adam(g, s) if (update, s_optim) == ("joint", "separate") else adam(g), adam(s), adam(d)
    x, y = batch["image"], batch["label"]
    for _ in range(3):
        trainer._iteration(trainer, batch)
        fake = g(x)
        judge.zero_grad()
        one, zero = torch.ones_like(d(x)), torch.zeros_like(d(x))
        loss_d = 0.5 * (mse_loss(d(x), one) + mse_loss(d(fake.detach()), zero))
        loss_d.backward()
        judge.step()
        for optimizer in (joint, alone):
            optimizer.zero_grad()
        adversarial, l1 = mse_loss(d(fake), one), l1_loss(fake, x)
        stage1 = adversarial + 100 * l1
        if seg_weight:
            stage1 = stage1 + seg_weight * LOSS(s(fake), y)
        stage1.backward()
        joint.step()
        if update == "joint" and s_optim == "shared" and seg_weight:
            alone.step()
        alone.zero_grad()
        raw, sge = LOSS(s(x), y), LOSS(s(fake.detach()), y)
        (0.5 * (raw + sge)).backward()
        alone.step()
        expected = {
            "discriminator_loss": loss_d,
            "adversarial_loss": adversarial,
            "l1_loss": l1,
            "stage1_loss": stage1,
            "loss_raw": raw,
            "loss_sge": sge,
            "loss": 0.5 * (raw + sge),
        }
        assert_scalars(trainer.state.output, expected)
    assert_same_weights((generator, g), (network, s), (discriminator, d))


def test_each_loss_moves_its_own_networks_only() -> None:
    batch = double_batch()
    generator, network, discriminator = twins()[0]
    trainer = make_adversarial(
        [batch], generator=generator, network=network, discriminator=discriminator, decollate=False
    )
    seen = {"start": [parameters(m) for m in (generator, network, discriminator)]}
    for event in (JointEvents.DISCRIMINATOR_COMPLETED, JointEvents.STAGE1_COMPLETED, JointEvents.STAGE2_COMPLETED):
        trainer.add_event_handler(
            event,
            lambda _, e=event: seen.update({e.value: [parameters(m) for m in (generator, network, discriminator)]}),
        )
    trainer._iteration(trainer, batch)
    moments = list(seen.values())
    moved = [tuple(not same(a, b) for a, b in zip(before, after, strict=True)) for before, after in pairwise(moments)]
    assert moved == [(False, False, True), (True, False, False), (False, True, False)]
    assert all(p.requires_grad for m in (generator, network, discriminator) for p in m.parameters())


def test_gradients_of_d_are_those_of_its_own_loss() -> None:
    batch = double_batch()
    generator, network, discriminator = twins()[0]
    parts = {"generator": generator, "network": network, "discriminator": discriminator}
    trainer = make_adversarial([batch], **parts, decollate=False)
    seen: list[list[torch.Tensor]] = []

    def remember(_: Any) -> None:
        seen.append([p.grad.clone() for p in discriminator.parameters()])

    for event in (JointEvents.DISCRIMINATOR_COMPLETED, JointEvents.STAGE2_COMPLETED):
        trainer.add_event_handler(event, remember)
    trainer._iteration(trainer, batch)
    assert same(*seen)


@pytest.mark.parametrize("scales", [(65536.0, 64.0), (4.0, 4096.0)])
def test_shared_pass_with_scaled_losses(scales: tuple[float, float]) -> None:
    """The loss of S is scaled for its optimizer; what flows on to G has to have the scale of G's."""
    batch = double_batch()
    results = []
    for share in (True, False):
        generator, network, discriminator = twins()[0]
        parts = {"generator": generator, "network": network, "discriminator": discriminator}
        trainer = make_adversarial([batch], **parts, share_passes=share, decollate=False)
        trainer.state.optimizer_scaler = torch.amp.GradScaler("cpu", init_scale=scales[0])
        trainer.state.joint_scaler = torch.amp.GradScaler("cpu", init_scale=scales[1])
        trainer._iteration(trainer, batch)
        results.append([p.grad.clone() for p in (*generator.parameters(), *network.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


def test_shared_pass_that_overflows_steps_neither_network() -> None:
    batch = {k: v.float() if v.is_floating_point() else v for k, v in double_batch().items()}
    generator, network, discriminator = (module.float() for module in twins()[0])
    parts = {"generator": generator, "network": network, "discriminator": discriminator}
    trainer = make_adversarial([batch], **parts, loss_function=lambda x, y: 1e5 * LOSS(x, y), decollate=False)
    trainer.state.optimizer_scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    trainer.state.joint_scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    before = parameters(generator) + parameters(network)
    trainer._iteration(trainer, batch)
    assert same(before, parameters(generator) + parameters(network))
    assert trainer.state.optimizer_scaler.get_scale() == pytest.approx(1.5e38)
    assert trainer.state.joint_scaler.get_scale() == pytest.approx(1.5e38)


def test_alternate_runs_s_once_and_joint_twice() -> None:
    batch = double_batch()
    for options, expected in (
        ({}, [6]),
        ({"share_passes": False}, [3, 6]),
        ({"segmentor_update": "joint"}, [3, 6]),
        ({"refresh_generated": True}, [3, 6]),
        ({"segmentor_update": "joint", "seg_weight": 0.0}, [6]),
    ):
        generator, network, discriminator = twins()[0]
        sizes: list[int] = []
        network.register_forward_pre_hook(lambda _, args, sizes=sizes: sizes.append(len(args[0])))
        trainer = make_adversarial(
            [batch], generator=generator, network=network, discriminator=discriminator, decollate=False, **options
        )
        trainer._iteration(trainer, batch)
        assert sizes == expected, options


def test_without_feedback_s_does_not_step_on_the_loss_of_g() -> None:
    batch = double_batch()
    generator, network, discriminator = twins()[0]
    trainer = make_adversarial(
        [batch],
        generator=generator,
        network=network,
        discriminator=discriminator,
        segmentor_update="joint",
        seg_weight=0.0,
        decollate=False,
    )
    before = parameters(network)
    trainer.add_event_handler(JointEvents.STAGE1_COMPLETED, lambda _: moments.append(parameters(network)))
    moments: list[Any] = []
    trainer._iteration(trainer, batch)
    assert same(before, moments[0])


def test_without_adversarial_weight_d_is_left_alone() -> None:
    batch = double_batch()
    generator, network, discriminator = twins()[0]
    trainer = make_adversarial(
        [batch], generator=generator, network=network, discriminator=discriminator, adv_weight=0.0, decollate=False
    )
    discriminator.register_forward_pre_hook(lambda *_: pytest.fail("D ran"))
    trainer._iteration(trainer, batch)
    assert "discriminator_loss" not in trainer.state.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"adv_weight": -1}, "adv_weight: found -1; expected a number from 0"),
        ({"l1_weight": -0.5}, "l1_weight: found -0.5"),
        ({"l1_weight": float("nan")}, "l1_weight: found nan"),
        ({"seg_weight": 0, "adv_weight": 0, "l1_weight": 0}, "expected a loss for the generator"),
        ({"s_optim": "one"}, "s_optim"),
        ({"adv_weight": "much"}, "adv_weight: found 'much'"),
        ({"seg_weight": "x"}, "seg_weight: found 'x'; expected a number"),
        ({"seg_weight": float("nan")}, "seg_weight: found nan"),
        ({"segmentor_update": "both"}, "segmentor_update"),
    ],
)
def test_bad_options(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_adversarial([], **options)


def test_optimizers_with_the_wrong_parameters_are_refused() -> None:
    generator, network, discriminator = twins()[0]
    parts = {"generator": generator, "network": network, "discriminator": discriminator}
    with pytest.raises(ValueError, match=r"`discriminator_optimizer` has to step `discriminator`"):
        make_adversarial([], **parts, discriminator_optimizer=adam(small_discriminator()))
    with pytest.raises(ValueError, match="`discriminator_optimizer` must not step `generator`"):
        make_adversarial([], **parts, discriminator_optimizer=adam(discriminator, generator))
    with pytest.raises(ValueError, match="`joint_optimizer` must not step `discriminator`"):
        make_adversarial([], **parts, joint_optimizer=adam(generator, discriminator))
    with pytest.raises(ValueError, match="`joint_optimizer` must not step `network`"):
        make_adversarial(
            [], **parts, joint_optimizer=adam(generator, network), segmentor_update="joint", s_optim="shared"
        )
