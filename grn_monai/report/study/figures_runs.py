"""Figures of the trainings: validation loss over iterations, and Dice against the size and cost of a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grn_monai.report.figures import styled, subplots
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.complexity import complexity_rows, load_complexity
from grn_monai.report.study.figures_base import (
    WIDTH,
    Drawn,
    bootstrap,
    data_note,
    ends,
    families,
    having,
    looks,
    panel_legend,
    panels,
    reference,
    save_png,
    shared_legend,
    variants,
)
from grn_monai.report.study.figures_scores import same_limits
from grn_monai.report.study.plan import fraction_name, fraction_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["capacity_figures", "training_figures"]

_SAME = ("ablation", "semi-supervised")  # groups whose networks others have too
_COLUMNS = {"raw": "val_dice_loss", "sge": "val_dice_loss_sge"}


@styled
def training_figures(results: StudyResults, folder: Path) -> list[Drawn]:
    """Validation Dice loss over the iterations, a line a seed and mode, at the smallest and largest share of labels."""
    look, drawn = looks(results), []
    first = reference(variants(results))
    for fraction in ends(results.fractions):
        split = {}
        for family, members in families(v for v in variants(results) if v.group != "ablation").items():
            lines = [
                (v, run.history["iteration"], run.history[_COLUMNS[v.mode]])
                for v in members
                for run in results.select(v.method, fraction)
                if np.isfinite(run.history.get(_COLUMNS[v.mode], np.array([]))).any() and "iteration" in run.history
            ]
            if lines:
                split[family] = lines
        if not split:
            continue
        own = {family: lines for family, lines in split.items() if {v for v, _, _ in lines} != {first}}
        split = own or dict(list(split.items())[:1])  # the reference alone is one panel, not one in each family
        beside = 1 if len(split) > 2 else 2
        longest = max(-(-len({v for v, _, _ in lines}) // beside) for lines in split.values())
        figure, row, legends = panels(len(split), 2.9, longest, WIDTH if len(split) > 1 else 5.0)
        for axes, below, (family, lines) in zip(row, legends, split.items(), strict=True):
            handles = {}
            for variant, iterations, losses in lines:
                there = np.isfinite(losses)
                style = look[variant]
                handles[variant.label] = axes.plot(
                    iterations[there], losses[there], style.line, color=style.colour, lw=1, alpha=0.8,
                    marker=style.marker, ms=3.5, markevery=[-1],
                )[0]  # fmt: skip
            axes.set_xlabel("iteration")
            axes.grid()
            axes.set_title(family if len(split) > 1 else "")
            panel_legend(below, handles, beside)
        same_limits(row)
        row[0].set_ylabel("validation Dice loss")
        title = f"Validation loss in training with {fraction_text(fraction)} of the labels"
        kind = "Simulated data." if results.plan.simulated else ""
        seeds = len({run.seed for run in results.runs if run.fraction == fraction and run.history})
        caption = (
            f"{title}: 1 − soft Dice of validation slices, background included. A line is one "
            f"seed (up to {seeds} a method) in one mode of prediction, marked at its end; a joint method's S(x) is "
            f"dashed, its S(G(x)) solid. No intervals. {kind}".rstrip()
        )
        drawn.append((title, save_png(figure, folder, f"training_{fraction_name(fraction)}"), caption))
    return drawn


@styled
def capacity_figures(results: StudyResults, folder: Path, section: str) -> list[Drawn]:
    """Dice against parameters and FLOPs (logarithmic) at the largest and smallest share; nothing without measurements.

    Semi-supervised methods and ablations predict with the networks of others and are left out.
    """
    content = load_complexity(results.folder)
    cost = {} if content is None else {(row.key, row.mode): row for row in complexity_rows(content)}
    look, drawn = looks(results), []
    for fraction in reversed(ends(results.fractions)):
        shown = [v for v in having(results, fraction, section) if (v.method, v.mode) in cost and v.group not in _SAME]
        if len({cost[v.method, v.mode].flops for v in shown}) < 2:
            continue
        figure, grid = subplots(1, 2, WIDTH, 3.4 + 0.17 * ((len(shown) + 2) // 3))
        handles: dict[str, Any] = {}
        for axes, name in zip(grid[0], ("parameters (millions)", "GFLOP an image"), strict=True):
            for variant in shown:
                row = cost[variant.method, variant.mode]
                mean, ci = bootstrap(results, variant, fraction, section)
                at, style = (row.flops / 1e9 if "GFLOP" in name else row.parameters / 1e6), look[variant]
                filled = style.colour if style.line == "-" else "white"
                handles[variant.label] = axes.plot(
                    at, mean, style.marker, color=style.colour, mfc=filled, mew=1.3, ms=6.5, zorder=3, ls=""
                )[0]
                if ci:
                    axes.vlines(at, *ci, color=style.colour, lw=1, alpha=0.6)
            _logarithmic(axes, name)
        grid[0, 0].set_ylabel("slice Dice, mean of six layers (%)")
        same_limits(grid[0])
        grid[0, 1].set_yticklabels([])
        shared_legend(figure, handles, 3)
        title = f"Dice against the size of the network with {fraction_text(fraction)} of the labels"
        size = content["size"] if content else 0
        caption = (
            f"{title}: parameters that take part in the prediction, and floating-point operations of one image of "
            f"{size} × {size} (convolutions and matrix products), on logarithmic axes. A joint method is hollow for "
            "S(x), filled for S(G(x)). Points: mean over slices and seeds; lines: 95 % bootstrap intervals over "
            f"subjects, seeds averaged. {data_note(results, section, [fraction], shown)}"
        )
        drawn.append((title, save_png(figure, folder, f"capacity_{fraction_name(fraction)}_{section}"), caption))
    return drawn


def _logarithmic(axes: Axes, name: str) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 of each decade, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(name)
    axes.grid()
