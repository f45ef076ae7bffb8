"""Runs the two prediction modes of an enhanced segmentor through any inferer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

__all__ = ["BothInferer"]


class BothInferer(Inferer):
    """Logits of S(x) and of S(G(x)) by the same windows, for the validation of a joint training.

    Args:
        inferer: how the network goes over an input, such as a ``SliceInferer``.
    """

    def __init__(self, inferer: Inferer) -> None:
        super().__init__()
        self.inferer = inferer

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Predict.

        Args:
            inputs: ``(B, C, …)``.
            network: an ``EnhancedSegmentor``, or a module with its method ``both``.
            args: passed on.
            kwargs: passed on.

        Returns:
            ``pred``, the logits of S(x), and ``pred_sge``, those of S(G(x)).
        """
        raw, sge = self.inferer(inputs, network.both, *args, **kwargs)  # type: ignore[attr-defined]
        return {"pred": raw, "pred_sge": sge}
