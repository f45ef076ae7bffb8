"""Trainers and evaluators."""

from __future__ import annotations

from ._common import JointKeys, bfloat16_pays
from .evaluators import ScanEvaluator, SGEEvaluator
from .joint_trainer import JointEvents, JointTrainer

__all__ = ["JointEvents", "JointKeys", "JointTrainer", "SGEEvaluator", "ScanEvaluator", "bfloat16_pays"]
