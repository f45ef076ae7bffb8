"""Figures of the scores: Dice over the share of labels, of each layer at one share, and how slices spread."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.report.figures import styled, subplots
from grn_monai.report.study.analysis import FEWEST
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.figures_base import (
    WIDTH,
    Drawn,
    Look,
    Variant,
    bootstrap,
    data_note,
    ends,
    families,
    having,
    looks,
    panel_legend,
    panels,
    save_png,
    shared_legend,
    slice_means,
    variants,
)
from grn_monai.report.study.plan import fraction_name, fraction_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ablation_figures", "curve_figures", "layer_figures", "spread_figures"]

_INTERVALS = f"95 % bootstrap intervals over subjects, seeds averaged (none below {FEWEST} subjects)"
_NOT_ON_CURVES = ("ablation", "network", "control")


def fraction_axis(axes: Axes, fractions: Sequence[float]) -> None:
    """A logarithmic axis of label shares with a tick at each."""
    axes.set_xscale("log")
    axes.set_xticks(list(fractions), [f"{100 * f:g}" for f in fractions], fontsize=8 if len(fractions) < 6 else 6.5)
    axes.set_xticks([], minor=True)
    low, high = min(fractions), max(fractions)
    axes.set_xlim(low / 1.25, high * 1.25)


def _curve(
    axes: Axes,
    results: StudyResults,
    variant: Variant,
    look: Look,
    fractions: Sequence[float],
    section: str,
    layer: int | None,
    place: float,
    bands: bool,
) -> Any:
    points = []
    for fraction in fractions:
        if results.evaluations(variant.method, fraction, section, variant.mode):
            points.append((fraction, *bootstrap(results, variant, fraction, section, layer)))
    if not points:
        return None
    # With few shares intervals stand side by side as bars; with more, a band is easier to follow.
    x = np.array([point[0] * (1 if bands else 1.035**place) for point in points])
    line = axes.plot(
        x, [p[1] for p in points], look.line, color=look.colour, marker=look.marker, ms=4, lw=1.4, zorder=3
    )[0]
    ends = [(at, *p[2]) for at, p in zip(x, points, strict=True) if p[2] is not None]
    if ends and bands and len(ends) > 1:
        at, low, high = zip(*ends, strict=True)
        axes.fill_between(at, low, high, color=look.colour, alpha=0.13, lw=0)
    elif ends:
        axes.vlines(*zip(*ends, strict=True), color=look.colour, lw=1.1, alpha=0.75)
    return line


@styled
def curve_figures(results: StudyResults, folder: Path, section: str) -> list[Drawn]:
    """Dice over the share of labels: all layers together, then each layer, by family of methods."""
    fractions = results.fractions
    shown = [v for v in variants(results) if v.group not in _NOT_ON_CURVES]
    shown = [v for v in shown if sum(v in having(results, f, section) for f in fractions) > 1]
    if len(fractions) < 2 or not shown:
        return []
    look, split = looks(results), families(shown)
    bands = len(fractions) > 3
    way = "Bands" if bands else "Bars (moved aside where they would overlap)"
    drawn = []
    beside = 1 if len(split) > 2 else 2
    longest = max(-(-len(members) // beside) for members in split.values())
    figure, row, legends = panels(len(split), 3.0, longest)
    for axes, below, (family, members) in zip(row, legends, split.items(), strict=True):
        handles = {}
        for i, variant in enumerate(members):
            place = i - (len(members) - 1) / 2
            line = _curve(axes, results, variant, look[variant], fractions, section, None, place, bands)
            if line is not None:
                handles[variant.label] = line
        fraction_axis(axes, fractions)
        axes.set_xlabel("labelled images (%)")
        axes.grid(axis="y")
        axes.set_title(family if len(split) > 1 else "")
        panel_legend(below, handles, beside)
    same_limits(row)
    row[0].set_ylabel("slice Dice, mean of six layers (%)")
    note = data_note(results, section, fractions, shown)
    title = "Dice over the share of labelled images"
    caption = f"{title} (logarithmic axis). Points: mean over slices and seeds. {way}: {_INTERVALS}. {note}"
    drawn.append((title, save_png(figure, folder, f"dice_over_labels_{section}"), caption))
    for family, members in split.items():
        figure, grid = subplots(2, 3, WIDTH, 4.6 + 0.16 * ((len(members) + 2) // 3))
        handles = {}
        for layer, axes in enumerate(grid.ravel()):
            for i, variant in enumerate(members):
                place = i - (len(members) - 1) / 2
                line = _curve(axes, results, variant, look[variant], fractions, section, layer, place, bands)
                if line is not None:
                    handles[variant.label] = line
            fraction_axis(axes, fractions)
            axes.set_title(LAYER_NAMES[LAYERS[layer]])
            axes.grid(axis="y")
        for axes in grid[:, 0]:
            axes.set_ylabel("slice Dice (%)")
        for axes in grid[-1]:
            axes.set_xlabel("labelled images (%)")
        shared_legend(figure, handles, 3)
        name = "all methods" if len(split) == 1 else family
        title = f"Dice of each layer over the share of labelled images: {name}"
        file = f"layers_over_labels_{family.lower().replace('-', '_')}_{section}"
        caption = (
            f"{title}. The vertical axes differ. Points: mean over slices and seeds. {way}: {_INTERVALS}. "
            f"{data_note(results, section, fractions, members)}"
        )
        drawn.append((title, save_png(figure, folder, file), caption))
    return drawn


def same_limits(row: npt.NDArray[Any]) -> None:
    """Give all panels of a row the widest vertical limits among them."""
    low, high = min(a.get_ylim()[0] for a in row), max(a.get_ylim()[1] for a in row)
    for axes in row:
        axes.set_ylim(low, high)


def _interval(axes: Axes, place: float, ci: tuple[float, float] | None) -> None:
    """A line that can be seen on a dark and on a light bar."""
    if ci:
        axes.hlines(place, *ci, color="white", lw=2.6)
        axes.hlines(place, *ci, color="#222222", lw=1.1)


def _grid(axes: Axes) -> None:
    """Lines of the Dice behind bars and dots."""
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _rows(axes: Axes, shown: Sequence[Variant]) -> npt.NDArray[np.float64]:
    """Place a row for each variant from the top down, with a gap where the group changes; the rows' heights."""
    gaps = np.cumsum([0.0] + [0.45 * (a.group != b.group) for a, b in pairwise(shown)])
    places: npt.NDArray[np.float64] = -(np.arange(len(shown)) + gaps)
    axes.set_yticks(places, [fill(v.label, 36) for v in shown])
    axes.set_ylim(places[-1] - 0.7, 0.7)
    axes.tick_params(axis="y", length=0)
    return places


