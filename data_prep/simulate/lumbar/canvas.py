"""One plane of the phantom: tissue codes painted shape by shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_prep.simulate.grid import Array

__all__ = ["Canvas", "Outline", "Patch"]


@dataclass(frozen=True)
class Outline:
    """A star-shaped outline in a plane, in mm: an ellipse with wavy radius.

    Args:
        x: centre; RAS, so x grows to the person's right.
        y: centre; y grows to the front.
        rx: half axis along x before the turn.
        ry: half axis along y before the turn.
        turn: angle in radians from x towards y, mirrored on the left side.
        waves: cosine and sine amplitudes, relative to the radius, of the harmonics 3, 4, ….
        side: 1, or −1 to mirror the outline about its centre's x.
    """

    x: float
    y: float
    rx: float
    ry: float
    turn: float = 0.0
    waves: tuple[tuple[float, float], ...] = ()
    side: int = 1

    @property
    def reach(self) -> float:
        """No point of the outline is farther from the centre."""
        return max(self.rx, self.ry) * (1 + sum(abs(a) + abs(b) for a, b in self.waves))


@dataclass(frozen=True)
class Patch:
    """The part of the plane near an outline.

    Args:
        box: where it lies in the canvas.
        depth: (x, y) distance in mm from the outline along the ray to its centre, positive inside.
    """

    box: tuple[slice, slice]
    depth: Array


class Canvas:
    """Tissue codes and muscle labels of a plane.

    Args:
        x: sample positions along x in mm, ascending, shape (X,).
        y: sample positions along y in mm, ascending, shape (Y,).
    """

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y
        shape = (len(x), len(y))
        self.tissue: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self.muscle: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        """True muscle, as in `MRI_MUSCLES`."""
        self.drawn: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        """The muscle as the annotator outlines it."""

    def patch(self, outline: Outline, margin: float = 0.0) -> Patch | None:
        """Measure the depth of the samples near an outline, or None where it is out of view."""
        if min(outline.rx, outline.ry) <= 0:
            return None
        reach = outline.reach + margin
        i0, i1 = np.searchsorted(self.x, (outline.x - reach, outline.x + reach))
        j0, j1 = np.searchsorted(self.y, (outline.y - reach, outline.y + reach))
        if i0 == i1 or j0 == j1:
            return None
        box = (slice(int(i0), int(i1)), slice(int(j0), int(j1)))
        return Patch(box, _depth(self.x[box[0]], self.y[box[1]], outline))

    def paint(self, outline: Outline, code: int, inset: float = 0.0) -> None:
        """Paint the inside of an outline, as far as it is deeper than `inset` mm."""
        patch = self.patch(outline)
        if patch is not None:
            self.tissue[patch.box][patch.depth > inset] = code


def _depth(x: Array, y: Array, outline: Outline) -> Array:
    u = (np.float32(outline.side) * (x - np.float32(outline.x)))[:, None]
    v = (y - np.float32(outline.y))[None, :]
    if outline.turn:
        c, s = np.float32(np.cos(outline.turn)), np.float32(np.sin(outline.turn))
        u, v = c * u + s * v, c * v - s * u
    r = np.sqrt(u * u + v * v) + np.float32(1e-6)
    p = np.sqrt((u / np.float32(outline.rx)) ** 2 + (v / np.float32(outline.ry)) ** 2)
    p += np.float32(1e-6 / min(outline.rx, outline.ry))  # at the very centre the lesser half axis
    edge = r / p  # radius of the ellipse in this direction
    if outline.waves:
        c1, s1 = u / r, v / r
        ck, sk = c1 * c1 - s1 * s1, 2 * c1 * s1
        swell = np.float32(1)
        for a, b in outline.waves:  # cos and sin of 3θ, 4θ, … by the addition theorem
            ck, sk = ck * c1 - sk * s1, sk * c1 + ck * s1
            swell = swell + np.float32(a) * ck + np.float32(b) * sk
        edge = edge * swell
    depth: Array = edge - r
    return depth
