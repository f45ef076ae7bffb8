"""SemiSupervisedJointTrainer (GRN-SSL): the contract, both phases written out, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import l1_loss, mse_loss
from torch.utils.data import DataLoader

from grn_monai.engines import JointEvents, SemiSupervisedJointTrainer
from grn_monai.engines._phases import ConsistencyPhase
from grn_monai.errors import InputError
from grn_monai.losses import Interpolation
from tests.engines.contract import (
    LOSS,
    TrainerContract,
    adam,
    assert_same_weights,
    assert_scalars,
    items,
    parameters,
    same,
    weights,
)
from tests.engines.test_adversarial_trainer import make_adversarial, twins


def make_ssl(loader: Any, **options: Any) -> SemiSupervisedJointTrainer:
    return make_adversarial(loader, SemiSupervisedJointTrainer, **options)


class TestAlternate(TrainerContract):
    stage_events = tuple(JointEvents)
    scalar_keys = (
        "loss", "stage1_loss", "loss_raw", "loss_sge", "l1_loss", "grad_norm_generator", "grad_norm_segmentor",
        "unlabeled_loss", "unlabeled_stage1_loss", "unlabeled_loss_raw", "unlabeled_loss_sge", "unlabeled_l1_loss",
        "unlabeled_discriminator_loss", "unlabeled_adversarial_loss", "unlabeled_grad_norm_discriminator",
    )  # fmt: skip
    networks = ("network", "generator", "discriminator")

    def loader(self, n: int = 6, batch_size: int = 2, **options: Any) -> DataLoader:
        pairs = zip(items(n), items(n, seed=1), strict=True)
        data = [{**labelled, "unlabeled": other["image"]} for labelled, other in pairs]
        return DataLoader(data, batch_size=batch_size, **options)

    def make(self, **options: Any) -> SemiSupervisedJointTrainer:
        return make_ssl(options.pop("train_data_loader", None) or self.loader(), **options)


class TestJoint(TestAlternate):
    def make(self, **options: Any) -> SemiSupervisedJointTrainer:
        return super().make(segmentor_update="joint", **options)


class TestTargetGradients(TestAlternate):
    def make(self, **options: Any) -> SemiSupervisedJointTrainer:
        return super().make(target_grad=True, mix_per="batch", refresh_generated=True, **options)


def ssl_batch(labelled: int = 2, unlabelled: int = 4) -> dict[str, torch.Tensor]:
    first, second = items(labelled), items(unlabelled, seed=1)
    return {
        "image": torch.stack([d["image"] for d in first]).double(),
        "label": torch.stack([d["label"] for d in first]),
        "unlabeled": torch.stack([d["image"] for d in second]).double(),
    }


@pytest.mark.parametrize("update", ["alternate", "joint"])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize(
    ("target_grad", "seg_weight", "refresh", "s_optim"),
    [
        (False, 100.0, False, "separate"),
        (True, 100.0, False, "separate"),
        (False, 0.0, False, "separate"),
        (False, -100.0, False, "separate"),
        (False, 100.0, True, "separate"),
        (True, 100.0, True, "shared"),
        (False, 100.0, False, "shared"),
    ],
)
def test_two_iterations_equal_the_algorithm_written_out(
    update: str,
    share: bool,
    target_grad: bool,
    seg_weight: float,
    refresh: bool,
    s_optim: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GRN-SSL in plain torch, every pass by itself."""
    pairs = Interpolation(torch.tensor([2, 0, 3, 1]), torch.tensor([0.9, 0.3, 0.5, 0.05]).double())
    monkeypatch.setattr(Interpolation, "draw", classmethod(lambda *_: pairs))
    (generator, network, discriminator), (g, s, d) = twins()
    batch = ssl_batch()
    trainer = make_ssl(
        [batch],
        generator=generator,
        network=network,
        discriminator=discriminator,
        segmentor_update=update,
        share_passes=share,
        target_grad=target_grad,
        seg_weight=seg_weight,
        consistency_weight=3.0,
        refresh_generated=refresh,
        s_optim=s_optim,
        decollate=False,
    )
    both = update == "joint" and s_optim == "separate"
    joint, alone, judge = adam(g, s) if both else adam(g), adam(s), adam(d)

    def step_on_generator_loss(loss: torch.Tensor, reaches_s: bool) -> None:
        joint.zero_grad()
        alone.zero_grad()
        loss.backward()
        joint.step()
        if update == "joint" and s_optim == "shared" and reaches_s:
            alone.step()

    x, y, u = batch["image"], batch["label"], batch["unlabeled"]

    def target(p: torch.Tensor) -> torch.Tensor:
        return pairs.mix(p) if target_grad else pairs.mix(p).detach()

    for _ in range(2):
        trainer._iteration(trainer, batch)
        # phase 1: labelled, no D
        fake = g(x)
        stage1 = 100 * l1_loss(fake, x)
        if seg_weight:
            stage1 = stage1 + seg_weight * LOSS(s(fake), y)
        step_on_generator_loss(stage1, seg_weight != 0)
        if refresh:
            fake = g(x)
        alone.zero_grad()
        loss = 0.5 * (LOSS(s(x), y) + LOSS(s(fake.detach()), y))
        loss.backward()
        alone.step()
        # phase 2: unlabelled
        fake, fake_mix = g(u), g(pairs.mix(u))
        judge.zero_grad()
        one, zero = torch.ones_like(d(u)), torch.zeros_like(d(u))
        loss_d = 0.5 * (mse_loss(d(u), one) + mse_loss(d(fake.detach()), zero))
        loss_d.backward()
        judge.step()
        ict = mse_loss(s(fake_mix).softmax(1), target(s(fake).softmax(1)))
        step_on_generator_loss(mse_loss(d(fake), one) + 3 * ict + 100 * l1_loss(fake, u), True)
        if refresh:
            fake, fake_mix = g(u), g(pairs.mix(u))
        alone.zero_grad()
        raw = mse_loss(s(pairs.mix(u)).softmax(1), target(s(u).softmax(1)))
        sge = mse_loss(s(fake_mix.detach()).softmax(1), target(s(fake.detach()).softmax(1)))
        (0.5 * (raw + sge)).backward()
        alone.step()
        expected = {
            "stage1_loss": stage1,
            "loss": loss,
            "unlabeled_discriminator_loss": loss_d,
            "unlabeled_loss_raw": raw,
            "unlabeled_loss_sge": sge,
            "unlabeled_loss": 0.5 * (raw + sge),
        }
        assert_scalars(trainer.state.output, expected)
    assert_same_weights((generator, g), (network, s), (discriminator, d))


