"""Label volumes to millimetres."""

from __future__ import annotations

from grn_monai.measure.thickness import thickness_map

__all__ = ["thickness_map"]
