"""Inferers: from a volume and a 2D network to probabilities on the volume grid."""

from __future__ import annotations

from .axial import AxialInferer
from .backends import BACKENDS, check_backend
from .both import BothInferer
from .two_plane import TwoPlaneInferer

__all__ = [
    "BACKENDS",
    "AxialInferer",
    "BothInferer",
    "TwoPlaneInferer",
    "check_backend",
]
