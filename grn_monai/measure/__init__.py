"""Label volumes to millimetres."""

from __future__ import annotations

from grn_monai.measure.agreement import agreement, compared, layer_order, order_faults
from grn_monai.measure.normal import normal_thickness_map
from grn_monai.measure.thickness import thickness_map

# `folders`, `scan` and `repeatability` are imported by their own names: what they need would burden every metric.

__all__ = ["agreement", "compared", "layer_order", "normal_thickness_map", "order_faults", "thickness_map"]
