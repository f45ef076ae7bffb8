"""Handlers beside MONAI's: exact resume, best models, stops, history and records of runs."""

from __future__ import annotations

from .checkpoint import BestCheckpointSaver, ModelLoader, ResumeHandler, fingerprint, load_model, save_atomic
from .enhancement import EnhancementHandler
from .evaluation import LayerEvaluationHandler
from .found import FoundHandler
from .muscles import MuscleEvaluationHandler
from .overlays import MuscleOverlayHandler
from .record import HistoryHandler, RunRecord, log_epoch, provenance, scalars
from .schedule import PlateauSchedule
from .training import EarlyStop, NonFiniteStop, SeedEpochs

__all__ = [
    "BestCheckpointSaver",
    "EarlyStop",
    "EnhancementHandler",
    "FoundHandler",
    "HistoryHandler",
    "LayerEvaluationHandler",
    "ModelLoader",
    "MuscleEvaluationHandler",
    "MuscleOverlayHandler",
    "NonFiniteStop",
    "PlateauSchedule",
    "ResumeHandler",
    "RunRecord",
    "SeedEpochs",
    "fingerprint",
    "load_model",
    "log_epoch",
    "provenance",
    "save_atomic",
    "scalars",
]
