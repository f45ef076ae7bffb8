"""Networks that MONAI does not have. Everything else is used from ``monai.networks``."""

from __future__ import annotations

from .count import count_flops, count_parameters
from .deeplab import RepeatChannels, deeplab_v3, deeplab_v3_plus
from .discriminator import PatchDiscriminator
from .enhanced_segmentor import EnhancedSegmentor
from .fit import check_fit, check_name
from .generator import ResidualBlock, ResNetGenerator
from .map_discriminator import MapDiscriminator
from .multi_scale_unet import MultiScaleUNet
from .signed_distance_unet import SignedDistanceUNet
from .sync_norm import SyncBatchNorm2d, synchronised

__all__ = [
    "EnhancedSegmentor",
    "MapDiscriminator",
    "MultiScaleUNet",
    "PatchDiscriminator",
    "RepeatChannels",
    "ResNetGenerator",
    "ResidualBlock",
    "SignedDistanceUNet",
    "SyncBatchNorm2d",
    "check_fit",
    "check_name",
    "count_flops",
    "count_parameters",
    "deeplab_v3",
    "deeplab_v3_plus",
    "synchronised",
]
