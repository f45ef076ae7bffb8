"""How a scan is taken: sampling grid, place and the drawn numbers of the scanner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data_prep.simulate.grid import Array
from data_prep.simulate.lumbar.settings import LumbarSettings
from data_prep.simulate.lumbar.subject import LumbarSubject
from data_prep.simulate.lumbar.trunk import back_of_skin, body_middle

__all__ = ["Acquisition", "LayeredField", "draw_acquisition"]

_FINE_MM = 2.8  # pixels above this are averages of 2 × 2
_SUB_SLICE_MM = 1.7
_MAX_SUB_SLICES = 5


@dataclass(frozen=True)
class Acquisition:
    """Geometry and drawn numbers of a scan.

    Args:
        shape: voxels.
        spacing_mm: voxel size.
        first_mm: centre of voxel (0, 0, 0) in the subject's own coordinates.
        origin_mm: the same in the scanner's world (RAS+).
        drawn: numbers of the scanner by name, and lists of them.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    first_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    drawn: dict[str, Any] = field(default_factory=dict)

    def parameters(self) -> dict[str, Any]:
        """List what was drawn, for the cohort's record."""
        return {"spacing_mm": list(self.spacing_mm), "origin_mm": list(self.origin_mm), **self.drawn}

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel to world (mm, RAS+)."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = self.origin_mm
        return affine

    @property
    def sub_pixels(self) -> int:
        """Samples of the tissue map along each side of a pixel."""
        return 1 if self.spacing_mm[0] <= _FINE_MM else 2

    @property
    def sub_slices(self) -> int:
        """Planes of the tissue map in a slice."""
        return int(np.clip(np.ceil(self.spacing_mm[2] / _SUB_SLICE_MM), 1, _MAX_SUB_SLICES))

    def fine_positions(self, axis: int) -> Array:
        """Positions of the tissue map's samples along an axis in the subject's coordinates, in mm."""
        parts = self.sub_slices if axis == 2 else self.sub_pixels
        offsets = (np.arange(parts) + 0.5) / parts - 0.5
        voxel = np.arange(self.shape[axis])[:, None] + offsets[None, :]
        return (self.first_mm[axis] + voxel.ravel() * self.spacing_mm[axis]).astype(np.float32)

    def levels(self, subject: LumbarSubject) -> dict[str, float]:
        """Height in the world (mm) of the middle of each vertebral body that is in view, L1 first."""
        shift = self.origin_mm[2] - self.first_mm[2]
        low = self.first_mm[2] - self.spacing_mm[2] / 2
        high = low + self.shape[2] * self.spacing_mm[2]
        return {name: round(z + shift, 2) for name, z in subject.level_z().items() if low < z < high}


def draw_acquisition(settings: LumbarSettings, subject: LumbarSubject) -> Acquisition:
    """Draw how a subject is scanned; it depends on the settings and the subject's number alone."""
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(7, subject.number, 1)))
    plane = settings.spacing[0] * (1 + settings.jitter * rng.uniform(-1, 1))
    thick = settings.spacing[2] * (1 - settings.jitter * rng.uniform(0, 1))
    # As scanners write them; both axes of the plane are scaled alike.
    dx, dz = round(plane, 4), round(thick, 4)
    dy = round(plane * settings.spacing[1] / settings.spacing[0], 4)
    nx, ny, nz = settings.voxels
    middle_x, middle_y, middle_z = rng.uniform(-5, 5), rng.uniform(-5, 5), rng.uniform(-4, 4)
    # A field of view that is smaller than the body is laid at the back.
    behind = back_of_skin(subject, 0.0) - 14
    middle_y += min(body_middle(subject), behind + ny * dy / 2)
    first = (
        middle_x - (nx - 1) / 2 * dx,
        middle_y - (ny - 1) / 2 * dy,
        middle_z - (nz - 1) / 2 * dz,
    )
    world = rng.uniform((-10, -150, -600), (10, 50, 100))
    origin = tuple(round(float(f + w), 3) for f, w in zip(first, world, strict=True))
    drawn = _draw_ct(rng, subject) if settings.modality == "ct" else _draw_mri(rng)
    return Acquisition(settings.voxels, (dx, dy, dz), first, (origin[0], origin[1], origin[2]), drawn)


def _draw_ct(rng: np.random.Generator, subject: LumbarSubject) -> dict[str, Any]:
    enhanced = bool(rng.random() < 0.5)
    return {
        "noise_hu": float(np.clip(rng.uniform(8, 20) * np.exp(0.12 * subject.adiposity), 8, 25)),
        "blur_mm": float(rng.uniform(0.6, 0.9)),
        "contrast_medium": enhanced,
        "hu": {
            "skin": float(rng.uniform(10, 40)),
            "fat": float(rng.normal(-105, 3)),
            "muscle": float(np.clip(rng.normal(55, 4), 46, 64)),
            "cortical_bone": float(rng.uniform(600, 1000)),
            "cancellous_bone": float(rng.uniform(150, 250)),
            "disc": float(rng.uniform(70, 90)),
            "vessel": float(rng.uniform(120, 190) if enhanced else rng.uniform(38, 50)),
            "kidney": float(rng.uniform(130, 190) if enhanced else rng.uniform(28, 38)),
            "liver": float(rng.uniform(90, 120) if enhanced else rng.uniform(50, 65)),
            "bowel": float(rng.uniform(10, 45)),
        },
    }


def _draw_mri(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "gain": float(np.exp(rng.uniform(np.log(250), np.log(2500)))),
        "noise": float(rng.uniform(0.012, 0.032)),
        "blur_mm": float(rng.uniform(0.3, 0.6)),
        "coil_depth_mm": float(rng.uniform(70, 130)),
        "coil_share": float(rng.uniform(0.5, 0.9)),
        "bias": [float(v) for v in rng.normal(0, 0.08, 6)],
        "signal": {
            "fat": float(rng.uniform(0.8, 1.0)),
            "muscle": float(rng.uniform(0.14, 0.24)),
            "marrow": float(rng.uniform(0.4, 0.65)),
            "nucleus": float(rng.uniform(0.2, 0.75)),
            "csf": float(rng.uniform(1.15, 1.4)),
            "bowel": float(rng.uniform(0.3, 0.8)),
        },
    }


class LayeredField:
    """A Gaussian random field of mean 0 and variance 1 that is asked for plane by plane, upwards.

    Independent planes every `step_mm` are blended in between, so that only two are in memory.

    Args:
        rng: draws the field.
        shape: samples of a plane.
        sigma: of the Gaussian filter in samples, along x and y.
        start_mm: height of the first plane; no lower one can be had.
        step_mm: distance of the independent planes.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int],
        sigma: tuple[float, float],
        start_mm: float,
        step_mm: float,
    ) -> None:
        self._rng, self._shape, self._sigma = rng, shape, sigma
        self._low, self._step = start_mm, step_mm
        self._planes = (self._draw(), self._draw())

    def _draw(self) -> Array:
        plane = self._rng.standard_normal(self._shape, dtype=np.float32)
        plane = ndimage.gaussian_filter(plane, self._sigma, mode="wrap", truncate=3.0)
        plane /= plane.std()
        return plane

    def at(self, z: float) -> Array:
        """The plane at a height in mm, (X, Y)."""
        while z >= self._low + self._step:
            self._planes = (self._planes[1], self._draw())
            self._low += self._step
        angle = np.pi / 2 * (z - self._low) / self._step  # cos² + sin² = 1 keeps the variance
        return np.float32(np.cos(angle)) * self._planes[0] + np.float32(np.sin(angle)) * self._planes[1]
