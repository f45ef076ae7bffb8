"""Bland–Altman plots, predicted against true volumes, and the Q–Q plot of residuals, as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.labels import MUSCLE_COLOURS
from grn_monai.report.agreement.volumes import VolumeAgreement, constant
from grn_monai.report.numbers import number
from grn_monai.report.palette import label_colours

__all__ = ["bland_altman_figure", "correlation_figure", "qq_figure"]

_STYLE = {"font.size": 7.5, "axes.titlesize": 8.5, "axes.spines.top": False, "axes.spines.right": False}
_PANEL = (2.75, 2.45)  # inches

Draw = Callable[[Any, VolumeAgreement, str], None]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=115, metadata={"Software": None})
    return buffer.getvalue()


def _new(columns: int, rows: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _colours(muscles: list[str]) -> dict[str, str]:
    others = label_colours(dict(enumerate(muscles, 1)))
    return {muscle: MUSCLE_COLOURS.get(muscle, others[i]) for i, muscle in enumerate(muscles, 1)}


def _panels(found: Mapping[str, VolumeAgreement], draw: Draw) -> bytes:
    """One panel a muscle, left and right beside each other; a muscle that cannot be drawn says why."""
    import matplotlib

    columns = min(2 if len(found) in (2, 4) else 3, len(found))
    with matplotlib.rc_context(_STYLE):
        figure, axes = _new(columns, -(-len(found) // columns), *_PANEL)
        colours = _colours(list(found))
        for ax, (muscle, agreement) in zip(axes.flat, found.items(), strict=False):
            ax.set_title(muscle)
            if agreement.bland_altman is None:
                ax.text(0.5, 0.5, agreement.note, ha="center", va="center", transform=ax.transAxes)
                ax.set_xticks([])
                ax.set_yticks([])
                continue
            draw(ax, agreement, colours[muscle])
        for ax in axes.flat[len(found) :]:
            ax.set_axis_off()
        return _png(figure)


def bland_altman_figure(found: Mapping[str, VolumeAgreement]) -> bytes:
    """Bland–Altman plots of the muscles of one condition, by `pingouin.plot_blandaltman`.

    Bands are 95 % intervals as pingouin draws them, those of the limits with Bland and Altman's 1986 approximation
    SD·√(3/n); the table has the exact ones.

    Args:
        found: muscle to its volumes.

    Returns:
        A PNG.
    """
    import pingouin

    def draw(ax: Any, agreement: VolumeAgreement, colour: str) -> None:
        pingouin.plot_blandaltman(
            agreement.predicted,
            agreement.truth,
            ax=ax,
            annotate=False,
            color=colour,
            s=16,
            zorder=3,  # above the bands, which would tint them
            edgecolors="#333333",
            lw=0.3,
        )
        plot = agreement.bland_altman or {}
        for line in ax.lines:
            line.set_linewidth(0.9)
        for key in ("bias", "lower", "upper"):
            text = f" {number(plot[key], 1, signed=True)}"
            ax.annotate(text, (1, plot[key]), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
        if constant(agreement.predicted - agreement.truth):
            ax.set_ylim(plot["bias"] - 1, plot["bias"] + 1)  # lines that coincide have no height of their own
        ax.set_xlabel("mean of prediction and truth (ml)")
        ax.set_ylabel("prediction − truth (ml)")

    return _panels(found, draw)


def correlation_figure(found: Mapping[str, VolumeAgreement]) -> bytes:
    """Predicted against true volumes of the muscles of one condition, with identity and least-squares line; a PNG."""

    def draw(ax: Any, agreement: VolumeAgreement, colour: str) -> None:
        both = np.concatenate([agreement.truth, agreement.predicted])
        pad = 0.06 * float(np.ptp(both)) or 1.0
        ends = np.array([both.min() - pad, both.max() + pad])
        ax.plot(ends, ends, color="#888888", lw=0.8, ls="--", label="identity")
        if agreement.slope is not None and agreement.intercept is not None:
            line = np.array([agreement.truth.min(), agreement.truth.max()])
            ax.plot(line, agreement.slope * line + agreement.intercept, color="#222222", lw=0.9, label="least squares")
        ax.scatter(
            agreement.truth, agreement.predicted, color=colour, s=16, edgecolors="#333333", linewidths=0.3, zorder=3
        )
        ax.set(xlim=ends, ylim=ends, aspect="equal", xlabel="true volume (ml)", ylabel="predicted volume (ml)")
        ax.locator_params(nbins=5)
        texts = [("r", agreement.r), ("ICC", agreement.icc)]
        lines = [f"{name} {number(value, 3)}" for name, value in texts if value is not None]
        ax.text(0.04, 0.96, "\n".join([*lines, f"n {agreement.truth.size}"]), va="top", transform=ax.transAxes)
        ax.legend(loc="lower right", fontsize=6, frameon=False)

    return _panels(found, draw)


def qq_figure(residuals: npt.ArrayLike) -> bytes:
    """Q–Q plot of standardised residuals against the normal distribution, and their histogram; a PNG.

    Args:
        residuals: (n,) with some spread.
    """
    import matplotlib
    from scipy.stats import norm, probplot

    left = np.asarray(residuals, dtype=np.float64)
    z = (left - left.mean()) / left.std(ddof=1)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _new(2, 1, 3.2, 2.7)
        (theory, ordered), _ = probplot(z)
        across, reach = (1.08 * float(np.abs(values).max()) for values in (theory, ordered))
        axes[0, 0].plot([-across, across], [-across, across], color="#888888", lw=0.8, ls="--")
        axes[0, 0].scatter(theory, ordered, s=9, color="#0072B2", edgecolors="none", alpha=0.7)
        axes[0, 0].set(xlabel="normal quantiles", ylabel="residuals / SD", xlim=(-across, across))
        axes[0, 1].hist(z, bins="auto", density=True, color="#56B4E9", edgecolor="white", linewidth=0.4)
        x = np.linspace(-reach, reach, 200)
        axes[0, 1].plot(x, norm.pdf(x), color="#222222", lw=0.9)
        axes[0, 1].set(xlabel="residuals / SD", ylabel="density")
        return _png(figure)
