"""Bundles as others take them: with trained weights in them, and packed as the MONAI Model Zoo has them."""

from __future__ import annotations

from .prepare import prepare_bundle

__all__ = ["prepare_bundle"]
