"""Agreement of several predictions of one image with their mean, less where they disagree (URPC)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

__all__ = ["rectified_consistency"]


def rectified_consistency(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Uncertainty-rectified pyramid consistency.

    With ``p_s`` the softmax of prediction s and ``p̄`` their mean, ``D_s = KL(p̄ ‖ p_s)`` is the uncertainty of a
    pixel, and ``L_s = mean((p̄ - p_s)² exp(-D_s)) / (mean(exp(-D_s)) + 1e-8) + mean(D_s)``. Gradient flows through
    ``p̄`` too. All logarithms come from ``log_softmax``: the loss and its gradient are finite for any finite logits.

    Args:
        logits: S predictions, each ``(B, C, H, W)``.

    Returns:
        0-d mean of ``L_s``, from 0 (all agree).

    Raises:
        ValueError: for fewer than two predictions, which always agree.

    Source: Luo et al., "Efficient Semi-Supervised Gross Target Volume of Nasopharyngeal Carcinoma Segmentation via
    Uncertainty Rectified Pyramid Consistency", 2021, with the terms of its public reference code.
    """
    if len(logits) < 2:
        raise ValueError(f"Consistency needs at least 2 predictions of an image, got {len(logits)}.")
    logs = torch.stack([x.log_softmax(1) for x in logits])  # S, B, C, H, W
    log_mean = logs.logsumexp(0) - math.log(len(logits))
    probabilities, mean = logs.exp(), log_mean.exp()
    uncertainty = (mean * (log_mean - logs)).sum(2, keepdim=True)  # S, B, 1, H, W
    certainty = (-uncertainty).exp()
    pixels = (1, 2, 3, 4)
    distance = ((mean - probabilities).square() * certainty).mean(pixels) / (certainty.mean(pixels) + 1e-8)
    return (distance + uncertainty.mean(pixels)).mean()
