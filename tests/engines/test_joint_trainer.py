"""JointTrainer: the contract, and the gradients of both stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from grn_monai.engines import JointEvents, JointTrainer
from grn_monai.engines._common import grad_norm
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
    small_generator,
    small_segmentor,
    weights,
)


def make_joint(loader: Any, **options: Any) -> JointTrainer:
    network = options.pop("network", None) or small_segmentor()
    generator = options.pop("generator", None) or small_generator()
    joint = options.get("segmentor_update", "joint") == "joint"
    defaults = {
        "device": "cpu",
        "max_epochs": 1,
        "train_data_loader": loader,
        "network": network,
        "optimizer": adam(network),
        "loss_function": LOSS,
        "generator": generator,
        "joint_optimizer": adam(generator, network) if joint else adam(generator),
    }
    return JointTrainer(**{**defaults, **options})


class TestJointTrainer(TrainerContract):
    stage_events = (JointEvents.STAGE1_COMPLETED, JointEvents.STAGE2_COMPLETED)
    scalar_keys = ("loss", "stage1_loss", "loss_raw", "loss_sge", "grad_norm_generator", "grad_norm_segmentor",
                   "grad_norm_segmentor_stage1")  # fmt: skip

    def make(self, **options: Any) -> JointTrainer:
        return make_joint(options.pop("train_data_loader", None) or self.loader(), **options)


class TestAlternate(TestJointTrainer):
    scalar_keys = ("loss", "stage1_loss", "loss_raw", "loss_sge", "grad_norm_generator", "grad_norm_segmentor")

    def make(self, **options: Any) -> JointTrainer:
        return super().make(segmentor_update="alternate", **options)


class TestSingleStage(TestJointTrainer):
    stage_events = (JointEvents.STAGE1_COMPLETED,)
    scalar_keys = ("loss", "stage1_loss", "grad_norm_generator", "grad_norm_segmentor")

    def make(self, **options: Any) -> JointTrainer:
        return super().make(stages=1, **options)


class TestRefreshed(TestJointTrainer):
    def make(self, **options: Any) -> JointTrainer:
        return super().make(refresh_generated=True, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnCUDA(TestJointTrainer):
    def make(self, **options: Any) -> JointTrainer:
        network, generator = small_segmentor().cuda(), small_generator().cuda()
        return super().make(device="cuda", network=network, generator=generator, **options)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    data = items(2)
    return {k: torch.stack([d[k] for d in data]) for k in ("image", "label")}


def snapshots(trainer: JointTrainer, batch: dict[str, torch.Tensor]) -> tuple[list, list, list, list, list, list]:
    """Parameters of G and S before, after stage 1 and after the iteration."""
    middle: list[Any] = []

    def remember(engine: Any) -> None:
        middle.extend([parameters(trainer.generator), parameters(trainer.network)])

    before = parameters(trainer.generator), parameters(trainer.network)
    trainer.add_event_handler(JointEvents.STAGE1_COMPLETED, remember)
    trainer.state.batch = batch
    trainer._iteration(trainer, batch)
    return (*before, *middle, parameters(trainer.generator), parameters(trainer.network))


def test_joint_stage1_moves_both_and_stage2_leaves_g_bit_identical(batch: dict) -> None:
    torch.manual_seed(0)
    g0, s0, g1, s1, g2, s2 = snapshots(make_joint([batch], decollate=False), batch)
    assert not same(g0, g1)
    assert not same(s0, s1)
    assert same(g1, g2)
    assert not same(s1, s2)


def test_alternate_stage1_leaves_s_bit_identical(batch: dict) -> None:
    torch.manual_seed(0)
    trainer = make_joint([batch], decollate=False, segmentor_update="alternate")
    g0, s0, g1, s1, g2, s2 = snapshots(trainer, batch)
    assert not same(g0, g1)
    assert same(s0, s1)
    assert same(g1, g2)
    assert not same(s1, s2)
    assert all(p.requires_grad for p in trainer.network.parameters())


def test_single_stage_moves_both_once(batch: dict) -> None:
    torch.manual_seed(0)
    _, _, g1, s1, g2, s2 = snapshots(make_joint([batch], decollate=False, stages=1), batch)
    assert same(g1, g2)
    assert same(s1, s2)


def test_one_iteration_equals_the_algorithm_written_out(batch: dict) -> None:
    """GRN+'s algorithm in plain torch, with separate passes of S in stage 2."""
    torch.manual_seed(0)
    generator, network = small_generator().double(), small_segmentor().double()
    ref_g, ref_s = small_generator().double(), small_segmentor().double()
    ref_g.load_state_dict(generator.state_dict())
    ref_s.load_state_dict(network.state_dict())
    trainer = make_joint([batch], generator=generator, network=network, decollate=False, seg_weight=0.7)
    joint, alone = adam(ref_g, ref_s), adam(ref_s)
    batch = {"image": batch["image"].double(), "label": batch["label"]}
    x, y = batch["image"], batch["label"]
    for _ in range(3):
        trainer._iteration(trainer, batch)
        joint.zero_grad()
        fake = ref_g(x)
        stage1 = 0.7 * LOSS(ref_s(fake), y)
        stage1.backward()
        norm_g, norm_s1 = grad_norm(ref_g), grad_norm(ref_s)
        joint.step()
        alone.zero_grad()
        raw, sge = LOSS(ref_s(x), y), LOSS(ref_s(fake.detach()), y)
        (0.5 * (raw + sge)).backward()
        norm_s = grad_norm(ref_s)
        alone.step()
        expected = {
            "stage1_loss": stage1,
            "loss_raw": raw,
            "loss_sge": sge,
            "loss": 0.5 * (raw + sge),
            "grad_norm_generator": norm_g,
            "grad_norm_segmentor_stage1": norm_s1,
            "grad_norm_segmentor": norm_s,
        }
        assert_scalars(trainer.state.output, expected)
    assert_same_weights((generator, ref_g), (network, ref_s))


