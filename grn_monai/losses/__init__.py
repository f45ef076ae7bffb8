"""Losses beside MONAI's."""

from __future__ import annotations

from .interpolation import Interpolation, derangement

__all__ = ["Interpolation", "derangement"]
