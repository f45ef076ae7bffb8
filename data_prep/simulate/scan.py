"""One simulated scan: image, label and geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.files import write_nifti
from data_prep.simulate.acquisition import acquire
from data_prep.simulate.anatomy import draw_subject
from data_prep.simulate.conditions import Conditions, draw_conditions
from data_prep.simulate.grid import Grid
from data_prep.simulate.settings import Settings
from data_prep.simulate.tissue import build_tissue

__all__ = ["scan_affine", "scan_parameters", "simulate_scan", "write_scan"]


def _draw_conditions(settings: Settings, subject: int, scan: int) -> Conditions:
    place, repeat = divmod(scan - 1, settings.repeats)
    lateral = settings.extent_mm[:2]
    return draw_conditions(settings.seed, subject, place + 1, settings.dynamic_range_db, lateral, repeat + 1)


def scan_parameters(settings: Settings, subject: int, scan: int) -> dict[str, Any]:
    """List the conditions of a scan, as drawn."""
    return _draw_conditions(settings, subject, scan).parameters()


def scan_affine(grid: Grid, centre_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Voxel to world (mm, RAS+): array axes point left, superior and anterior (depth).

    The probe lies on the back of a prone patient; the world's origin is on the midline of the back.

    Args:
        grid: sampling.
        centre_mm: place of the probe: mm to the left of the midline, and mm towards the head.
    """
    dx, dy, dz = grid.spacing
    (nx, ny, _), (left, up) = grid.shape, centre_mm
    affine = np.zeros((4, 4))
    affine[0, 0], affine[2, 1], affine[1, 2], affine[3, 3] = -dx, dy, dz, 1
    affine[:3, 3] = -left + (nx - 1) / 2 * dx, dz / 2, up - (ny - 1) / 2 * dy
    return affine


def write_scan(image_path: Path, label_path: Path, settings: Settings, subject: int, scan: int) -> None:
    """Simulate a scan and write its files, the image last; a worker runs this."""
    image, label, affine = simulate_scan(settings, subject, scan)
    write_nifti(label_path, label, affine)
    write_nifti(image_path, image, affine)


def simulate_scan(
    settings: Settings, subject: int, scan: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float64]]:
    """Simulate scan `scan` of subject `subject`; the result depends on these and the settings alone.

    Returns:
        Image (grey values 0–255) and label (0–6), both uint8 (X, Y, Z) with depth last, and the affine.
    """
    grid = Grid(settings.shape, settings.extent_mm)
    cond = _draw_conditions(settings, subject, scan)
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(subject, scan, 1)))
    tissue, labels = build_tissue(draw_subject(settings.seed, subject), cond, grid, rng)
    image = acquire(tissue, cond, grid, rng)
    return image, np.ascontiguousarray(labels[grid.crop]), scan_affine(grid, cond.centre_mm)
