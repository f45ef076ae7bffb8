"""The context managers of the trainers: what they change inside, and that an error inside changes nothing outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from grn_monai.engines._common import frozen, kept_buffers, without_statistics
from grn_monai.networks import SyncBatchNorm2d
from tests.engines.contract import same, weights


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), SyncBatchNorm2d(2), nn.BatchNorm2d(2, momentum=None))


@pytest.mark.parametrize("manager", [frozen, kept_buffers, without_statistics])
def test_an_error_inside_restores_everything(manager: Callable[[nn.Module], Any]) -> None:
    m = module()
    m[0].bias.requires_grad_(False)  # frozen before: stays so
    before = weights(m)
    with pytest.raises(RuntimeError, match="inside"), manager(m):
        raise RuntimeError("inside")
    assert same(before, weights(m))
    assert [p.requires_grad for p in m.parameters()] == [True, False] + [True] * 6
    assert all(n.track_running_stats for n in m[1:])
    m(torch.rand(2, 1, 3, 3))
    assert not same(before, weights(m))


def test_frozen_lets_gradients_through() -> None:
    m, x = module(), torch.rand(2, 1, 3, 3, requires_grad=True)
    with frozen(m):
        m(x).square().sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in m.parameters())


def test_without_statistics_normalises_by_the_batch_and_writes_no_buffer() -> None:
    m, x = module(), torch.rand(2, 1, 3, 3)
    reference = module()(x)
    before = weights(m)
    with without_statistics(m):
        out = m(x)
        m(torch.full_like(x, torch.inf))
    torch.testing.assert_close(out, reference)
    assert same(before, weights(m))
    out.sum().backward()


def test_a_norm_without_momentum_averages_over_all_batches() -> None:
    plain, mine = nn.BatchNorm2d(2, momentum=None), SyncBatchNorm2d(2, momentum=None)
    for _ in range(3):
        x = torch.rand(4, 2, 3, 3)
        plain(x)
        mine(x)
    torch.testing.assert_close(mine.running_mean, plain.running_mean)
