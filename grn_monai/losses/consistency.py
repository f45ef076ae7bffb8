"""Consistency of two segmentations of one image, where it is trusted, and how uncertain a segmentation is."""

from __future__ import annotations

import torch

__all__ = ["masked_consistency", "predictive_entropy", "symmetric_kl"]


def predictive_entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy of class probabilities ``(B, C, …)`` at each pixel, ``(B, 1, …)`` in nats: 0 to ln C.

    Source: Yu et al., "Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium Segmentation", 2019.
    """
    return -(probabilities * (probabilities + 1e-6).log()).sum(1, keepdim=True)


def masked_consistency(
    probabilities: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, classes: int | None = None
) -> torch.Tensor:
    """Mean squared difference of class probabilities over the pixels of a mask, 0-d in [0, 1].

    Args:
        probabilities: ``(B, C, H, W)``.
        target: ``(B, C, H, W)``.
        mask: ``(B, 1, H, W)``, 1 where a pixel counts, 0 elsewhere. Where none does, the loss is 0.
        classes: by what the sum over classes is divided; by default C. The code of UAMT divides by 2 however many
            there are.
    """
    mask = mask.to(probabilities.dtype)
    n = probabilities.shape[1] if classes is None else classes
    # As in UAMT; without its 1e-16 an empty mask would give 0 / 0.
    return (mask * (probabilities - target) ** 2).sum() / (n * mask.sum() + 1e-16)


def symmetric_kl(first: torch.Tensor, second: torch.Tensor, compat_axis: bool = False) -> torch.Tensor:
    """``½ [KL(p‖q) + KL(q‖p)]`` of two segmentations: summed over classes, mean over pixels; 0-d, from 0.

    Args:
        first: logits ``(B, C, H, W)`` of p.
        second: logits ``(B, C, H, W)`` of q.
        compat_axis: as the reference code of R-Drop for segmentation has it, carried over from text: softmax over the
            last axis, here the width of the image, and the mean over all elements.

    Source: Wu et al., "R-Drop: Regularized Dropout for Neural Networks", 2021.
    """
    axis = -1 if compat_axis else 1
    p, q = first.log_softmax(axis), second.log_softmax(axis)
    # Both divergences at once: p (log p − log q) + q (log q − log p).
    terms = 0.5 * (p.exp() - q.exp()) * (p - q)
    return terms.mean() if compat_axis else terms.sum(1).mean()
