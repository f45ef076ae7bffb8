"""Small layered volumes with known imperfections, for the tests of metrics and report."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Labels = npt.NDArray[np.uint8]


def layered_truth(seed: int, shape: tuple[int, int, int] = (14, 12, 40)) -> Labels:
    """Six wavy layers under a gel, skin first, every A-line with all of them."""
    rng = np.random.default_rng(seed)
    depth = np.cumsum([2, 4, 8, 3, 7, 3]) * shape[2] / 40
    out = np.zeros(shape, np.uint8)
    for label, boundary in enumerate(depth, start=1):
        wave = gaussian_filter(rng.standard_normal(shape[:2]), 3)
        wave *= 0.03 * shape[2] / np.abs(wave).max()
        out[np.arange(shape[2]) >= (boundary + wave)[..., None]] = label
    return out


def perturbed(truth: Labels, seed: int, shift: float = 1.2, smooth: float = 2.0) -> Labels:
    """The layers of `truth` moved along depth and stretched, by smooth random amounts of about `shift` voxels."""
    rng = np.random.default_rng(seed)
    move, stretch = (gaussian_filter(rng.standard_normal(truth.shape[:2]), smooth) for _ in range(2))
    size = truth.shape[2]
    depth = np.arange(size)
    moved = depth + (move * shift / move.std())[..., None]
    moved = moved + (stretch * shift / stretch.std())[..., None] * np.sin(depth * 4 * np.pi / size)
    return np.take_along_axis(truth, np.clip(np.rint(moved).astype(int), 0, size - 1), axis=2)
