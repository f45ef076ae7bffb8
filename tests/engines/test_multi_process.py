"""Two processes with half the batch each train as one process with the whole batch (gloo, CPU, float64)."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from grn_monai.engines import AdversarialJointTrainer, JointTrainer, SemiSupervisedJointTrainer
from grn_monai.losses import Interpolation
from grn_monai.networks import SyncBatchNorm2d, synchronised
from tests.engines.contract import LOSS, adam
from tests.engines.test_adversarial_trainer import twins
from tests.engines.test_semi_supervised_joint_trainer import ssl_batch

CASES = {
    "grn_plus_joint": (JointTrainer, {}),
    "grn_plus_alternate": (JointTrainer, {"segmentor_update": "alternate"}),
    "grn_sel_joint": (AdversarialJointTrainer, {"segmentor_update": "joint"}),
    "grn_sel_alternate": (AdversarialJointTrainer, {}),
    "grn_sel_no_feedback": (AdversarialJointTrainer, {"seg_weight": 0.0}),
    "grn_ssl_joint": (SemiSupervisedJointTrainer, {"segmentor_update": "joint"}),
    "grn_ssl_alternate": (SemiSupervisedJointTrainer, {}),
    "grn_ssl_target_grad": (SemiSupervisedJointTrainer, {"target_grad": True}),
}
PARTNER = torch.tensor([1, 0, 3, 2])  # pairs that both halves of the batch can make
SHARE = torch.tensor([0.9, 0.3, 0.6, 0.1], dtype=torch.float64)


def train(cls: Any, options: dict[str, Any], wrap: Callable[[nn.Module], nn.Module], part: slice) -> dict[str, Any]:
    """Two iterations on a part of the batch; gradients and weights of all networks after each."""
    generator, network, discriminator = twins()[0]
    size = len(PARTNER[part])
    pairs = Interpolation(PARTNER[part] - PARTNER[part].min(), SHARE[part])
    Interpolation.draw = classmethod(lambda *_: pairs)  # type: ignore[method-assign]
    batch = {k: v[part] for k, v in ssl_batch(4, 4).items()}
    assert all(len(v) == size for v in batch.values())
    parts: dict[str, nn.Module] = {"generator": generator, "network": network}
    kwargs: dict[str, Any] = {}
    if cls is not JointTrainer:
        parts["discriminator"] = discriminator
        kwargs["discriminator_optimizer"] = adam(discriminator)
    joint = options.get("segmentor_update", "joint" if cls is JointTrainer else "alternate") == "joint"
    trainer = cls(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        optimizer=adam(network),
        loss_function=LOSS,
        joint_optimizer=adam(generator, network) if joint else adam(generator),
        decollate=False,
        optim_set_to_none=True,
        **{name: wrap(module) for name, module in parts.items()},
        **kwargs,
        **options,
    )
    record = {}
    for step in range(2):
        trainer._iteration(trainer, batch)
        for name, module in parts.items():
            record[f"{step} weights {name}"] = copy.deepcopy(module.state_dict())
            record[f"{step} gradients {name}"] = {
                k: p.grad.clone() for k, p in module.named_parameters() if p.grad is not None
            }
    return record


def average(cls: type[nn.BatchNorm2d], part: slice) -> list[torch.Tensor]:
    """Statistics of a norm without momentum after three batches."""
    rng = torch.Generator().manual_seed(0)
    norm = cls(2, momentum=None)
    for _ in range(3):
        norm(torch.rand(4, 2, 3, 3, generator=rng)[part])
    return [norm.running_mean, norm.running_var]


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    part = slice(2 * rank, 2 * rank + 2)

    def wrap(module: nn.Module) -> nn.Module:
        return DistributedDataParallel(synchronised(module), broadcast_buffers=False)

    records: dict[str, Any] = {name: train(cls, options, wrap, part) for name, (cls, options) in CASES.items()}
    records["average"] = average(SyncBatchNorm2d, part)
    torch.save(records, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    os.environ["OMP_NUM_THREADS"] = "1"
    mp.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case: str, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interpolation, "draw", Interpolation.draw)  # restored after the test
    cls, options = CASES[case]
    alone = train(cls, options, lambda module: module, slice(0, 4))
    for rank in range(2):
        shared = records[rank][case]
        assert shared.keys() == alone.keys()
        for key, tensors in alone.items():
            assert shared[key].keys() == tensors.keys(), key
            for name, value in tensors.items():
                torch.testing.assert_close(
                    shared[key][name], value, rtol=1e-5, atol=1e-7, msg=lambda m, k=key, n=name: f"{k} {n}: {m}"
                )


def test_both_processes_have_the_same_weights_and_statistics(records: list[dict[str, Any]]) -> None:
    for case in CASES:
        for key, tensors in records[0][case].items():
            if "weights" in key:
                for name, value in tensors.items():
                    assert torch.equal(value, records[1][case][key][name]), (case, key, name)


def test_a_norm_without_momentum_averages_over_all_batches(records: list[dict[str, Any]]) -> None:
    for mine, plain in zip(records[1]["average"], average(nn.BatchNorm2d, slice(0, 4)), strict=True):
        torch.testing.assert_close(mine, plain)


def test_without_processes_it_is_batchnorm() -> None:
    torch.manual_seed(0)
    plain, mine = nn.BatchNorm2d(3), SyncBatchNorm2d(3)
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(mine(x), plain(x))
    torch.testing.assert_close(mine.running_var, plain.running_var)
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3))
    names = list(module.state_dict())
    weight = module[1].weight
    assert synchronised(module) is module
    assert isinstance(module[1], SyncBatchNorm2d)
    assert module[1].weight is weight
    assert list(module.state_dict()) == names
