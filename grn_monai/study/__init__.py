"""Studies: a grid of methods × label fractions × seeds over one cohort, run and resumed."""

from __future__ import annotations

from .load import load_plan
from .plan import Method, Plan, Run, fraction_name, select

__all__ = ["Method", "Plan", "Run", "fraction_name", "load_plan", "select"]
