"""A contact sheet of a cohort: both depth planes of some scans, with and without labels, in mm."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
_COLOURS = ("#000000", *LAYER_COLOURS.values())


def write_preview(scans: Sequence[tuple[str, Path, Path]], out: Path) -> None:
    """Draw the middle sagittal and transverse slices of up to six scans.

    Args:
        scans: name, image and label file of each scan; volumes with depth as the last axis. Six are taken,
            evenly spread over the list.
        out: PNG to write.
    """
    picks = np.unique(np.linspace(0, len(scans) - 1, min(_MAX_SCANS, len(scans))).round().astype(int))
    shown = [scans[i] for i in picks]
    # Fixed margins in inches: a layout engine would draw everything twice.
    width, height = 0.8 + 2.0 * max(len(shown), 2), 12.4
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        4, len(shown), squeeze=False,
        gridspec_kw={
            "left": 0.7 / width, "right": 1 - 0.1 / width, "bottom": 0.75 / height, "top": 1 - 0.3 / height,
            "wspace": 0.08, "hspace": 0.04,
        },
    )  # fmt: skip
    for column, (name, image_path, label_path) in enumerate(shown):
        image, label = nib.load(image_path), nib.load(label_path)
        dx, dy, dz = (float(d) for d in image.header.get_zooms()[:3])
        grey, classes = np.asarray(image.dataobj), np.asarray(label.dataobj)
        nx, ny, nz = grey.shape
        planes = (
            ("sagittal", grey[nx // 2], classes[nx // 2], ny * dy),
            ("transverse", grey[:, ny // 2], classes[:, ny // 2], nx * dx),
        )
        for row, (plane, slice_grey, slice_classes, width) in enumerate(planes):
            for overlay in (False, True):
                ax = axes[2 * row + overlay, column]
                _draw(ax, slice_grey, slice_classes if overlay else None, width, nz * dz)
                if column == 0:
                    ax.set_ylabel(f"{plane}\ndepth in mm", fontsize=8)
                else:
                    ax.set_yticks([])
        axes[0, column].set_title(name, fontsize=8)
    handles = [Patch(color=_COLOURS[value], label=name) for value, name in LAYER_NAMES.items() if value]
    figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_whole(out, buffer.getvalue())


def _draw(ax: Any, grey: np.ndarray, classes: np.ndarray | None, width: float, depth: float) -> None:
    """Show one slice (width × depth voxels) with the probe at the top and equal mm on both axes."""
    extent = (0.0, width, depth, 0.0)
    ax.imshow(grey.T, cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="bilinear")
    if classes is not None:
        masked = np.ma.masked_equal(classes.T, 0)
        colours = ListedColormap(_COLOURS)
        ax.imshow(masked, cmap=colours, vmin=-0.5, vmax=6.5, alpha=0.4, extent=extent, interpolation="nearest")
    ax.set_xticks([])
    ax.tick_params(labelsize=7)
