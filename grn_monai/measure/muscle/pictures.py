"""Pictures of measured muscles: outlines and composition on axial slices, and distributions of grey values."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.files import write_whole
from grn_monai.labels import MUSCLE_COLOURS
from grn_monai.measure.muscle.frame import AxialFrame
from grn_monai.measure.muscle.scan import ScanMuscles
from grn_monai.measure.muscle.settings import MuscleSettings

__all__ = [
    "MAX_SLICES",
    "colour_legend",
    "muscle_colours",
    "new_figure",
    "png_bytes",
    "shown_slices",
    "write_histogram",
    "write_overlay",
]

MAX_SLICES = 6
"""Columns of an overlay at most."""

_WINDOW = (-160.0, 240.0)
# From light to dark as density rises; none is the colour of a muscle.
_CLASSES = {"fat": "#FFF2A8", "low attenuation": "#F46D43", "normal attenuation": "#A50026", "other": "#7B3294"}
_MR_CLASSES = {"fat": "#FFF2A8", "lean": "#A50026"}
_MARGIN_MM = 30.0
_SIDES = (4.2, 2.9)  # inches, of a single slice and of one of several

Labels = npt.NDArray[np.integer]


def muscle_colours(names: Mapping[int, str]) -> dict[int, str]:
    """Label to colour: those of `MUSCLE_COLOURS`, for others what is free of the report's palette."""
    from grn_monai.report.palette import label_colours

    known = {label: MUSCLE_COLOURS[name.lower()] for label, name in names.items() if name.lower() in MUSCLE_COLOURS}
    palette = label_colours({i: f"muscle {i}" for i in range(1, len(names) + len(MUSCLE_COLOURS) + 1)}).values()
    free = iter(colour for colour in palette if colour not in known.values())
    return {label: known.get(label) or next(free) for label in names}


def shown_slices(scan: Mapping[str, Any]) -> dict[int, str]:
    """Slices to draw and their titles: those of the levels, or the one on which the muscles are largest together."""
    found: dict[int, str] = {}
    for row in scan["muscles"][0]["levels"]:
        if row["slice"] is not None and len(found) < MAX_SLICES:
            found[row["slice"]] = f"{found[row['slice']]}, {row['level']}" if row["slice"] in found else row["level"]
    if found:
        return dict(sorted(found.items(), reverse=True))
    areas: dict[int, float] = {}
    for muscle in scan["muscles"]:
        for row in muscle["slices"]:
            areas[row["slice"]] = areas.get(row["slice"], 0.0) + row["area_cm2"]
    return {max(areas, key=lambda k: areas[k]): "largest area"} if areas else {}


