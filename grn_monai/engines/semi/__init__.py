"""The semi-supervised comparators of the GRN papers, a file for each."""

from __future__ import annotations

from .dan import DANTrainer
from .ict import ICTTrainer
from .mean_teacher import MeanTeacherTrainer
from .rdrop import RDropTrainer
from .sassnet import SASSNetTrainer
from .uamt import UAMTTrainer
from .urpc import URPCTrainer

__all__ = [
    "DANTrainer",
    "ICTTrainer",
    "MeanTeacherTrainer",
    "RDropTrainer",
    "SASSNetTrainer",
    "UAMTTrainer",
    "URPCTrainer",
]
