"""Mean Teacher, UAMT and ICT in two processes: both have one student and one teacher, taught by both batches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from grn_monai.engines import ICTTrainer, MeanTeacherTrainer, UAMTTrainer
from tests.engines.contract import LOSS, adam, same, weights
from tests.engines.semi.contract import deep_segmentor, two_streams

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "mean_teacher": (MeanTeacherTrainer, {"noise": 0.0, "start": 0.0}),
    "uamt": (UAMTTrainer, {"noise": 0.0, "passes": 2}),
    "ict": (ICTTrainer, {}),
}


def train(case: str, batches: list[dict[str, torch.Tensor]], wrap: bool) -> dict[str, list[torch.Tensor]]:
    """Three iterations on the mean of the batches' losses (in one process: one batch each)."""
    cls, options = CASES[case]
    torch.manual_seed(0)
    network = deep_segmentor().double()
    shared = DistributedDataParallel(network, broadcast_buffers=False) if wrap else network
    trainer = cls(
        device="cpu", max_epochs=3, train_data_loader=batches, network=shared, optimizer=adam(network),
        loss_function=LOSS, decollate=False, max_weight=5.0, **options,
    )  # fmt: skip
    torch.manual_seed(1)  # the shares of ICT
    trainer.run()
    return {"network": weights(network), "teacher": weights(trainer.teacher)}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    part = {k: v.chunk(2)[rank] for k, v in two_streams(4, 8).items()}
    torch.save({case: train(case, [part], True) for case in CASES}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    os.environ["OMP_NUM_THREADS"] = "1"
    mp.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_both_processes_end_with_one_student_and_one_teacher(case: str, records: list[dict[str, Any]]) -> None:
    first, second = (record[case] for record in records)
    for part in ("network", "teacher"):
        assert same(first[part], second[part])
        assert all(w.isfinite().all() for w in first[part])
    alone = train(case, [{k: v.chunk(2)[0] for k, v in two_streams(4, 8).items()}], False)
    assert not same(first["network"], alone["network"])  # the other process's images had their part
    if case == "mean_teacher":  # nothing in it is drawn, and its loss is a mean over images
        whole = train(case, [two_streams(4, 8)], False)
        for part, expected in whole.items():
            for a, b in zip(first[part], expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
