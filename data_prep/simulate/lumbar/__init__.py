"""Simulated CT and MR of the lumbar region, with the labels of its muscles. See docs/simulator.md."""

from __future__ import annotations

from data_prep.simulate.lumbar.cohort import simulate_lumbar
from data_prep.simulate.lumbar.settings import LumbarSettings

__all__ = ["LumbarSettings", "simulate_lumbar"]
