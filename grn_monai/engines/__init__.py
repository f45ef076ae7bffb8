"""Trainers and evaluators."""

from __future__ import annotations

from ._common import JointKeys, bfloat16_pays
from .adversarial_trainer import AdversarialJointTrainer
from .evaluators import ScanEvaluator, SGEEvaluator
from .joint_trainer import JointEvents, JointTrainer
from .reconstruction_trainer import ReconstructionTrainer, WithReconstructions
from .semi import (
    ICTTrainer,
    MeanTeacherTrainer,
    RDropTrainer,
    UAMTTrainer,
)
from .semi._teacher import student_or_teacher, teacher_of
from .semi_supervised_joint_trainer import SemiSupervisedJointTrainer
from .semi_supervised_trainer import SemiSupervisedTrainer

__all__ = [
    "AdversarialJointTrainer",
    "ICTTrainer",
    "JointEvents",
    "JointKeys",
    "JointTrainer",
    "MeanTeacherTrainer",
    "RDropTrainer",
    "ReconstructionTrainer",
    "SGEEvaluator",
    "ScanEvaluator",
    "SemiSupervisedJointTrainer",
    "SemiSupervisedTrainer",
    "UAMTTrainer",
    "WithReconstructions",
    "bfloat16_pays",
    "student_or_teacher",
    "teacher_of",
]