@styled
def layer_figures(results: StudyResults, folder: Path, section: str) -> list[Drawn]:
    """Bars of all methods for each layer and their mean, one figure for each share of labels."""
    look, drawn = looks(results), []
    for fraction in results.fractions:
        shown = having(results, fraction, section)
        if not shown:
            continue
        figure, grid = subplots(1, 7, WIDTH, 1.15 + 0.22 * len(shown))
        for layer, axes in zip((None, *range(6)), grid[0], strict=True):
            places = _rows(axes, shown)
            for place, variant in zip(places, shown, strict=True):
                mean, ci = bootstrap(results, variant, fraction, section, layer)
                hatch = "" if look[variant].line == "-" else "/////"
                axes.barh(place, mean, 0.74, color=look[variant].colour, hatch=hatch, edgecolor="white", lw=0)
                _interval(axes, place, ci)
            axes.set_xlim(0, 100)
            axes.set_xticks([0, 50, 100], ["0", "50", "100"], fontsize=7)
            _grid(axes)
            name = "mean of layers" if layer is None else LAYER_NAMES[LAYERS[layer]]
            axes.set_title("\n".join(_wrapped(name)), fontsize=7.5, fontweight="bold" if layer is None else "normal")
            if layer is not None:
                axes.set_yticklabels([])
            else:
                axes.tick_params(axis="y", labelsize=7.5)
        figure.supxlabel("slice Dice (%)", fontsize=8)
        title = f"Dice of every method and layer with {fraction_text(fraction)} of the labels"
        caption = (
            f"{title}. Bars: mean over slices and seeds; hatched where the same method also predicts through its "
            f"generator (SGE). Lines: {_INTERVALS}. {data_note(results, section, [fraction], shown)}"
        )
        drawn.append((title, save_png(figure, folder, f"layers_{fraction_name(fraction)}_{section}"), caption))
    return drawn


