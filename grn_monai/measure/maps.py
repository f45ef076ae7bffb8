"""Thickness maps as a picture and as NIfTI."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from grn_monai.files import replacing, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["write_map_picture", "write_maps_nifti"]

Map = npt.NDArray[np.float32]

_ABSENT = "#d9d9d9"


def write_map_picture(
    path: Path,
    title: str,
    maps: Mapping[int, Map],
    names: Mapping[int, str],
    spacing: Sequence[float],
    cut: Collection[int] = (),
) -> None:
    """Draws the thickness maps of all layers of a scan, seen from the probe.

    Args:
        path: PNG to write.
        title: above the picture.
        maps: label to (X, Y) thickness along the A-line in mm, 0 where the layer is absent (grey in the picture).
        names: label to layer name.
        spacing: voxel size (X, Y, Z) in mm; both lateral axes are drawn to one scale.
        cut: labels that reach the deepest voxel somewhere, so that their thickness is a lower bound.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    nx, ny = next(iter(maps.values())).shape
    width, height = nx * float(spacing[0]), ny * float(spacing[1])
    # Places in inches: a layout engine would draw everything twice, and take twice the time.
    side = 2.5 / max(width, height)
    box = (0.45, 0.4, width * side, height * side)  # left and bottom of the axes in their cell, and their size
    cell = (box[0] + box[2] + 0.85, box[1] + box[3] + 0.45)
    size = (cell[0] * columns, cell[1] * rows + 0.3)
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / size[1], va="top")
    corners = [(cell[0] * (i % columns), size[1] - 0.3 - cell[1] * (i // columns + 1)) for i in range(len(maps))]

    def place(corner: tuple[float, float], left: float, wide: float) -> Axes:
        x, y = corner[0] + left, corner[1] + box[1]
        found: Axes = figure.add_axes((x / size[0], y / size[1], wide / size[0], box[3] / size[1]))
        return found

    for index, (corner, (label, thickness)) in enumerate(zip(corners, maps.items(), strict=True)):
        ax = place(corner, box[0], box[2])
        present = thickness[thickness > 0]
        top = float(np.percentile(present, 99.5)) if present.size else 1.0
        shown = np.ma.masked_equal(thickness, 0).T
        ax.set_facecolor(_ABSENT)
        picture = ax.imshow(
            shown, origin="lower", extent=(0, width, 0, height), vmin=0, vmax=top, cmap="viridis", aspect="equal",
            interpolation="nearest",
        )  # fmt: skip
        mean = f"mean {present.mean():.2f} mm" if present.size else "absent"
        if label in cut:
            mean = mean.replace("mean", "mean at least") + " (cut by the field of view)"
        ax.set_title(f"{names.get(label, label)}\n{mean}", fontsize=8)
        ax.tick_params(labelsize=7)
        # Ticks are most of the drawing time.
        ax.set_xticks(np.arange(0, width, 10), [] if index + columns < len(maps) else None)
        ax.set_yticks(np.arange(0, height, 10), [] if index % columns else None)
        bar = figure.colorbar(
            picture, cax=place(corner, box[0] + box[2] + 0.08, 0.1), ticks=MaxNLocator(3, steps=[1, 2, 5, 10])
        )
        bar.ax.tick_params(labelsize=7)
        bar.set_label("mm", fontsize=7)
        ax.set_xlabel("x in mm" if index + columns >= len(maps) else "", fontsize=7)
        ax.set_ylabel("y in mm" if index % columns == 0 else "", fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_whole(path, buffer.getvalue())


def write_maps_nifti(path: Path, maps: Mapping[int, Map], affine: npt.NDArray[np.float64], depth_voxels: int) -> None:
    """Writes maps as one NIfTI of a single slice through the scan, with a volume for each layer.

    Args:
        path: ends in .nii.gz.
        maps: label to (X, Y) in mm; they become the fourth axis, in this order.
        affine: of the scan frame (X, Y, Z), voxel to RAS in mm.
        depth_voxels: voxels of the scan along depth; the slice is as thick as the scan, so that it lies over all of
            it in a viewer.
    """
    import nibabel as nib

    slab = np.array(affine, dtype=np.float64)
    slab[:3, 3] += slab[:3, 2] * (depth_voxels - 1) / 2
    slab[:3, 2] *= depth_voxels
    image = nib.Nifti1Image(np.stack(list(maps.values()), axis=-1)[:, :, None].astype(np.float32), slab)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = "thickness in mm; volumes: labels " + " ".join(map(str, maps))
    with replacing(path) as temporary:
        nib.save(image, temporary)
