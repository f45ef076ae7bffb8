"""Small parts that the trainers share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.utils import StrEnum
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import Optimizer

__all__ = [
    "JointKeys",
    "at_least_float32",
    "bfloat16_pays",
    "check_optimizer",
    "frozen",
    "grad_norm",
    "kept_buffers",
    "make_scaler",
    "mixes_samples",
    "plain_tensor",
    "unlabelled_images",
    "unwrapped",
    "without_statistics",
]


class JointKeys(StrEnum):
    """Keys of ``engine.state.output`` beside MONAI's ``CommonKeys``."""

    GENERATED = "generated"
    PRED_SGE = "pred_sge"
    STAGE1_LOSS = "stage1_loss"
    LOSS_RAW = "loss_raw"
    LOSS_SGE = "loss_sge"
    GRAD_NORM_GENERATOR = "grad_norm_generator"
    GRAD_NORM_SEGMENTOR = "grad_norm_segmentor"
    GRAD_NORM_SEGMENTOR_STAGE1 = "grad_norm_segmentor_stage1"
    GRAD_NORM_DISCRIMINATOR = "grad_norm_discriminator"
    DISCRIMINATOR_LOSS = "discriminator_loss"
    ADVERSARIAL_LOSS = "adversarial_loss"
    L1_LOSS = "l1_loss"
    UNLABELED = "unlabeled"


def bfloat16_pays(device: str | torch.device) -> bool:
    """Whether mixed precision in bfloat16 makes training faster there: CUDA cards and CPUs with bfloat16 arithmetic.

    Elsewhere it would be emulated, and slower than float32.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.device(device).type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def grad_norm(module: nn.Module) -> torch.Tensor:
    """Euclidean norm of all gradients of a module, a 0-d tensor (no copy to the host)."""
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    if not grads:
        return torch.zeros((), device=next(module.parameters()).device)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))


@contextmanager
def frozen(module: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Inside, gradients flow through the module to its input and none reach its parameters."""
    parameters = [p for p in module.parameters() if p.requires_grad] if enabled else []
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Inside, a pass in training mode leaves the module's buffers (BatchNorm's statistics) as they were."""
    before = [b.clone() for b in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)


@contextmanager
def without_statistics(module: nn.Module) -> Iterator[None]:
    """Inside, a pass in training mode does not enter BatchNorm's running statistics.

    Unlike ``kept_buffers`` it may be used where gradients are wanted: no buffer is written.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def mixes_samples(module: nn.Module) -> bool:
    """Whether a sample's output depends on its batch: true with BatchNorm in training."""
    return any(isinstance(m, _BatchNorm) for m in module.modules())


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Logits of mixed precision as float32, in which a loss is computed; others as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside ``DistributedDataParallel``, or the module itself."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def plain_tensor(x: Any) -> Any:
    """A MetaTensor as its tensor: concatenation need not merge metadata, and ``torch.compile`` accepts it."""
    return x.as_tensor() if isinstance(x, MetaTensor) else x


def unlabelled_images(engine: Any, batchdata: Any) -> torch.Tensor:
    """The unlabelled images ``(B_u, C, H, W)`` of a batch, on the engine's device.

    Raises:
        ValueError: for a batch without them.
    """
    if not isinstance(batchdata, Mapping) or batchdata.get(JointKeys.UNLABELED) is None:
        raise ValueError(
            f"{type(engine).__name__} needs unlabelled images in each batch, under {str(JointKeys.UNLABELED)!r}. "
            "Load with TwoStreamDataset, TwoStreamBatchSampler and two_stream_collate of grn_monai.data."
        )
    images = batchdata[JointKeys.UNLABELED]
    return plain_tensor(images.to(engine.state.device, non_blocking=engine.non_blocking, **engine.to_kwargs))


def make_scaler(device: torch.device, amp: bool, amp_kwargs: Mapping[str, Any]) -> torch.amp.GradScaler:
    """A gradient scaler that is active for float16 only: bfloat16 has the exponent range of float32."""
    dtype = amp_kwargs.get("dtype") or torch.get_autocast_dtype(device.type)
    return torch.amp.GradScaler(device.type, enabled=amp and dtype == torch.float16)


def check_optimizer(
    name: str, optimizer: Optimizer, holds: Mapping[str, nn.Module], lacks: Mapping[str, nn.Module]
) -> None:
    """Check that an optimizer steps what it should.

    Raises:
        ValueError: when a trainable parameter of ``holds`` is missing, or one of ``lacks`` is there.
    """
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for part, module in holds.items():
        missing = sum(p.requires_grad and id(p) not in stepped for p in module.parameters())
        if missing:
            raise ValueError(
                f"`{name}` has to step {' and '.join(f'`{h}`' for h in holds)}, but {missing} trainable parameter "
                f"tensors of `{part}` are not in it. Build it from the parameters of "
                f"{' and '.join(f'`{h}`' for h in holds)}."
            )
    for part, module in lacks.items():
        extra = sum(id(p) in stepped for p in module.parameters())
        if extra:
            raise ValueError(
                f"`{name}` must not step `{part}`, but holds {extra} of its parameter tensors. Build it from the "
                f"parameters of {' and '.join(f'`{h}`' for h in holds)} alone."
            )
