"""Losses beside MONAI's."""

from __future__ import annotations

from .consistency import masked_consistency, predictive_entropy, symmetric_kl
from .interpolation import Interpolation, derangement
from .supervised import SUPERVISED_LOSSES, segmentation_loss

__all__ = [
    "SUPERVISED_LOSSES",
    "Interpolation",
    "derangement",
    "masked_consistency",
    "predictive_entropy",
    "segmentation_loss",
    "symmetric_kl",
]
