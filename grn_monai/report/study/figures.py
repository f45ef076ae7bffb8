"""All figures of a study's report, as PNG files with captions; only those for which there are data."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from grn_monai.files import make_folder
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.figures_base import Drawn
from grn_monai.report.study.figures_effects import effect_figures
from grn_monai.report.study.figures_pictures import picture_figures
from grn_monai.report.study.figures_runs import capacity_figures, training_figures
from grn_monai.report.study.figures_scores import ablation_figures, curve_figures, layer_figures, spread_figures

__all__ = ["study_figures"]


def study_figures(results: StudyResults, folder: str | PathLike[str]) -> list[Drawn]:
    """Draw the figures of a study.

    Dice over the share of labels, of all layers and of each; every method and layer at each share; effects of RAug, SGE
    and SSL; scores of single slices; ablations; Dice against the size of the network (where `complexity.json` lies in
    the study's folder); slices with predictions (where label volumes were kept); validation loss over iterations.

    Args:
        results: what `load_study` read.
        folder: where the PNG files go; made if missing.

    Returns:
        Title, path and caption of each figure, in the order of a report. A caption names the data (simulated or not),
        the numbers of slices, scans, subjects and seeds, the units and the kind of interval.

    Raises:
        InputError: the folder cannot be written to, or `complexity.json` is broken.
    """
    place = Path(folder)
    make_folder(place)
    drawn: list[Drawn] = []
    for section in results.rows:
        for draw in (curve_figures, layer_figures, effect_figures, spread_figures, ablation_figures, capacity_figures):
            drawn += draw(results, place, section)
        drawn += picture_figures(results, place, section)
    return drawn + training_figures(results, place)
