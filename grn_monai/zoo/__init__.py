"""Bundles as others take them: with trained weights in them, and packed as the MONAI Model Zoo has them."""

from __future__ import annotations

from .metadata import load_schema, read_metadata
from .pack import pack_bundle
from .prepare import prepare_bundle

__all__ = ["load_schema", "pack_bundle", "prepare_bundle", "read_metadata"]
