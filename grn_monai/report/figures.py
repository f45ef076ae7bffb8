"""Plots of a report as inline SVG that takes the page's text colour."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.measure.thickness import thickness_map
from grn_monai.metrics.statistics import cluster_bootstrap_ci
from grn_monai.report.load import Method, Training
from grn_monai.report.panels import ScanVolumes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["dice_figure", "styled", "subplots", "svg_text", "thickness_figure", "training_figures"]

# Drawn in this colour, then replaced by `currentColor`, so that one SVG suits a light and a dark page.
_INK = "#010203"
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "grid.color": "#808080",
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_THICKNESS_LAYERS = (2, 3, 4, 5)  # the fats and fasciae, whose thickness the cLBP studies compare


P = ParamSpec("P")
T = TypeVar("T")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw under the report's style, whatever the user's own matplotlib settings are."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return draw(*args, **kwargs)

    return wrapper


def svg_text(figure: Figure, name: str) -> str:
    """The figure as an SVG element; `name` keeps the ids of several on one page apart."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Fixed sizes in pt would not shrink with the page; the viewBox keeps the proportions.
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)


def subplots(rows: int, columns: int, width: float, height: float) -> tuple[Figure, npt.NDArray[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


@styled
def dice_figure(methods: Sequence[Method], kind: str, colours: Mapping[str, str]) -> str | None:
    """Dice of each layer and method: a dot for each scan, the mean, and its subject-level bootstrap interval.

    Args:
        methods: evaluations, in order.
        kind: kind of volume.
        colours: method name to colour.

    Returns:
        SVG text, or None if no scan has been scored.
    """
    keys = [LAYER_NAMES[label].replace(" ", "_") for label in LAYERS]
    having = [m for m in methods if any(row["kind"] == kind for row in m.scans)]
    if not having:
        return None
    figure, grid = subplots(1, 1, 9, 3.2)
    axes: Axes = grid[0, 0]
    width = 0.8 / len(having)
    rng = np.random.default_rng(0)
    for i, method in enumerate(having):
        rows = [row for row in method.scans if row["kind"] == kind]
        for j, key in enumerate(keys):
            own = [row for row in rows if row["layer"] == key]
            dice = np.array([100 * float(row["dice"]) for row in own])
            x = j - 0.4 + (i + 0.5) * width
            spread = rng.uniform(-0.28, 0.28, dice.size) * width
            axes.plot(x + spread, dice, "o", ms=3, mew=0, color=colours[method.name], alpha=0.45)
            ci = cluster_bootstrap_ci(dice, [row["subject"] for row in own])
            if ci:
                axes.vlines(x, *ci, color=colours[method.name], lw=2)
            label = method.title if j == 0 else None
            axes.plot(
                [x - 0.4 * width, x + 0.4 * width], [dice.mean()] * 2, color=colours[method.name], lw=2, label=label
            )
    axes.set_xticks(range(len(keys)), [LAYER_NAMES[label].replace(" fascial", "\nfascial") for label in LAYERS])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("Dice (%)")
    axes.set_ylim(top=101)
    axes.grid(axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(having))
    return svg_text(figure, "dice")


_CURVES: tuple[tuple[str, str, tuple[str, ...], bool], ...] = (
    ("Training loss of S (mean of the epoch)", "loss", ("train_loss",), False),
    ("Training loss of G (mean of the epoch)", "loss (log scale)", ("stage1_loss", "unlabeled_stage1_loss"), True),
    ("Validation Dice loss", "1 − Dice", ("val_dice_loss", "val_dice_loss_sge"), False),
    ("Consistency on unlabelled images", "loss", ("unlabeled_loss_raw", "unlabeled_loss_sge"), False),
    (
        "Discriminator against generator",
        "least squares (log scale)",
        ("discriminator_loss", "adversarial_loss", "unlabeled_discriminator_loss", "unlabeled_adversarial_loss"),
        True,
    ),
    ("L1 distance of G(x) to x", "mean absolute difference", ("l1_loss", "unlabeled_l1_loss"), False),
    (
        "Gradient norm",
        "norm (log scale)",
        ("grad_norm_generator", "grad_norm_segmentor", "grad_norm_discriminator", "unlabeled_grad_norm_discriminator"),
        True,
    ),
)
_COLUMN_TITLES = {
    "train_loss": "",
    "stage1_loss": "labelled",
    "unlabeled_stage1_loss": "unlabelled",
    "val_dice_loss": "S alone",
    "val_dice_loss_sge": "with G (SGE)",
    "unlabeled_loss_raw": "S alone",
    "unlabeled_loss_sge": "with G (SGE)",
    "discriminator_loss": "D",
    "adversarial_loss": "G",
    "unlabeled_discriminator_loss": "D",
    "unlabeled_adversarial_loss": "G",
    "l1_loss": "labelled",
    "unlabeled_l1_loss": "unlabelled",
    "grad_norm_generator": "G",
    "grad_norm_segmentor": "S",
    "grad_norm_discriminator": "D",
    "unlabeled_grad_norm_discriminator": "D",
}


@styled
def training_figures(trainings: Sequence[Training], colours: Mapping[str, str]) -> list[tuple[str, str]]:
    """Curves over the epochs of all trainings: losses by kind, validation and gradient norms, one plot each.

    Args:
        trainings: in the order of the legend.
        colours: training name to colour.

    Returns:
        (title, SVG text) of each plot that has data.
    """
    plots = []
    for title, label, columns, log in _CURVES:
        lines = [(run, c) for run in trainings for c in columns if np.isfinite(run.history.get(c, np.array([]))).any()]
        if not lines:
            continue
        beside = len(lines) <= 4  # more lines would hide under their legend
        figure, grid = subplots(1, 1, 4.4, 3.1 if beside else 3.1 + 0.17 * ((len(lines) + 1) // 2))
        axes: Axes = grid[0, 0]
        for run, column in lines:
            values = run.history[column]
            epochs = run.history.get("epoch", np.arange(1, values.size + 1))
            there = np.isfinite(values)
            style = ("-", "--", ":")[columns.index(column) % 3]
            name = f"{run.title}: {_COLUMN_TITLES[column]}".removesuffix(": ")
            marker = "o" if there.sum() < 3 else ""
            axes.plot(
                epochs[there], values[there], style, marker=marker, ms=3, color=colours[run.name], lw=1.4, label=name
            )
        if log and all((run.history[c][np.isfinite(run.history[c])] > 0).any() for run, c in lines):
            axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid()
        if beside:
            axes.legend()
        else:
            figure.legend(loc="outside lower center", ncols=2)
        plots.append((title, svg_text(figure, title)))
    return plots


@styled
def thickness_figure(scan: ScanVolumes, methods: Sequence[Method], name: str) -> str | None:
    """Thickness maps (mm) of the fats and fasciae: truth, each prediction, and predicted − true.

    Args:
        scan: volumes of the scan.
        methods: order of the predictions.
        name: distinguishes the figure from others on the page.

    Returns:
        SVG text, or None without a truth or a prediction.
    """
    having = [m for m in methods if m.name in scan.predictions]
    if scan.truth is None or not having:
        return None
    columns = 1 + 2 * len(having)
    size_x, size_y = scan.truth.shape[0] * scan.spacing[0], scan.truth.shape[1] * scan.spacing[1]
    tile = 9.5 / (columns + 1)
    figure, grid = subplots(
        len(_THICKNESS_LAYERS), columns, 10, (tile * size_y / size_x + 0.12) * len(_THICKNESS_LAYERS) + 0.7
    )
    heads = {"truth": "truth"} | {m.name: m.title.replace(" ", "\n", 1) for m in having}
    extent = (0.0, size_x, size_y, 0.0)
    for axes_row, label in zip(grid, _THICKNESS_LAYERS, strict=True):
        maps: Mapping[str, npt.NDArray[np.float32]] = {
            key: thickness_map(volume, label, scan.spacing[2])
            for key, volume in (("truth", scan.truth), *((m.name, scan.predictions[m.name]) for m in having))
        }
        top = max(float(np.percentile(values, 99.5)) for values in maps.values()) or 1.0
        errors = {m.name: maps[m.name] - maps["truth"] for m in having}
        bound = max(float(np.percentile(np.abs(e), 99)) for e in errors.values()) or scan.spacing[2]
        for axes, (key, values) in zip(axes_row, maps.items(), strict=False):
            shown = axes.imshow(values.T, cmap="viridis", vmin=0, vmax=top, extent=extent, interpolation="nearest")
            axes.set_title(heads[key] if label == _THICKNESS_LAYERS[0] else "")
        for axes, (key, error) in zip(axes_row[1 + len(having) :], errors.items(), strict=True):
            wrong = axes.imshow(error.T, cmap="RdBu_r", vmin=-bound, vmax=bound, extent=extent, interpolation="nearest")
            axes.set_title("error of\n" + heads[key] if label == _THICKNESS_LAYERS[0] else "")
            axes.set_xlabel(f"mean |error| {np.abs(error).mean():.2f} mm", fontsize=7.5, labelpad=2)
        for axes in axes_row:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        axes_row[0].set_ylabel(LAYER_NAMES[label].replace(" fascial", "\nfascial"))
        figure.colorbar(shown, ax=axes_row[len(having)], fraction=0.05, pad=0.03).ax.tick_params(labelsize=7)
        figure.colorbar(wrong, ax=axes_row[-1], fraction=0.05, pad=0.03).ax.tick_params(labelsize=7)
    return svg_text(figure, name)
