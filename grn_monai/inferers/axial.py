"""Volumes through a 2D network, axial slice by axial slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import SliceInferer

from grn_monai.errors import InputError

__all__ = ["AxialInferer"]


class AxialInferer(SliceInferer):
    """MONAI's ``SliceInferer`` along the last axis, giving probabilities: sigmoid of one channel, softmax of several.

    Args:
        size: ``(H, W)`` of the network's input; slices of that size are one window each.
        batch_size: slices that go through the network together.
        sge: for a network with a generator, whether S(G(x)) or S(x) is predicted; None leaves it to the network.
        kwargs: passed to ``SliceInferer``, such as ``device="cpu"`` to collect the result there.

    Raises:
        InputError: a batch size below 1.
    """

    def __init__(self, size: Sequence[int], batch_size: int = 8, sge: bool | None = None, **kwargs: Any) -> None:
        if int(batch_size) < 1:
            raise InputError("infer_batch_size", str(batch_size), "a whole number from 1", "Correct the option.")
        super().__init__(spatial_dim=2, roi_size=tuple(size), sw_batch_size=int(batch_size), **kwargs)
        self.sge = sge

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Probabilities ``(B, K, X, Y, Z)``, float32, of ``(B, C, X, Y, Z)``.

        Raises:
            InputError: S(G(x)) or S(x) was asked of a network without a generator.
        """
        segment = self._mode(network)

        def probabilities(slices: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            logits = segment(slices, *args, **kwargs).float()
            return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)

        result: torch.Tensor = super().__call__(inputs, probabilities, *args, **kwargs)
        return result

    def _mode(self, network: Any) -> Callable[..., torch.Tensor]:
        if self.sge is None:
            return network
        if not hasattr(network, "enhance_and_segment"):
            raise InputError("sge", repr(self.sge), "a network with a generator", "Add the overlay sge.yaml.")
        if self.sge:
            return lambda slices: network.enhance_and_segment(slices)[1]
        return network.segment
