"""Trainers and evaluators."""

from __future__ import annotations

from ._common import JointKeys, bfloat16_pays
from .adversarial_trainer import AdversarialJointTrainer
from .evaluators import ScanEvaluator, SGEEvaluator
from .joint_trainer import JointEvents, JointTrainer
from .reconstruction_trainer import ReconstructionTrainer, WithReconstructions
from .semi import (
    DANTrainer,
    ICTTrainer,
    MeanTeacherTrainer,
    RDropTrainer,
    SASSNetTrainer,
    UAMTTrainer,
    URPCTrainer,
)
from .semi._method import check_method
from .semi._teacher import student_or_teacher, teacher_of
from .semi_supervised_joint_trainer import SemiSupervisedJointTrainer
from .semi_supervised_trainer import SemiSupervisedTrainer

__all__ = [
    "AdversarialJointTrainer",
    "DANTrainer",
    "ICTTrainer",
    "JointEvents",
    "JointKeys",
    "JointTrainer",
    "MeanTeacherTrainer",
    "RDropTrainer",
    "ReconstructionTrainer",
    "SASSNetTrainer",
    "SGEEvaluator",
    "ScanEvaluator",
    "SemiSupervisedJointTrainer",
    "SemiSupervisedTrainer",
    "UAMTTrainer",
    "URPCTrainer",
    "WithReconstructions",
    "bfloat16_pays",
    "check_method",
    "student_or_teacher",
    "teacher_of",
]
