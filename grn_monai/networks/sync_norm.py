"""BatchNorm over the batches of all processes, so that several processes train as one does."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce

__all__ = ["SyncBatchNorm2d", "synchronised"]


class SyncBatchNorm2d(nn.BatchNorm2d):
    """``BatchNorm2d`` whose mean and variance in training are those of all processes' batches together.

    For CPUs: ``torch.nn.SyncBatchNorm`` does the same on GPUs only. Processes have to have batches of equal size.
    Without a process group it is ``BatchNorm2d``.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, C, H, W)``."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        world = dist.get_world_size()
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        # Two rounds: from sums of squares in one, a small variance about a large mean would be lost in rounding.
        mean = all_reduce(wide.mean((0, 2, 3))) / world
        centred = wide - mean[:, None, None]
        variance = all_reduce(centred.square().mean((0, 2, 3))) / world
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            count = world * x.numel() // x.shape[1]
            with torch.no_grad():
                momentum = 0.0 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
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
