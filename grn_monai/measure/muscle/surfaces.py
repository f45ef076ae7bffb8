"""Muscles as surfaces, rendered off-screen by PyVista, an optional extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from grn_monai.files import write_whole
from grn_monai.measure.muscle.frame import AxialFrame
from grn_monai.measure.muscle.pictures import colour_legend, muscle_colours, new_figure, png_bytes

__all__ = ["NO_PYVISTA", "has_pyvista", "muscle_surface", "write_surfaces"]

NO_PYVISTA = "no surfaces: they need PyVista (pip install pyvista)"

_SMOOTHING_MM = 1.5
_SIZE = (720, 720)
_VIEWS = (("from the front", (0.0, 1.0, 0.12), "RL"), ("from behind", (0.0, -1.0, 0.12), "LR"))
"""Name, direction of the camera from the muscles (right, anterior, superior), and the person's sides left to right."""


def has_pyvista() -> bool:
    """Whether surfaces can be rendered."""
    return importlib.util.find_spec("pyvista") is not None


def muscle_surface(labels: npt.NDArray[np.integer], label: int, frame: AxialFrame) -> Any:
    """The surface of one muscle, in mm (RAS): the half-way surface of the slightly smoothed mask.

    Args:
        labels: (X, Y, Z) labels.
        label: the muscle.
        frame: of the volume.

    Returns:
        A `pyvista.PolyData`, or None where the muscle is not there.
    """
    import pyvista as pv

    boxes = ndimage.find_objects(labels, max_label=label)
    if len(boxes) < label or boxes[label - 1] is None:
        return None
    box = boxes[label - 1]
    pad = 3
    mask = np.pad((labels[box] == label).astype(np.float32), pad)
    soft = ndimage.gaussian_filter(mask, [_SMOOTHING_MM / step for step in frame.spacing_mm])
    # A thin muscle would fade below one half.
    soft = np.maximum(soft, 0.501 * mask)
    grid = pv.ImageData(dimensions=soft.shape)
    grid.point_data["mask"] = soft.ravel(order="F")
    surface = grid.contour([0.5], scalars="mask")
    start = np.array([part.start for part in box], dtype=np.float64) - pad
    points = np.asarray(surface.points, dtype=np.float64) + start
    surface.points = points @ frame.affine[:3, :3].T + frame.affine[:3, 3]
    if surface.n_points:
        surface = surface.smooth_taubin(n_iter=30, pass_band=0.08)
    return surface


def write_surfaces(
    path: Path, title: str, labels: npt.NDArray[np.integer], names: Mapping[int, str], frame: AxialFrame
) -> None:
    """Renders all muscles of a scan from the front and from behind, with the person's sides marked.

    Args:
        path: PNG to write.
        title: above the picture.
        labels: (X, Y, Z) labels, RAS.
        names: label to name.
        frame: of the volume.
    """
    import pyvista as pv

    pv.vtk_verbosity("off")  # without a display VTK says so on stderr, and goes on without
    found = {label: muscle_surface(labels, label, frame) for label in names}
    meshes = {label: mesh for label, mesh in found.items() if mesh is not None and mesh.n_points}
    if not meshes:
        return
    points = np.concatenate([np.asarray(mesh.points) for mesh in meshes.values()])
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    colours = muscle_colours(names)
    views = []
    for _, direction, _ in _VIEWS:
        plotter = pv.Plotter(off_screen=True, window_size=list(_SIZE), border=False)
        try:
            plotter.set_background("white")
            for label, mesh in meshes.items():
                plotter.add_mesh(mesh, color=colours[label], smooth_shading=True, specular=0.2)
            plotter.camera.focal_point = middle
            plotter.camera.position = middle + np.asarray(direction) * 10 * float(np.linalg.norm(high - low))
            plotter.camera.up = (0, 0, 1)
            plotter.camera.parallel_projection = True
            plotter.reset_camera()
            views.append(plotter.screenshot(None, return_img=True))
        finally:
            plotter.close()
    write_whole(path, _composed(title, views, {names[label]: colours[label] for label in meshes}))


def _composed(title: str, views: Sequence[npt.NDArray[np.uint8]], colours: Mapping[str, str]) -> bytes:
    """Both views side by side with their names, the person's sides, and the colours."""
    width, height, legend, head = 4.4, 4.4, 1.75, 0.55
    whole = (len(views) * width + legend, height + head)
    figure = new_figure(*whole)
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / whole[1], va="top")
    for i, (picture, (name, _, sides)) in enumerate(zip(views, _VIEWS, strict=True)):
        ax = figure.add_axes((i * width / whole[0], 0, width / whole[0], height / whole[1]))
        ax.imshow(picture, aspect="auto", interpolation="antialiased")
        ax.set_axis_off()
        ax.set_title(name, fontsize=8, pad=3)
        for text, x, align in zip(sides, (0.02, 0.98), ("left", "right"), strict=True):
            ax.text(x, 0.5, text, transform=ax.transAxes, ha=align, va="center", fontsize=11, fontweight="bold")
    colour_legend(figure, colours, 1 - (legend - 0.1) / whole[0], 1 - head / whole[1])
    return png_bytes(figure)
