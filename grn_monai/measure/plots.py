"""Bland–Altman plots of repeated scans."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["bland_altman_figure"]

_PAIR_STYLES = (("o", "#0072B2"), ("^", "#D55E00"), ("s", "#009E73"), ("D", "#CC79A7"), ("v", "#E69F00"))


def bland_altman_figure(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Draws the Bland–Altman plots of thickness, echo level and volume of every layer.

    Args:
        rows: as `repeatability` gives.

    Returns:
        A PNG, or None where there is nothing to draw.
    """
    drawn = [row for row in rows if row["bland_altman"] and row["label"]]
    measures = [m for m in ("thickness", "echo", "volume", "area_axial") if any(r["measure"] == m for r in drawn)]
    layers = list(dict.fromkeys((row["label"], row["layer"]) for row in drawn if row["measure"] in measures))
    if not measures:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Fixed margins in inches: a layout engine would draw everything twice.
    width, height = 0.3 + 3.4 * len(measures), 0.6 + 2.5 * len(layers)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(layers), len(measures), squeeze=False,
        gridspec_kw={
            "left": 0.7 / width, "right": 1 - 0.15 / width, "bottom": 0.65 / height, "top": 1 - 0.65 / height,
            "wspace": 0.28, "hspace": 0.55,
        },
    )  # fmt: skip
    by_key = {(row["label"], row["layer"], row["measure"]): row for row in drawn}
    for i, layer in enumerate(layers):
        for j, measure in enumerate(measures):
            found = by_key.get((*layer, measure))
            if found is None:
                axes[i, j].set_axis_off()
            else:
                _plot(axes[i, j], found)
    title = "Repeats of a site: difference (later − earlier) against mean, bias and limits of agreement"
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height, va="top")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _plot(ax: Any, row: Mapping[str, Any]) -> None:
    values = row["values"]
    pairs = list(itertools.combinations(range(values.shape[1]), 2))
    for number, ((a, b), pair) in enumerate(zip(pairs, row["bland_altman"], strict=True)):
        marker, colour = _PAIR_STYLES[number % len(_PAIR_STYLES)]
        mean, difference = values[:, [a, b]].mean(axis=1), values[:, b] - values[:, a]
        label = f"repeat {pair['second']} − {pair['first']}"
        ax.plot(mean, difference, marker, color=colour, ms=4, alpha=0.75, label=label)
        ax.axhline(pair["bias"], color=colour, lw=1)
        for end in ("lower", "upper"):
            ax.axhline(pair[end], color=colour, lw=0.8, ls="--")
    icc = "" if row["icc"] is None else f", ICC(2,1) {row['icc']:.2f}"
    ax.set_title(f"{row['layer']}: {row['measure'].replace('_', ' ')}{icc}", fontsize=8)
    ax.set_xlabel(f"mean of two in {row['unit']}", fontsize=7)
    ax.set_ylabel(f"difference in {row['unit']}", fontsize=7)
    ax.tick_params(labelsize=7)
    if len(pairs) > 1:
        ax.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, frameon=False)
