"""A contact sheet of a cohort: both depth planes of some scans, with and without labels, in mm."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from grn_monai.files import write_whole
from grn_monai.labels import LAYER_COLOURS, LAYER_NAMES

__all__ = ["write_preview"]

_MAX_SCANS = 6


def write_preview(
    scans: Sequence[tuple[str, Path, Path | None]],
    out: Path,
    label_names: Mapping[int, str] = LAYER_NAMES,
    anatomical: bool = False,
    window: tuple[float, float] | None = None,
    colours: Mapping[str, str] | None = None,
) -> None:
    """Draw the middle slices of both depth planes of up to six scans.

    Args:
        scans: name, image and label file (or None) of each scan; volumes with depth as the last axis. Six are taken,
            evenly spread over the list.
        out: PNG to write.
        label_names: label value to name, for the legend.
        anatomical: the volumes are CT or MR: sagittal slices with the head at the top, and axial slices with the front
            at the top, by their affine.
        window: grey values shown as black and white; None chooses by the values.
        colours: colour by label name. Where it is given, labels are shown as outlines in these colours.
    """
    picks = np.unique(np.linspace(0, len(scans) - 1, min(_MAX_SCANS, len(scans))).round().astype(int))
    shown = [scans[i] for i in picks]
    planes = [list(_planes(image, label, anatomical, window)) for _, image, label in shown]
    present = {int(v) for scan in planes for plane in scan for v in np.unique(plane.classes)} - {0}
    by_name = colours or {}
    shades = {v: by_name.get(label_names.get(v, ""), LAYER_COLOURS[(v - 1) % len(LAYER_COLOURS) + 1]) for v in present}
    shades = dict(sorted(shades.items()))
    overlays = (False, True) if present else (False,)
    # Of single slices, the other plane would be a strip of one voxel.
    wide = [plane for plane in (0, 1) if any(min(scan[plane].grey.shape) > 1 for scan in planes)]
    rows = [(plane, overlay) for plane in wide for overlay in overlays]
    # A row is as high as its highest slice. Fixed margins in inches: a layout engine would draw everything twice.
    ratios = [max(0.4, *(scan[plane].size[1] / scan[plane].size[0] for scan in planes)) for plane, _ in rows]
    width, height = 0.8 + 2.0 * max(len(shown), 2), 1.05 + 2.05 * sum(ratios)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(rows), len(shown), squeeze=False,
        gridspec_kw={
            "left": 0.7 / width, "right": 1 - 0.1 / width, "bottom": 0.75 / height, "top": 1 - 0.3 / height,
            "wspace": 0.08, "hspace": 0.04, "height_ratios": ratios,
        },
    )  # fmt: skip
    for column, (name, _, _) in enumerate(shown):
        for row, (plane, overlay) in enumerate(rows):
            title, grey, classes, size = planes[column][plane]
            ax = axes[row, column]
            _draw(ax, grey, classes if overlay else None, size, shades, outlined=colours is not None)
            if column == 0:
                ax.set_ylabel(title, fontsize=8)
            else:
                ax.set_yticks([])
        axes[0, column].set_title(name[-28:], fontsize=8)
    handles = [Patch(color=colour, label=label_names.get(v, str(v))) for v, colour in shades.items()]
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_whole(out, buffer.getvalue())


class _Plane(NamedTuple):
    """One slice: grey values scaled to 0–1 and labels, both (width, height) with the top first; size in mm."""

    title: str
    grey: np.ndarray
    classes: np.ndarray
    size: tuple[float, float]


def _planes(
    image_path: Path, label_path: Path | None, anatomical: bool, window: tuple[float, float] | None
) -> Iterator[_Plane]:
    """The middle slice of each of the two planes."""
    image = nib.load(image_path)
    label = nib.load(label_path) if label_path else None
    if anatomical:
        image = nib.as_closest_canonical(image)
        label = nib.as_closest_canonical(label) if label else None
    dx, dy, dz = (float(d) for d in image.header.get_zooms()[:3])
    voxels = np.asarray(image.dataobj)
    classes = np.asarray(label.dataobj) if label else np.zeros(voxels.shape, np.uint8)
    if window is None:
        window = (0, 255) if voxels.dtype == np.uint8 else tuple(np.percentile(voxels[::2, ::2, ::2], [1, 99]))
    low, high = window
    nx, ny, nz = voxels.shape
    cuts = [(0, "sagittal\nmm" if anatomical else "sagittal\ndepth in mm", (ny * dy, nz * dz))]
    if anatomical:
        cuts.append((2, "axial\nmm", (nx * dx, ny * dy)))
    else:
        cuts.append((1, "transverse\ndepth in mm", (nx * dx, nz * dz)))
    for axis, title, size in cuts:
        grey, mask = (np.take(v, v.shape[axis] // 2, axis) for v in (voxels, classes))
        if anatomical:  # the second axis points up or forward; the patient's right and front are shown at the left
            grey, mask = grey[::-1, ::-1], mask[::-1, ::-1]
        scaled = np.clip((grey.astype(np.float32) - low) / max(float(high - low), 1e-6), 0, 1)
        yield _Plane(title, scaled, mask, size)


def _draw(
    ax: Any,
    grey: np.ndarray,
    classes: np.ndarray | None,
    size: tuple[float, float],
    colours: Mapping[int, str],
    outlined: bool,
) -> None:
    """Show one slice (width × height voxels), its first row at the top, with equal mm on both axes."""
    extent = (0.0, size[0], size[1], 0.0)
    ax.imshow(grey.T, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="bilinear")
    if classes is not None and outlined:
        across, down = ((np.arange(n) + 0.5) * mm / n for n, mm in zip(classes.shape, size, strict=True))
        for value, colour in colours.items():
            inside = (classes == value).T
            if inside.any():
                ax.contour(across, down, inside, [0.5], colors=[colour], linewidths=0.8)
    elif classes is not None:
        masked = np.ma.masked_equal(classes.T, 0)
        last = max(colours, default=1)
        table = ListedColormap([colours.get(value, "#000000") for value in range(last + 1)])
        ax.imshow(masked, cmap=table, vmin=-0.5, vmax=last + 0.5, alpha=0.4, extent=extent, interpolation="nearest")
    ax.set_xticks([])
    ax.tick_params(labelsize=7)
