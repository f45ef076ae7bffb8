"""The semi-supervised comparators of the GRN papers, a file for each."""

from __future__ import annotations

from .ict import ICTTrainer
from .mean_teacher import MeanTeacherTrainer
from .rdrop import RDropTrainer
from .uamt import UAMTTrainer

__all__ = [
    "ICTTrainer",
    "MeanTeacherTrainer",
    "RDropTrainer",
    "UAMTTrainer",
]
