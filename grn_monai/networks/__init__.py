"""Networks that MONAI does not have. Everything else is used from ``monai.networks``."""

from __future__ import annotations

from .discriminator import PatchDiscriminator
from .enhanced_segmentor import EnhancedSegmentor
from .generator import ResidualBlock, ResNetGenerator

__all__ = ["EnhancedSegmentor", "PatchDiscriminator", "ResNetGenerator", "ResidualBlock"]
