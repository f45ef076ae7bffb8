"""How large a network is: its parameters, and the arithmetic of one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_flops", "count_parameters"]


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, frozen ones too; one shared by several parts counts once. Buffers are none."""
    return sum(p.numel() for p in module.parameters())


def count_flops(module: nn.Module, shape: Sequence[int]) -> int:
    """Floating-point operations of one forward pass in evaluation mode.

    A multiplication and an addition are two operations. Counted are convolutions, transposed convolutions, matrix
    products and attention by torch's ``FlopCounterMode``, biases not. Not counted are normalisation, activations,
    pooling, interpolation, padding and additions, which cost time too, and work done outside torch's operators. A
    training step takes about three times as many: the gradients of a layer's input and of its weights cost a forward
    pass each.

    Args:
        module: on its device; run once, without gradients. Its mode and buffers are left as they were.
        shape: of the input, such as ``(1, 1, 256, 256)`` for ``(B, C, H, W)``.

    Returns:
        the count, for the whole batch.
    """
    weight = next(module.parameters(), torch.empty(0))
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        counter = FlopCounterMode(display=False)
        # The counter sees single operators: of a compiled module it would see none.
        with torch.compiler.set_stance("force_eager"), torch.no_grad(), counter:
            module(torch.zeros(*shape, dtype=weight.dtype, device=weight.device))
    finally:
        for part, training in modes.items():
            part.training = training
    return int(counter.get_total_flops())
