"""Bland–Altman plots of repeated scans."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["MAX_LABELS", "bland_altman_figure"]

MAX_LABELS = 24
"""Rows of panels at most: a picture of a hundred labels cannot be looked at."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_MARKERS = "o^sDv"
_LEAST = 0.01

Pair = tuple[Any, Any]


def bland_altman_figure(rows: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Draws the Bland–Altman plots of thickness, echo level and volume of every layer, one panel for each.

    Points are told apart by pair of repeats; the lines are the bias and limits of agreement (bias ± 1.96 SD, N − 1) of
    the differences of all pairs together, which with two repeats are those of `repeatability`. An axis spans at least
    ±0.01 of the unit and ±1 % of the mean, so that repeats that agree to rounding are seen to agree.

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

    title = "Repeats of a site: difference (second − first) against mean"
    if len(layers) > MAX_LABELS:
        title += f"\nthe first {MAX_LABELS} of {len(layers)} labels; the others are in the table only"
        layers = layers[:MAX_LABELS]
    title += "\nlines: bias and limits of agreement, bias ± 1.96 SD"
    pairs: dict[Pair, int] = {}
    for row in drawn:
        for pair in row["bland_altman"]:
            pairs.setdefault((pair["first"], pair["second"]), len(pairs))
    if len(pairs) > 1:
        title += " of all pairs together"
    # Fixed margins in inches: a layout engine would draw everything twice.
    columns = len(measures)
    legend_rows = -(-len(pairs) // (2 * columns)) if len(pairs) > 1 else 0
    width, foot, head = 0.3 + 3.3 * columns, 0.6 + 0.2 * legend_rows, 0.75 + 0.17 * title.count("\n")
    height = head + foot + 2.45 * len(layers) - 0.6
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(layers), columns, squeeze=False,
        gridspec_kw={
            "left": 0.7 / width, "right": 1 - 0.15 / width, "bottom": foot / height, "top": 1 - head / height,
            "wspace": 0.3, "hspace": 0.55,
        },
    )  # fmt: skip
    by_key = {(row["label"], row["layer"], row["measure"]): row for row in drawn}
    for i, layer in enumerate(layers):
        for j, measure in enumerate(measures):
            found = by_key.get((*layer, measure))
            if found is None:
                axes[i, j].set_axis_off()
            else:
                _plot(axes[i, j], found, pairs)
    figure.suptitle(title, fontsize=9, y=1 - 0.1 / height, va="top")
    if legend_rows:
        from matplotlib.lines import Line2D

        handles = [
            Line2D([], [], ls="", label=f"repeat {b} − {a}", **_style(number)) for (a, b), number in pairs.items()
        ]
        figure.legend(handles=handles, loc="lower center", ncols=2 * columns, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()


def _style(number: int) -> dict[str, Any]:
    # The next five pairs shift the markers against the colours.
    marker = _MARKERS[(number + number // len(_COLOURS)) % len(_MARKERS)]
    return {"marker": marker, "color": _COLOURS[number % len(_COLOURS)], "ms": 4, "alpha": 0.75}


def _plot(ax: Any, row: Mapping[str, Any], pairs: Mapping[Pair, int]) -> None:
    values = row["values"]
    picked = list(itertools.combinations(range(values.shape[1]), 2))
    means = np.stack([values[:, [a, b]].mean(axis=1) for a, b in picked])
    differences = np.stack([values[:, b] - values[:, a] for a, b in picked])
    bias, reach = float(differences.mean()), 1.96 * float(differences.std(ddof=1))
    ax.axhspan(bias - reach, bias + reach, color="#000000", alpha=0.05, lw=0)
    ax.axhline(bias, color="#666666", lw=0.9)
    for end in (bias - reach, bias + reach):
        ax.axhline(end, color="#888888", lw=0.7, ls="--")
    for mean, difference, pair in zip(means, differences, row["bland_altman"], strict=True):
        ax.plot(mean, difference, ls="", **_style(pairs[(pair["first"], pair["second"])]))
    least = max(_LEAST, 0.01 * abs(float(means.mean())))
    half = max(1.12 * max(np.abs(differences).max(), abs(bias) + reach), least)
    ax.set_ylim(-half, half)
    middle, spread = (means.max() + means.min()) / 2, (means.max() - means.min()) / 2
    half = max(1.1 * spread, least)
    ax.set_xlim(middle - half, middle + half)
    ax.ticklabel_format(style="plain", useOffset=False)
    ax.locator_params(axis="x", nbins=6)
    ax.locator_params(axis="y", nbins=6)
    icc = "" if row["icc"] is None else f", ICC(2,1) {row['icc']:.2f}".replace("-", "−")
    n = f"n = {row['sites']} sites" + (f" × {row['repeats']} repeats" if row["repeats"] > 2 else "")
    ax.set_title(f"{row['layer']}: {row['measure'].replace('_', ' ')}\n{n}{icc}", fontsize=8)
    ax.set_xlabel(f"mean of two in {row['unit']}", fontsize=7, labelpad=2)
    ax.set_ylabel(f"difference in {row['unit']}", fontsize=7, labelpad=2)
    ax.tick_params(labelsize=7)
