"""Trainers and evaluators."""

from __future__ import annotations

from ._common import JointKeys, bfloat16_pays
from .adversarial_trainer import AdversarialJointTrainer
from .evaluators import ScanEvaluator, SGEEvaluator
from .joint_trainer import JointEvents, JointTrainer
from .reconstruction_trainer import ReconstructionTrainer, WithReconstructions
from .semi_supervised_joint_trainer import SemiSupervisedJointTrainer
from .semi_supervised_trainer import SemiSupervisedTrainer

__all__ = [
    "AdversarialJointTrainer",
    "JointEvents",
    "JointKeys",
    "JointTrainer",
    "ReconstructionTrainer",
    "SGEEvaluator",
    "ScanEvaluator",
    "SemiSupervisedJointTrainer",
    "SemiSupervisedTrainer",
    "WithReconstructions",
    "bfloat16_pays",
]