def _wrapped(name: str) -> list[str]:
    words = name.replace("superficial", "superf.").replace("membrane", "membr.").split()
    return [" ".join(words[:2]), " ".join(words[2:])] if len(words) > 2 else [" ".join(words), ""]


@styled
def spread_figures(results: StudyResults, folder: Path, section: str) -> list[Drawn]:
    """How the scores of single slices spread, at the smallest and largest share: violin, quartiles and median."""
    look, drawn = looks(results), []
    for fraction in ends(results.fractions):
        shown = having(results, fraction, section)
        if not shown:
            continue
        figure, grid = subplots(1, 1, WIDTH, 1.0 + 0.3 * len(shown))
        axes: Axes = grid[0, 0]
        for place, variant in zip(_rows(axes, shown), shown, strict=True):
            values = slice_means(results, variant, fraction, section)
            assert values is not None
            flat = values.ravel()
            colour = look[variant].colour
            if np.ptp(flat) > 0:
                body = axes.violinplot(flat, [place], orientation="horizontal", widths=0.86, showextrema=False)
                for part in cast("Sequence[Any]", body["bodies"]):
                    part.set(facecolor=colour, alpha=0.35, edgecolor=colour, lw=0.6)
            low, first, middle, third, high = np.percentile(flat, [5, 25, 50, 75, 95])
            axes.hlines(place, low, high, color=colour, lw=1)
            axes.hlines(place, first, third, color=colour, lw=4.5)
            axes.plot(middle, place, "o", color="white", mec="#222222", mew=0.8, ms=4.5, zorder=4)
        axes.set_xlabel("slice Dice, mean of six layers (%)")
        _grid(axes)
        title = f"Scores of single slices with {fraction_text(fraction)} of the labels"
        caption = (
            f"{title}: slices of all seeds together. Dot: median; thick line: quartiles; thin line: 5th to 95th "
            f"percentile. {data_note(results, section, [fraction], shown)}"
        )
        drawn.append((title, save_png(figure, folder, f"slices_{fraction_name(fraction)}_{section}"), caption))
    return drawn


@styled
def ablation_figures(results: StudyResults, folder: Path, section: str) -> list[Drawn]:
    """Bars of the ablations with the supervised reference and the GRN methods, by share of labels."""
    look, drawn = looks(results), []
    for fraction in results.fractions:
        found = having(results, fraction, section)
        if not any(v.group == "ablation" for v in found):
            continue
        shown = [v for v in found if v.group in ("supervised", "grn", "ablation")]
        figure, grid = subplots(
            1, 1, WIDTH, 0.9 + (0.32 if any(len(v.label) > 36 for v in shown) else 0.24) * len(shown)
        )
        axes: Axes = grid[0, 0]
        tops = []
        for place, variant in zip(_rows(axes, shown), shown, strict=True):
            values = slice_means(results, variant, fraction, section)
            assert values is not None
            mean, ci = bootstrap(results, variant, fraction, section)
            colour = look[variant].colour if variant.group != "ablation" else "#AAAAAA"
            axes.barh(place, mean, 0.74, color=colour)
            _interval(axes, place, ci)
            axes.plot(values.mean(axis=1), [place] * len(values), "o", ms=3, mfc="white", mec="#222222", mew=0.7)
            top = max(mean, ci[1] if ci else mean, *values.mean(axis=1))
            tops.append(top)
            axes.annotate(
                f"{mean:.1f}", (top, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_xlim(0, max(tops) * 1.08)
        axes.set_xlabel("slice Dice, mean of six layers (%)")
        _grid(axes)
        title = f"Ablations with {fraction_text(fraction)} of the labels"
        caption = (
            f"{title}, in grey, beside the supervised and GRN methods. Bars: mean over slices and seeds; dots: single "
            f"seeds; lines: {_INTERVALS}. {data_note(results, section, [fraction], shown)}"
        )
        drawn.append((title, save_png(figure, folder, f"ablations_{fraction_name(fraction)}_{section}"), caption))
    return drawn