def png_bytes(figure: Any) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Any:
    """An empty figure of a size in inches, to be drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _classes(values: npt.NDArray[Any], measured: ScanMuscles, settings: MuscleSettings) -> npt.NDArray[np.int8]:
    """Index into `_CLASSES` (CT) or `_MR_CLASSES` of grey values."""
    if measured.threshold is not None:
        return np.where(values > measured.threshold.value, 0, 1).astype(np.int8)
    whole = np.rint(values)
    index = np.full(values.shape, 3, np.int8)
    for i, (low, high) in enumerate((settings.fat_hu, settings.low_hu, settings.normal_hu)):
        index[(whole >= low) & (whole <= high)] = i
    return index


def _crop(labels: Labels, slices: Sequence[int], frame: AxialFrame) -> tuple[slice, slice]:
    """Rows and columns around the muscles of the slices that are drawn, or all where they hold none."""
    there = np.any(labels[:, :, list(slices)] > 0, axis=2)
    parts = []
    for axis in (0, 1):
        met = np.flatnonzero(there.any(axis=1 - axis))
        reach = int(np.ceil(_MARGIN_MM / frame.spacing_mm[axis]))
        size = labels.shape[axis]
        parts.append(slice(max(0, met[0] - reach), min(size, met[-1] + reach + 1)) if met.size else slice(0, size))
    return parts[0], parts[1]


def _rgb(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def write_overlay(
    path: Path, title: str, labels: Labels, measured: ScanMuscles, names: Mapping[int, str], frame: AxialFrame,
    slices: Mapping[int, str], settings: MuscleSettings,
) -> None:  # fmt: skip
    """Draws slices as a radiologist sees them (from below: the person's right on the left), outlines over composition.

    Args:
        path: PNG to write.
        title: above it.
        labels: (X, Y, Z) labels, RAS.
        measured: of the same scan.
        names: label to name.
        frame: of the volume.
        slices: slice to its title.
        settings: ranges of HU.
    """
    rows, columns = _crop(labels, list(slices), frame)
    wide = (rows.stop - rows.start) * frame.spacing_mm[0]
    high = (columns.stop - columns.start) * frame.spacing_mm[1]
    side = _SIDES[len(slices) > 1]
    cell = side * min(1.0, wide / high), side * min(1.0, high / wide)
    head, gap, legend = 0.55, 0.1, 1.75
    width = 0.15 + len(slices) * (cell[0] + 0.1) + legend
    height = head + 2 * (cell[1] + gap) + 0.1
    figure = new_figure(width, height)
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height, va="top")
    colours = muscle_colours(names)
    classes = _MR_CLASSES if measured.threshold is not None else _CLASSES
    picked = measured.grey[rows, columns][:, :, list(slices)]
    ends = _WINDOW if measured.threshold is None else tuple(np.percentile(picked, [0.5, 99.5]))
    extent = (0.0, wide, high, 0.0)
    for i, (k, name) in enumerate(slices.items()):
        grey, drawn = (_shown(volume[rows, columns, k]) for volume in (measured.grey, labels))
        for j in range(2):
            left = 0.15 + i * (cell[0] + 0.1)
            bottom = height - head - (j + 1) * cell[1] - j * gap
            ax = figure.add_axes((left / width, bottom / height, cell[0] / width, cell[1] / height))
            ax.imshow(
                grey, cmap="gray", vmin=ends[0], vmax=ends[1], extent=extent, interpolation="nearest", aspect="auto"
            )
            _paint(ax, drawn, grey, j, colours, list(classes.values()), measured, settings, extent)
            ax.set_axis_off()
            if j == 0:
                ax.set_title(f"{name}: S {frame.positions_mm[k]:.0f} mm", fontsize=8, pad=3)
            _marks(ax, wide, high)
    at = 1 - (legend - 0.1) / width
    colour_legend(figure, {names[label]: colours[label] for label in names}, at, 1 - head / height)
    colour_legend(figure, classes, at, 1 - (head + cell[1] + gap) / height)
    write_whole(path, png_bytes(figure))


def _shown(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An (X, Y) slice as rows and columns: anterior up, the person's right on the left of the picture.

    RAS indices grow to the person's right and to the front, so that both axes are turned.
    """
    return plane[::-1, ::-1].T


def _paint(
    ax: Any, drawn: Labels, grey: npt.NDArray[Any], row: int, colours: Mapping[int, str], classes: Sequence[str],
    measured: ScanMuscles, settings: MuscleSettings, extent: tuple[float, float, float, float],
) -> None:  # fmt: skip
    paint = np.zeros((*drawn.shape, 4))
    if row == 0:
        for label, colour in colours.items():
            paint[drawn == label] = [*_rgb(colour), 0.28]
    else:
        index = _classes(grey, measured, settings)
        for i, colour in enumerate(classes):
            paint[(drawn > 0) & (index == i)] = [*_rgb(colour), 0.85]
    ax.imshow(paint, extent=extent, interpolation="nearest", aspect="auto")
    if row:
        return
    # Each voxel is drawn as four, so that outlines run along its edges.
    for label, colour in colours.items():
        mask = np.pad(np.kron(drawn == label, np.ones((4, 4))), 1)
        if mask.any():
            steps = (extent[1] / drawn.shape[1] / 4, extent[2] / drawn.shape[0] / 4)
            x = (np.arange(mask.shape[1]) - 0.5) * steps[0]
            y = (np.arange(mask.shape[0]) - 0.5) * steps[1]
            ax.contour(x, y, mask, levels=[0.5], colors=[colour], linewidths=1.1)


def _marks(ax: Any, wide: float, high: float) -> None:
    """The sides of the person, and a bar of 20 or 50 mm."""
    bar = 50.0 if wide > 150 else 20.0
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=1.6, foreground="black")]
    style = {"color": "white", "fontsize": 8, "fontweight": "bold", "va": "center", "path_effects": edge}
    ax.text(0.02 * wide, high / 2, "R", ha="left", **style)
    ax.text(0.98 * wide, high / 2, "L", ha="right", **style)
    ax.plot(
        [0.04 * wide, 0.04 * wide + bar],
        [0.96 * high] * 2,
        color="white",
        lw=2,
        solid_capstyle="butt",
        path_effects=edge,
    )
    style |= {"fontsize": 6.5, "fontweight": "normal", "va": "bottom"}
    ax.text(0.04 * wide + bar / 2, 0.94 * high, f"{bar:.0f} mm", ha="center", **style)
    ax.set_xlim(0, wide)
    ax.set_ylim(high, 0)


