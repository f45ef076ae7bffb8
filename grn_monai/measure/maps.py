"""Thickness maps as a picture and as NIfTI."""

from __future__ import annotations

import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grn_monai.files import replacing, write_whole
from grn_monai.labels import LAYER_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["scale_end", "write_map_picture", "write_maps_nifti"]

Map = npt.NDArray[np.float32]

_ABSENT = "#d9d9d9"
_NICE = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


def scale_end(p95: float) -> float:
    """End of a colour bar of thickness that begins at 0: the next round number not below the 95th percentile.

    Args:
        p95: 95th percentile of the thickness in mm, over the A-lines that meet the layer, > 0; of several scans that
            share the bar, the highest.
    """
    power = 10.0 ** math.floor(math.log10(p95))
    return next(step * power for step in _NICE if step * power >= p95 * (1 - 1e-9))


def write_map_picture(
    path: Path,
    title: str,
    maps: Mapping[int, Map],
    names: Mapping[int, str],
    spacing: Sequence[float],
    cut: Collection[int] = (),
) -> None:
    """Draws the thickness of all layers of a scan: maps seen along the beam, X to the right and Y downwards.

    A scan with one voxel along X or Y has a curve over the other axis for each layer, all in one panel.

    Args:
        path: PNG to write.
        title: above the picture.
        maps: label to (X, Y) thickness along the A-line in mm, 0 where the layer is absent (grey, or a gap).
        names: label to layer name.
        spacing: voxel size (X, Y, Z) in mm; both lateral axes are drawn to one scale.
        cut: labels that go on beyond the field of view somewhere, so that their thickness is a lower bound.
    """
    draw = _curves if 1 in next(iter(maps.values())).shape else _maps
    write_whole(path, draw(title, maps, names, spacing, cut))


def _mean(thickness: Map, cut: bool) -> str:
    present = thickness[thickness > 0]
    if not present.size:
        return "absent"
    mean = f"{present.mean():.2f} mm"
    return f"mean at least {mean} (cut by the field of view)" if cut else f"mean {mean}"


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _curves(
    title: str, maps: Mapping[int, Map], names: Mapping[int, str], spacing: Sequence[float], cut: Collection[int]
) -> bytes:
    """Thickness against the position along the only axis with more than one voxel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.2))
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0.07, 0.13, 0.5, 0.76))
    nx, ny = next(iter(maps.values())).shape
    axis, count = (1, ny) if nx == 1 and ny > 1 else (0, nx)
    position = (np.arange(count) + 0.5) * float(spacing[axis])
    for label, thickness in maps.items():
        curve = thickness.ravel().astype(np.float64)
        curve[curve == 0] = np.nan
        name = f"{names.get(label, label)}: {_mean(thickness, label in cut)}"
        # A dot shows what has absent neighbours on both sides, which is no line.
        alone = ~np.isnan(curve) & np.isnan(np.r_[np.nan, curve[:-1]]) & np.isnan(np.r_[curve[1:], np.nan])
        marks = np.flatnonzero(alone).tolist()
        ax.plot(
            position, curve, color=LAYER_COLOURS.get(label), lw=1.6, marker="o", ms=3, markevery=marks, label=name
        )  # fmt: skip
    ax.set_xlim(0, count * float(spacing[axis]))
    ax.set_ylim(bottom=0)
    ax.grid(color="#e5e5e5", lw=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8)
    ax.set_xlabel(f"{'xy'[axis]} in mm", fontsize=8)
    ax.set_ylabel("thickness in mm", fontsize=8)
    figure.suptitle(f"{title} (single slice)", fontsize=10)
    figure.legend(*ax.get_legend_handles_labels(), loc="center left", bbox_to_anchor=(0.58, 0.5), fontsize=8,
                  frameon=False)  # fmt: skip
    return _png(figure)


def _maps(
    title: str, maps: Mapping[int, Map], names: Mapping[int, str], spacing: Sequence[float], cut: Collection[int]
) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    nx, ny = next(iter(maps.values())).shape
    width, height = nx * float(spacing[0]), ny * float(spacing[1])
    # Places in inches: a layout engine would draw everything twice, and take twice the time.
    side = 2.5 / max(width, height)
    box = (0.45, 0.4, max(width * side, 2.0), max(height * side, 0.5))  # left, bottom and size of the axes in a cell
    cell = (box[0] + box[2] + 0.85, box[1] + box[3] + 0.45)
    top = 0.55
    size = (max(cell[0] * columns, 6.0), cell[1] * rows + top)
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / size[1], va="top")
    how = "Seen along the beam: x to the right, y downwards. Grey: layer not met. Colour scales of this scan alone."
    figure.text(0.5, 1 - 0.33 / size[1], how, fontsize=7.5, color="#555555", ha="center", va="top")
    corners = [(cell[0] * (i % columns), size[1] - top - cell[1] * (i // columns + 1)) for i in range(len(maps))]

    def place(corner: tuple[float, float], left: float, wide: float) -> Axes:
        x, y = corner[0] + left, corner[1] + box[1]
        found: Axes = figure.add_axes((x / size[0], y / size[1], wide / size[0], box[3] / size[1]))
        return found

    for index, (corner, (label, thickness)) in enumerate(zip(corners, maps.items(), strict=True)):
        ax = place(corner, box[0], box[2])
        present = thickness[thickness > 0]
        end = scale_end(float(np.percentile(present, 95))) if present.size else 1.0
        shown = np.ma.masked_equal(thickness, 0).T
        ax.set_facecolor(_ABSENT)
        picture = ax.imshow(
            shown, origin="upper", extent=(0, width, height, 0), vmin=0, vmax=end, cmap="viridis", aspect="equal",
            interpolation="nearest",
        )  # fmt: skip
        ax.set_title(f"{names.get(label, label)}\n{_mean(thickness, label in cut)}", fontsize=8)
        ax.tick_params(labelsize=7)
        # Ticks are most of the drawing time.
        ax.set_xticks(np.arange(0, width, 10), [] if index + columns < len(maps) else None)
        ax.set_yticks(np.arange(0, height, 10), [] if index % columns else None)
        bar = figure.colorbar(
            picture, cax=place(corner, box[0] + box[2] + 0.08, 0.1), ticks=[0, end / 2, end], format="%g",
            extend="max" if present.size and present.max() > end else "neither",
        )  # fmt: skip
        bar.ax.tick_params(labelsize=7)
        bar.set_label("mm", fontsize=7)
        ax.set_xlabel("x in mm" if index + columns >= len(maps) else "", fontsize=7)
        ax.set_ylabel("y in mm" if index % columns == 0 else "", fontsize=7)
    return _png(figure)


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
