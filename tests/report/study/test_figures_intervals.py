"""Intervals and effects in figures are those of the tables, and stay within their panels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grn_monai.metrics.comparisons import sign_flip_interval
from grn_monai.metrics.statistics import cluster_bootstrap_ci
from grn_monai.report.study import figures_effects, figures_scores, load_study
from tests.report.study.made import PLANES, SLICES, constant, write_study

METHODS: dict[str, dict[str, Any]] = {
    "unet": {"title": "U-Net", "bundle": "us_layers_supervised"},
    "sel": {"title": "GRN-SEL", "bundle": "us_layers_grn_sel", "modes": ["raw", "sge"]},
}


def test_intervals_are_those_of_the_tables(tmp_path: Path, drawn: dict[str, Any]) -> None:
    names = tuple(f"p{i}" for i in range(7))
    gain = np.repeat([0.02, 0.03, -0.01, 0.05, 0.04, 0.06, 0.01], len(PLANES) * SLICES)[:, None]
    base_dice = constant(0.5, names) + np.linspace(-0.1, 0.1, len(gain))[:, None]
    every = {(name, 0.05, 0, "test_raw"): base_dice + (0 if name == "unet" else gain) for name in ("unet", "sel")}
    methods = {"unet": METHODS["unet"], "sel": {**METHODS["sel"], "modes": ["raw"]}}
    study = write_study(tmp_path / "s", methods, every, fractions=[0.05], subjects=names)
    results = load_study(study)
    figures_scores.layer_figures(results, tmp_path, "test")
    segment = drawn["layers_5pct_test"].axes[0].collections[0].get_segments()[0]
    rows = 100 * base_dice[:, 0].astype(np.float32)
    assert (segment[0][0], segment[1][0]) == pytest.approx(cluster_bootstrap_ci(rows, results.rows["test"].subjects))
    figures_effects.effect_figures(results, tmp_path, "test")
    (segment,) = drawn["effects_test"].axes[0].collections[0].get_segments()
    low, high = sign_flip_interval([0.02, 0.03, -0.01, 0.05, 0.04, 0.06, 0.01]) or (0, 0)
    assert (segment[0][1], segment[1][1]) == pytest.approx((100 * low, 100 * high), abs=1e-4)


def test_many_effects_stay_within_their_panel(tmp_path: Path, drawn: dict[str, Any]) -> None:
    names = [f"m{i}" for i in range(7)]
    methods = {name: {**METHODS["sel"], "title": name} for name in names}
    every = {(name, 0.05, 0, f"test_{mode}"): constant(0.5) for name in names for mode in ("raw", "sge")}
    results = load_study(write_study(tmp_path / "s", methods, every))
    figures_effects.effect_figures(results, tmp_path, "test")
    axes = drawn["effects_test"].axes[0]
    places = [line.get_xdata()[0] for line in axes.lines if line.get_marker() != "None"]
    assert len(places) == 7
    assert axes.get_xlim()[0] * 1.03 < min(places)
    assert max(places) < axes.get_xlim()[1] / 1.03
