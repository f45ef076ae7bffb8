"""The sampling grid of a simulated scan and the random fields drawn on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["Array", "Grid", "SmoothField", "texture_pair"]

Array = NDArray[np.float32]

_LATERAL_PADDING_MM = 1.6
"""Beams reach this far beyond the volume; the margin is simulated and cropped."""


@dataclass(frozen=True)
class Grid:
    """A padded grid of voxel centres: x and y along the probe face, z is depth from the probe.

    Args:
        shape: voxels (X, Y, Z) of the volume to be written.
        extent_mm: its size in mm.
    """

    shape: tuple[int, int, int]
    extent_mm: tuple[float, float, float]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        dx, dy, dz = (e / n for e, n in zip(self.extent_mm, self.shape, strict=True))
        return dx, dy, dz

    @cached_property
    def padded(self) -> tuple[int, int, int]:
        """Voxels of the simulated grid, a little wider than `shape` and fast to transform."""
        nx, ny = (
            fft.next_fast_len(n + 2 * max(2, round(_LATERAL_PADDING_MM / d)))
            for n, d in zip(self.shape[:2], self.spacing[:2], strict=True)
        )
        return nx, ny, self.shape[2]

    @cached_property
    def crop(self) -> tuple[slice, slice, slice]:
        """Where the volume to be written lies in the simulated grid."""
        (ox, oy) = ((p - n) // 2 for p, n in zip(self.padded[:2], self.shape[:2], strict=True))
        return slice(ox, ox + self.shape[0]), slice(oy, oy + self.shape[1]), slice(None)

    @cached_property
    def x(self) -> Array:
        """Centres along x in mm, shape (X, 1), 0 in the middle of the written volume."""
        i = np.arange(self.padded[0]) - self.crop[0].start - (self.shape[0] - 1) / 2
        return (i * self.spacing[0]).astype(np.float32)[:, None]

    @cached_property
    def y(self) -> Array:
        """Centres along y in mm, shape (1, Y), 0 in the middle of the written volume."""
        i = np.arange(self.padded[1]) - self.crop[1].start - (self.shape[1] - 1) / 2
        return (i * self.spacing[1]).astype(np.float32)[None, :]

    @cached_property
    def z(self) -> Array:
        """Depths of the centres in mm, shape (Z,)."""
        return ((np.arange(self.shape[2]) + 0.5) * self.spacing[2]).astype(np.float32)


class SmoothField:
    """A stationary Gaussian random function of two coordinates, by random Fourier features.

    It can be evaluated anywhere, so that scans at two places of a subject see parts of one anatomy.

    Args:
        rng: draws the features.
        length_mm: length scale ℓ of the squared-exponential correlation exp(−r²/2ℓ²).
        features: number of cosines; the field is nearly Gaussian from about 30.
    """

    def __init__(self, rng: np.random.Generator, length_mm: float, features: int = 32) -> None:
        self._k = (rng.standard_normal((features, 2)) / length_mm).astype(np.float32)
        self._phase = rng.uniform(0, 2 * np.pi, features).astype(np.float32)

    def __call__(self, u: Array, v: Array) -> Array:
        """Evaluate at coordinates in mm that broadcast to (X, Y): mean 0, variance 1."""
        out = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
        for (ku, kv), phase in zip(self._k, self._phase, strict=True):
            out += np.cos(ku * u + kv * v + phase)
        return out * np.float32(np.sqrt(2 / len(self._k)))


def texture_pair(
    rng: np.random.Generator, grid: Grid, length_mm: tuple[float, float, float], slope: float = 0.0
) -> tuple[Array, Array]:
    """Draw two independent anisotropic Gaussian fields with the same correlation.

    The correlation along each axis is exp(−r²/4ℓ²); zeros along z are then about 4.4 ℓz apart. One complex
    transform gives two real fields, which is why they come in pairs.

    Args:
        rng: draws the fields.
        grid: where.
        length_mm: ℓ along x, along the (tilted) y axis, and along z.
        slope: dz/dy of the second axis, 0 for one along the probe face.

    Returns:
        Two arrays of shape `grid.padded` with mean 0 and variance 1.
    """
    kx, ky, kz = (
        (2 * np.pi * np.fft.fftfreq(n, d)).astype(np.float32) for n, d in zip(grid.padded, grid.spacing, strict=True)
    )
    lx, ly, lz = length_mm
    across = np.exp(-0.5 * (kx * lx) ** 2)
    # A shear of space by z → z + slope·y turns ky into ky + slope·kz.
    along = np.exp(-0.5 * ((ky[:, None] + slope * kz[None, :]) * ly) ** 2 - 0.5 * (kz[None, :] * lz) ** 2)
    norm = np.sqrt(float((across**2).sum()) * float((along**2).sum()))
    noise = rng.standard_normal((*grid.padded, 2), dtype=np.float32).view(np.complex64)[..., 0]
    noise *= across[:, None, None] * np.float32(1 / norm)
    noise *= along
    field = fft.ifftn(noise, norm="forward", overwrite_x=True)
    return np.ascontiguousarray(field.real), np.ascontiguousarray(field.imag)
