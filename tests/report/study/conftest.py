from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from grn_monai.report.study import figures_base as base
from grn_monai.report.study import figures_effects, figures_pictures, figures_runs, figures_scores


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Name of each figure that is saved to the figure."""
    figures: dict[str, Figure] = {}

    def keep(figure: Figure, folder: Path, name: str) -> Path:
        figures[name] = figure
        return base.save_png(figure, folder, name)

    for module in (figures_scores, figures_effects, figures_runs, figures_pictures):
        monkeypatch.setattr(module, "save_png", keep)
    return figures
