"""Transforms: each as an array transform and as its dictionary twin with the suffix ``d``."""

from __future__ import annotations

from .load import LoadScan, LoadScand

__all__ = ["LoadScan", "LoadScand"]
