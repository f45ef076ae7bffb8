"""Networks that MONAI does not have. Everything else is used from ``monai.networks``."""

from __future__ import annotations

from .count import count_flops, count_parameters
from .discriminator import PatchDiscriminator
from .enhanced_segmentor import EnhancedSegmentor
from .generator import ResidualBlock, ResNetGenerator
from .sync_norm import SyncBatchNorm2d, synchronised

__all__ = [
    "EnhancedSegmentor",
    "PatchDiscriminator",
    "ResNetGenerator",
    "ResidualBlock",
    "SyncBatchNorm2d",
    "count_flops",
    "count_parameters",
    "synchronised",
]
