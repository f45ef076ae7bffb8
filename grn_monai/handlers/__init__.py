"""Handlers beside MONAI's: exact resume, best models, early stop, history and records of runs."""

from __future__ import annotations

from .checkpoint import BestCheckpointSaver, ResumeHandler, load_model, save_atomic
from .record import HistoryHandler, RunRecord, provenance, scalars
from .training import EarlyStop, SeedEpochs

__all__ = [
    "BestCheckpointSaver",
    "EarlyStop",
    "HistoryHandler",
    "ResumeHandler",
    "RunRecord",
    "SeedEpochs",
    "load_model",
    "provenance",
    "save_atomic",
    "scalars",
]
