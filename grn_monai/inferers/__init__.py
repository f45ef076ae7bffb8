"""Inferers: from a volume and a 2D network to probabilities on the volume grid."""

from __future__ import annotations

from .backends import BACKENDS, check_backend
from .two_plane import TwoPlaneInferer

__all__ = ["BACKENDS", "TwoPlaneInferer", "check_backend"]
