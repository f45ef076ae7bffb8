"""Losses beside MONAI's."""

from __future__ import annotations

from .consistency import masked_consistency, predictive_entropy, symmetric_kl
from .interpolation import Interpolation, derangement
from .rectified_consistency import rectified_consistency
from .signed_distance import SignedDistanceLoss, signed_distance_maps
from .supervised import SUPERVISED_LOSSES, segmentation_loss

__all__ = [
    "SUPERVISED_LOSSES",
    "Interpolation",
    "SignedDistanceLoss",
    "derangement",
    "masked_consistency",
    "predictive_entropy",
    "rectified_consistency",
    "segmentation_loss",
    "signed_distance_maps",
    "symmetric_kl",
]
