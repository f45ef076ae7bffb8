"""Which unlabelled scan to annotate next: scores of one prediction, and the order they give."""

from __future__ import annotations

from grn_monai.active.rank import rank, score_folder
from grn_monai.active.score import SOURCES, disagreement_score, mean_entropy

__all__ = ["SOURCES", "disagreement_score", "mean_entropy", "rank", "score_folder"]