def test_the_options_reach_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    draw = Interpolation.draw

    def spy(*args: Any) -> Interpolation:
        seen.append(args)
        return draw(*args)

    monkeypatch.setattr(Interpolation, "draw", spy)
    single = {k: v.float() if v.is_floating_point() else v for k, v in ssl_batch().items()}
    trainer = make_ssl([single], alpha=0.7, mix_per="batch", decollate=False)
    trainer._iteration(trainer, single)
    assert seen == [(4, 0.7, "batch", torch.device("cpu"))]


def test_unlabelled_images_get_the_type_of_labelled_ones() -> None:
    generator, network, discriminator = twins()[0]
    single = {k: v.float() if v.is_floating_point() else v for k, v in ssl_batch().items()}
    parts = {"generator": generator, "network": network, "discriminator": discriminator}
    trainer = make_ssl([single], **parts, to_kwargs={"dtype": torch.float64}, decollate=False)
    trainer._iteration(trainer, single)
    assert trainer.state.output["unlabeled_loss"].dtype == torch.float64


def test_a_linear_segmentor_behind_the_identity_is_consistent() -> None:
    """What the loss asks for is met by a network that is linear in its image: here a probability ramp."""

    class Linear(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            p = 0.1 + 0.8 * (x + 1) / 2
            return torch.cat((p, 1 - p), dim=1).log()

    torch.manual_seed(0)
    u = torch.rand(4, 1, 8, 8, dtype=torch.float64) * 2 - 1
    phase = ConsistencyPhase(u, Interpolation.draw(4))
    network = Linear()

    def segment(images: Any, grad: bool = True) -> list[torch.Tensor]:
        return [network(x) for x in images]

    for output in phase.forward(segment, [phase.raw, phase.generate(nn.Identity())]):
        assert phase.loss(output).item() == pytest.approx(0, abs=1e-12)


def test_mixtures_stay_out_of_the_statistics_of_g() -> None:
    (generator, _, _), (reference, _, _) = twins()
    u = ssl_batch()["unlabeled"]
    generator.train()
    reference.train()
    ConsistencyPhase(u, Interpolation.draw(4)).generate(generator)
    reference(u)
    for (name, a), b in zip(generator.state_dict().items(), weights(reference), strict=True):
        if "num_batches" not in name:
            torch.testing.assert_close(a, b)


def test_targets_cost_no_gradient_and_passes_are_shared() -> None:
    batch = ssl_batch()
    for options, expected in (
        ({}, [4, 8, 8]),  # labelled raw+sge; targets of both; mixtures of both
        ({"segmentor_update": "joint"}, [2, 4, 4, 4, 8, 8]),
        ({"target_grad": True}, [4, 16]),
    ):
        generator, network, discriminator = twins()[0]
        sizes: list[int] = []
        network.register_forward_pre_hook(lambda _, args, sizes=sizes: sizes.append(len(args[0])))
        trainer = make_ssl(
            [batch], generator=generator, network=network, discriminator=discriminator, decollate=False, **options
        )
        trainer._iteration(trainer, batch)
        assert sizes == expected, options


def test_d_sees_unlabelled_images_only() -> None:
    batch = ssl_batch(2, 4)
    generator, network, discriminator = twins()[0]
    sizes: list[int] = []
    discriminator.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    trainer = make_ssl([batch], generator=generator, network=network, discriminator=discriminator, decollate=False)
    before = parameters(discriminator)
    trainer._iteration(trainer, batch)
    assert sizes == [4, 4, 4]
    assert not same(before, parameters(discriminator))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"consistency_weight": -1}, "consistency_weight: found -1"),
        ({"alpha": 0}, "alpha: found 0"),
        ({"mix_per": "pixel"}, "mix_per"),
        ({"stages": 1}, "stages: found 1; expected 2"),
        ({"seg_weight": 0, "l1_weight": 0}, "labelled images"),
        ({"consistency_weight": 0, "adv_weight": 0, "l1_weight": 0}, "unlabelled images"),
    ],
)
def test_bad_options(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_ssl([], **options)


def test_batches_without_pairs_are_refused() -> None:
    trainer = make_ssl([], decollate=False)
    one = {k: v.float() if v.is_floating_point() else v for k, v in ssl_batch(2, 1).items()}
    with pytest.raises(ValueError, match="found 1 unlabelled image"):
        trainer._iteration(trainer, one)
    del one["unlabeled"]
    with pytest.raises(ValueError, match="TwoStreamBatchSampler"):
        trainer._iteration(trainer, one)