def test_the_shared_pass_gives_the_gradients_of_two_passes(batch: dict) -> None:
    """In float64, so that rounding cannot hide a difference: the trainer with and without the shared pass."""
    results = []
    double = {"image": batch["image"].double(), "label": batch["label"]}
    for shared in (True, False):
        torch.manual_seed(0)
        network, generator = small_segmentor().double(), small_generator().double()
        trainer = make_joint([double], network=network, generator=generator, decollate=False)
        trainer._one_batch = shared
        trainer._iteration(trainer, double)
        results.append([p.grad.clone() for p in network.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_one_batch_only_where_s_does_not_mix_samples(batch: dict) -> None:
    sizes: list[int] = []

    class WithNorm(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return super().forward(x)

    for norm, expected in ((nn.BatchNorm2d(7), [2, 2, 2]), (nn.InstanceNorm2d(7), [2, 4])):
        sizes.clear()
        trainer = make_joint([batch], network=WithNorm(nn.Conv2d(1, 7, 1), norm), decollate=False)
        trainer._iteration(trainer, batch)
        assert sizes == expected


def test_refreshed_image_comes_from_the_updated_generator(batch: dict) -> None:
    torch.manual_seed(0)
    outputs = {}
    for refresh in (False, True):
        torch.manual_seed(1)
        trainer = make_joint([batch], decollate=False, refresh_generated=refresh)
        trainer._iteration(trainer, batch)
        trainer.generator.train()
        again = trainer.generator(batch["image"]).detach()
        outputs[refresh] = (trainer.state.output["generated"] - again).abs().max().item()
    assert outputs[True] < 1e-5 < outputs[False]


@pytest.mark.parametrize("refresh", [False, True])
def test_stage2_leaves_the_statistics_of_g_too(refresh: bool, batch: dict) -> None:
    trainer = make_joint([batch], decollate=False, refresh_generated=refresh)
    seen: list[Any] = []
    trainer.add_event_handler(JointEvents.STAGE1_COMPLETED, lambda e: seen.append(weights(e.generator)))
    trainer._iteration(trainer, batch)
    assert same(seen[0], weights(trainer.generator))


def test_generated_image_is_detached_and_metatensors_are_taken(batch: dict) -> None:
    meta = {"image": MetaTensor(batch["image"]), "label": MetaTensor(batch["label"])}
    trainer = make_joint([meta], decollate=False)
    trainer._iteration(trainer, meta)
    assert not trainer.state.output["generated"].requires_grad
    assert isinstance(trainer.state.output["image"], MetaTensor)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"segmentor_update": "both"}, "segmentor_update: found 'both'; expected 'joint' or 'alternate'"),
        ({"stages": 3}, "stages: found 3; expected 1 or 2"),
        ({"stages": 1, "segmentor_update": "alternate"}, "would never step"),
        ({"stages": 1, "seg_weight": 0}, "would never step"),
        ({"seg_weight": 0}, "the generator has no other loss"),
        ({"s_optim": "one"}, "s_optim: found 'one'"),
    ],
)
def test_bad_options(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_joint([], **options)


def test_optimizers_with_the_wrong_parameters_are_refused() -> None:
    generator, network = small_generator(), small_segmentor()
    both = {"generator": generator, "network": network}
    with pytest.raises(ValueError, match=r"`joint_optimizer` has to step .*`network` are not in it"):
        make_joint([], **both, joint_optimizer=adam(generator))
    with pytest.raises(ValueError, match="`joint_optimizer` must not step `network`"):
        make_joint([], **both, joint_optimizer=adam(generator, network), segmentor_update="alternate")
    with pytest.raises(ValueError, match="`optimizer` must not step `generator`"):
        make_joint([], **both, optimizer=adam(generator, network))
    with pytest.raises(ValueError, match=r"`optimizer` has to step `network`"):
        make_joint([], **both, optimizer=adam(small_segmentor()))


def test_grad_norm_is_that_of_all_gradients() -> None:
    module = nn.Linear(2, 1)
    module.weight.grad, module.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert grad_norm(module).item() == pytest.approx(5)
    assert grad_norm(nn.Linear(2, 1)).item() == 0


def test_weights_helper_sees_buffers() -> None:
    assert len(weights(nn.BatchNorm1d(2))) == 5
