"""Scores of layer and muscle segmentations: overlap, surface distances in mm, intervals, and what joins them.

Beside them, what a generator changes in the scans: `EnhancementMeasure`.
"""

from __future__ import annotations

from grn_monai.metrics.contrast import BOUNDARIES
from grn_monai.metrics.enhancement import EnhancementMeasure, ScanEnhancement
from grn_monai.metrics.evaluation import LayerEvaluation, ScanScores, SliceScores
from grn_monai.metrics.folders import FolderEvaluation, evaluate_folders
from grn_monai.metrics.muscles import MUSCLE_MEASURES, MuscleEvaluation
from grn_monai.metrics.overlap import dice_from_counts, dice_per_label, dice_per_slice, joint_counts
from grn_monai.metrics.statistics import (
    MeanCI,
    PairedDifference,
    cluster_bootstrap_ci,
    mean_ci,
    paired_difference,
)
from grn_monai.metrics.surface import SurfaceScores, surface_distances, surface_scores

__all__ = [
    "BOUNDARIES",
    "MUSCLE_MEASURES",
    "EnhancementMeasure",
    "FolderEvaluation",
    "LayerEvaluation",
    "MeanCI",
    "MuscleEvaluation",
    "PairedDifference",
    "ScanEnhancement",
    "ScanScores",
    "SliceScores",
    "SurfaceScores",
    "cluster_bootstrap_ci",
    "dice_from_counts",
    "dice_per_label",
    "dice_per_slice",
    "evaluate_folders",
    "joint_counts",
    "mean_ci",
    "paired_difference",
    "surface_distances",
    "surface_scores",
]
