"""Numbers as a reader sees them: a true minus sign, a unit, and a dash for what is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["MISSING", "interval", "number", "significant", "spread"]

MISSING = "–"


def _missing(value: Any) -> bool:
    return not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value)


def _with_unit(text: str, unit: str) -> str:
    # A narrow no-break space keeps number and unit on one line.
    return (f"{text}\u202f{unit}" if unit else text).replace("-", "−")


def number(value: float | None, digits: int = 2, unit: str = "", signed: bool = False) -> str:
    """`value` with that many decimals and its unit; a dash for None, NaN and infinity."""
    if value is None or _missing(value):
        return MISSING
    return _with_unit(f"{value:{'+' if signed else ''}z.{digits}f}", unit)


def significant(value: float | None, digits: int = 3, unit: str = "") -> str:
    """`value` with that many significant digits, never in powers of ten between 1e-4 and 1e6."""
    if value is None or _missing(value):
        return MISSING
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return _with_unit(f"{value:.{digits}g}", unit)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return _with_unit(text.rstrip("0").rstrip(".") if "." in text else text, unit)


def spread(stats: Mapping[str, Any] | None, digits: int = 2) -> str:
    """`mean ± sd` of {"mean": …, "sd": …}; without an SD the mean alone."""
    mean, sd = (stats or {}).get("mean"), (stats or {}).get("sd")
    if _missing(mean):
        return MISSING
    return number(mean, digits) if _missing(sd) else f"{number(mean, digits)} ± {number(sd, digits)}"


def interval(bounds: Any, digits: int = 2) -> str:
    """`low to high` of a pair; empty where it, or one end, is missing."""
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or any(_missing(bound) for bound in bounds):
        return ""
    return f"{number(bounds[0], digits)} to {number(bounds[1], digits)}"
