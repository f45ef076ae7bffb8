"""Pictures of a segmentation: truth green, prediction red, overlap orange; and the curves of its training."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.files import replacing
from grn_monai.report.figures import styled, subplots

__all__ = ["chosen_slices", "overlay_rgb", "write_curves", "write_overlays"]

TRUTH, PREDICTION, OVERLAP = (0, 200, 0), (230, 0, 0), (255, 150, 0)
_OPACITY = 0.55

Labels = npt.NDArray[np.integer[Any]]


def overlay_rgb(grey: npt.NDArray[Any], truth: Labels, prediction: Labels) -> npt.NDArray[np.uint8]:
    """One axial slice as it is usually shown: the patient's right on the left, anterior on top.

    Green where only the truth has a muscle, red where the prediction has one that the truth has not there (another
    muscle counts as that), orange where both agree.

    Args:
        grey: ``(X, Y)`` in RAS, −1 black to 1 white.
        truth: ``(X, Y)`` labels, 0 background.
        prediction: ``(X, Y)`` labels.

    Returns:
        ``(Y, X, 3)``.
    """
    rgb = np.repeat(np.clip((grey[..., None] + 1) * 127.5, 0, 255), 3, axis=-1)
    parts = (
        ((truth > 0) & (prediction == 0), TRUTH),
        ((prediction > 0) & (prediction != truth), PREDICTION),
        ((truth > 0) & (prediction == truth), OVERLAP),
    )
    for mask, colour in parts:
        rgb[mask] = (1 - _OPACITY) * rgb[mask] + _OPACITY * np.array(colour)
    shown: npt.NDArray[np.uint8] = np.rint(rgb).astype(np.uint8)[::-1, ::-1].transpose(1, 0, 2)
    return shown


def chosen_slices(truth: Labels, prediction: Labels, slices: int | Sequence[int]) -> list[int]:
    """Which slices to show.

    Args:
        truth: ``(X, Y, Z)`` in RAS.
        prediction: ``(X, Y, Z)``.
        slices: their positions, counted from the most inferior one; or how many, spread evenly over those in which
            truth or prediction has a muscle (over all, where none has).

    Raises:
        InputError: a position outside the scan, or a number below 1.
    """
    depth = truth.shape[2]
    if isinstance(slices, Sequence):
        wanted = [int(position) for position in slices]
        if not wanted or min(wanted) < 0 or max(wanted) >= depth:
            mend = "Correct the option overlay_slices."
            raise InputError("overlay_slices", str(wanted), f"positions from 0 to {depth - 1}", mend)
        return wanted
    if int(slices) < 1:
        raise InputError("overlay_slices", str(slices), "a number from 1, or positions", "Correct the option.")
    filled = np.flatnonzero(((truth > 0) | (prediction > 0)).any(axis=(0, 1)))
    filled = filled if filled.size else np.arange(depth)
    count = min(int(slices), filled.size)
    # The middles of equal parts: the ends of a muscle say least about it.
    return [int(filled[int((i + 0.5) * filled.size / count)]) for i in range(count)]


@styled
def write_overlays(
    path: str | os.PathLike[str],
    grey: npt.NDArray[Any],
    truth: Labels,
    prediction: Labels,
    spacing: Sequence[float],
    slices: int | Sequence[int] = 3,
    title: str = "",
) -> Path:
    """Write the chosen slices of one scan, side by side, as one PNG.

    Args:
        path: of the picture.
        grey: ``(X, Y, Z)`` in RAS, −1 to 1.
        truth: labels on the same grid.
        prediction: labels on the same grid.
        spacing: voxel size along the three axes in mm.
        slices: see `chosen_slices`.
        title: above the picture.

    Raises:
        InputError: slices that are not there, or a folder that cannot be written.
    """
    from matplotlib.patches import Patch

    positions = chosen_slices(truth, prediction, slices)
    width, height = grey.shape[0] * spacing[0], grey.shape[1] * spacing[1]
    figure, grid = subplots(1, len(positions), 3.4 * len(positions), 3.4 * height / width + 0.8)
    for axes, k in zip(grid[0], positions, strict=True):
        picture = overlay_rgb(grey[..., k], truth[..., k], prediction[..., k])
        axes.imshow(picture, extent=(0, width, height, 0), interpolation="nearest")
        axes.set_title(f"slice {k + 1} of {grey.shape[2]}")
        axes.text(0.02, 0.5, "R", transform=axes.transAxes, color="white", va="center")
        axes.text(0.98, 0.5, "L", transform=axes.transAxes, color="white", va="center", ha="right")
        axes.set_axis_off()
    names = {"truth only": TRUTH, "prediction only": PREDICTION, "both": OVERLAP}
    patches = [Patch(color=[part / 255 for part in colour], label=name) for name, colour in names.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3)
    figure.suptitle(title, fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130, facecolor="white")
    return Path(path)


@styled
def write_curves(history: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Write the curves of a training as one PNG: its losses, and the metrics of its validation.

    Args:
        history: ``history.csv`` of a run, see `grn_monai.handlers.HistoryHandler`.
        path: of the picture.

    Raises:
        InputError: there is no such file, or no epoch in it.
    """
    file = Path(history)
    rows = []
    if file.is_file():
        with open(file, newline="") as text:
            rows = list(csv.DictReader(text))
    if not rows:
        raise InputError(file, "no epochs", "the history.csv of a training", "Train first, or name the run's folder.")
    names = [name for name in rows[0] if name not in ("epoch", "iteration", "seconds") and "grad_norm" not in name]
    panels = {
        "Training (mean of the epoch)": [name for name in names if not name.startswith("val_")],
        "Validation": [name for name in names if name.startswith("val_")],
    }
    figure, grid = subplots(1, 2, 9, 3.2)
    for axes, (title, series) in zip(grid[0], panels.items(), strict=True):
        for name in series:
            points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None, label=name)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
        if series:
            axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130, facecolor="white")
    return Path(path)
