"""BatchNorm over the batches of all processes, so that several processes train as one does."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["SyncBatchNorm2d", "synchronised"]


class _Sum(torch.autograd.Function):
    """Sum over processes; so is the gradient, since every process's loss depends on the sum."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Sum."""
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        """Sum of the gradients."""
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class SyncBatchNorm2d(nn.BatchNorm2d):
    """``BatchNorm2d`` whose mean and variance in training are those of all processes' batches together.

    For CPUs: ``torch.nn.SyncBatchNorm`` does the same on GPUs only. Processes have to have batches of equal size.
    Without a process group it is ``BatchNorm2d``.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, C, H, W)``."""
        known = dist.is_available() and dist.is_initialized()
        if not (self.training and known and dist.get_world_size() > 1):
            return super().forward(x)
        return self._over_processes(x, dist.get_world_size())

    @torch.compiler.disable
    def _over_processes(self, x: torch.Tensor, world: int) -> torch.Tensor:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        # Two rounds: from sums of squares in one, a small variance about a large mean would be lost in rounding.
        mean = cast(torch.Tensor, _Sum.apply(wide.mean((0, 2, 3)))) / world
        centred = wide - mean[:, None, None]
        variance = cast(torch.Tensor, _Sum.apply(centred.square().mean((0, 2, 3)))) / world
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            count = world * x.numel() // x.shape[1]
            with torch.no_grad():
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
                # Without a momentum the statistics are the mean over all batches, as in BatchNorm2d.
                momentum = 1 / float(self.num_batches_tracked or 1) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), momentum)
        out = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        return out.to(x.dtype)


def synchronised(module: nn.Module) -> nn.Module:
    """Make every ``BatchNorm2d`` inside a module normalise over all processes; weights and their names stay.

    Args:
        module: on its device. On GPUs ``torch.nn.SyncBatchNorm`` is used, else ``SyncBatchNorm2d``.

    Returns:
        the module, changed in place (on GPUs a bare ``BatchNorm2d`` is replaced).
    """
    if any(p.is_cuda for p in module.parameters()):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            # The same object as another class: it has the same attributes, and optimizers keep their parameters.
            part.__class__ = SyncBatchNorm2d
    return module