def colour_legend(figure: Any, colours: Mapping[str, str], x: float, y: float) -> None:
    """Coloured boxes with their names, the upper left corner at a place of the figure (0 to 1)."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    legend = figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(x, y), fontsize=7.5, frameon=False, borderaxespad=0
    )
    figure.add_artist(legend)


def write_histogram(
    path: Path, title: str, scan: Mapping[str, Any], measured: ScanMuscles, settings: MuscleSettings
) -> None:
    """Draws the distribution of grey values of each muscle, with the ranges of HU, or the threshold and its fit.

    Args:
        path: PNG to write.
        title: above it.
        scan: its entry in ``muscle.json``.
        measured: of the same scan.
        settings: ranges of HU.
    """
    figure = new_figure(7.6, 3.9)
    ax = figure.add_axes((0.085, 0.125, 0.63, 0.77))
    edges = np.asarray(scan["histogram_edges"])
    step = float(edges[1] - edges[0])
    if measured.threshold is None:
        bands = zip(list(_CLASSES.items())[:3], (settings.fat_hu, settings.low_hu, settings.normal_hu), strict=True)
        for (name, colour), (low, high) in bands:
            ax.axvspan(
                low - 0.5,
                high + 0.5,
                color=colour,
                alpha=0.22,
                lw=0,
                label=f"{name} {low:g}…{high:g} HU".replace("-", "−"),
            )
        unit = "HU"
    else:
        counts = np.histogram(np.clip(measured.region, edges[0], edges[-1]), edges)[0]
        ax.stairs(100 * counts / counts.sum(), edges, fill=True, color="#dddddd", label="all, with margin")
        fit = measured.threshold.mixture.densities(np.linspace(edges[0], edges[-1], 400)) * step * 100
        for part, words in zip(fit, ("two Gaussians", None), strict=True):
            ax.plot(np.linspace(edges[0], edges[-1], 400), part, color="#666666", lw=1, ls=":", label=words)
        found = measured.threshold
        ax.axvline(found.value, color="black", lw=1.2, ls="--", label=f"threshold {found.value:.4g} ({found.method})")
        unit = "grey value"
    colours = muscle_colours({muscle["label"]: muscle["name"] for muscle in scan["muscles"]})
    for muscle in scan["muscles"]:
        counts = np.asarray(muscle["histogram"])
        if counts.sum():
            share = 100 * counts / counts.sum()
            fat = muscle["fat_percent"]
            name = muscle["name"] if fat is None else f"{muscle['name']}: {fat:.1f} % fat"
            ax.stairs(share, edges, color=colours[muscle["label"]], lw=1.5, label=name)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(bottom=0)
    ax.set_xlabel(f"{unit} (values beyond the ends count in the last bins)", fontsize=8)
    ax.set_ylabel(f"% of the voxels in a bin of {step:.3g}{' HU' * (measured.threshold is None)}", fontsize=8)
    ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10)
    figure.legend(*ax.get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0.725, 0.9), fontsize=7.2,
                  frameon=False, borderaxespad=0)  # fmt: skip
    write_whole(path, png_bytes(figure))
