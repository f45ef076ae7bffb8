"""Trainers and evaluators."""

from __future__ import annotations

from ._common import JointKeys
from .evaluators import ScanEvaluator, SGEEvaluator
from .joint_trainer import JointEvents, JointTrainer

__all__ = ["JointEvents", "JointKeys", "JointTrainer", "SGEEvaluator", "ScanEvaluator"]
