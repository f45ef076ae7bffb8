"""Outlines of the muscles in a plane, and the fat inside them."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from data_prep.simulate.grid import Array
from data_prep.simulate.lumbar.canvas import Canvas, Outline, Patch
from data_prep.simulate.lumbar.subject import MUSCLES, SIDES, LumbarSubject
from data_prep.simulate.lumbar.tissues import Tissue
from grn_monai.labels import MRI_MUSCLES

__all__ = ["MuscleShapes", "fat_probability"]

_CODES = {name: value for value, name in MRI_MUSCLES.items()}

# At the middles of L1 to L5, in mm for a body of common size: centre to the side and to the front of the vertebral
# body's centre, half width and half depth. After the sizes in anatomy atlases and published cross-sectional areas.
_TABLE = {
    "multifidus": ((9, 10.5, 13, 16, 19), (-47, -47, -47, -48, -49), (6, 7.5, 10, 13, 16), (9, 10.5, 12, 14, 16)),
    "erector spinae": ((37, 39, 41, 43, 43), (-43, -43, -44, -46, -49), (25, 26, 25, 21, 17), (19, 19.5, 19, 17, 13)),
    "psoas": ((24, 29, 35, 40, 44), (-6, -5, -3, 0, 4), (6, 9.5, 13.5, 16.5, 18), (8, 12.5, 17, 20, 21)),
    "quadratus lumborum": ((45, 52, 58, 63, 66), (-20, -20, -19, -18, -16), (11, 14, 17, 19, 15), (5, 6.5, 8, 8.5, 7)),
}
_KNOTS = (0.0, 0.25, 0.5, 0.75, 1.0)

# Third to fifth harmonic of the typical shape: multifidus is a rounded triangle, the erector flat in front.
_WAVES = {
    "multifidus": ((0.05, -0.05), (0.03, 0.0), (0.0, 0.0)),
    "erector spinae": ((-0.03, -0.04), (0.0, 0.02), (0.0, 0.0)),
    "psoas": ((0.03, 0.02), (0.0, 0.0), (0.0, 0.0)),
    "quadratus lumborum": ((0.06, 0.0), (0.0, 0.0), (0.0, 0.0)),
}
_TURN = {"multifidus": 0.15, "erector spinae": -0.12, "psoas": 0.1, "quadratus lumborum": 0.35}


class MuscleShapes:
    """The muscles of a subject at given heights.

    Args:
        subject: whose.
        z: heights in mm, shape (Z,).
    """

    def __init__(self, subject: LumbarSubject, z: Array) -> None:
        self.subject, self.z = subject, z
        zero = np.zeros(1, np.float32)
        self._curves = {
            name: np.stack([curve(z, zero) for curve in curves], 1) for name, curves in subject.curves.items()
        }

    def outline(self, muscle: str, side: str, i: int) -> Outline:
        """Outline of a muscle at the i-th height; its half axes are 0 where the muscle has not begun."""
        subject, z = self.subject, float(self.z[i])
        t = float(subject.caudal(z))
        u, v, rx, ry = (float(np.interp(t, _KNOTS, row)) * subject.size for row in _TABLE[muscle])
        cx, cy = subject.centre(z)
        waves: tuple[tuple[float, float], ...] = _WAVES[muscle]
        if muscle in MUSCLES:
            name = f"{muscle} {side}"
            drawn = self._curves[name][i]
            scale = subject.scale[name]
            if muscle == "psoas":  # it arises at T12 and L1, and thins out there
                scale *= float(np.clip((t - subject.psoas_start) / 0.18 + 0.6, 0, 1))
            u += 0.8 * float(drawn[0]) + rx * (scale - 1) * (muscle == "multifidus")
            v += 0.8 * float(drawn[1])
            rx *= scale * float(np.exp(0.06 * drawn[2]))
            ry *= scale * float(np.exp(0.06 * drawn[3]))
            waves = tuple(
                (a + 0.025 * float(drawn[4 + 2 * k]), b + 0.025 * float(drawn[5 + 2 * k]))
                for k, (a, b) in enumerate(waves)
            )
        else:  # quadratus lumborum ends at the iliac crest
            rx, ry = (r * float(np.clip((1.0 - t) / 0.12, 0, 1)) ** 0.5 for r in (rx, ry))
        sign = SIDES[side]
        return Outline(cx + sign * u, cy + v, rx, ry, _TURN[muscle], waves, sign)

    def paint(
        self, canvas: Canvas, i: int, wall: Array, column: Array, jitter: Array, streaks: tuple[Array, Array]
    ) -> None:
        """Paint the muscles of both sides at the i-th height, with the fat inside them.

        Args:
            canvas: takes tissue, muscle and the annotator's outline.
            i: number of the height.
            wall: depth below the inner face of the subcutaneous fat, (X, Y) in mm.
            column: depth inside the vertebral column, (X, Y) in mm.
            jitter: how far the annotator is off, (X, Y) in mm.
            streaks: two independent Gaussian fields of mean 0 and variance 1, (X, Y).
        """
        centre, column_y = self.subject.centre(float(self.z[i]))
        # The muscles of the back do not reach before the transverse processes.
        behind = (np.float32(column_y - 27 * self.subject.size) - canvas.y)[None, :]
        t = float(self.subject.caudal(float(self.z[i])))
        gap = self.subject.gap_mm * (0.6 + 0.8 * min(max(t, 0), 1.2))
        for side, sign in SIDES.items():
            canvas.paint(self.outline("quadratus lumborum", side, i), Tissue.OTHER_MUSCLE)
            inner = np.full(wall.shape, -1e3, np.float32)  # depth inside the multifidus
            for muscle in MUSCLES:
                outline = self.outline(muscle, side, i)
                patch = canvas.patch(outline, 4.0)
                if patch is None:
                    continue
                box, depth = patch.box, patch.depth
                if muscle == "psoas":
                    depth = np.minimum(depth, -column[box] - 1.5)
                else:
                    midline = np.float32(sign) * (canvas.x[box[0]] - np.float32(centre))[:, None] - 2.5
                    depth = np.minimum(np.minimum(depth, wall[box] - 1.5), midline)
                    depth = np.minimum(depth, behind[:, box[1]])
                    if muscle == "erector spinae":
                        depth = np.minimum(depth, -inner[box] - np.float32(gap))
                    else:
                        inner[box] = depth
                self._fill(canvas, f"{muscle} {side}", outline, Patch(box, depth), t, jitter, streaks)

    def _fill(
        self,
        canvas: Canvas,
        name: str,
        outline: Outline,
        patch: Patch,
        t: float,
        jitter: Array,
        streaks: tuple[Array, Array],
    ) -> None:
        box, code = patch.box, _CODES[name]
        inside = patch.depth > 0
        canvas.tissue[box][inside] = Tissue.MUSCLE
        canvas.muscle[box][inside] = code
        canvas.drawn[box][patch.depth + jitter[box] > 0] = code
        dorsal = (np.float32(outline.y) - canvas.y[box[1]])[None, :] / np.float32(outline.ry)
        share = fat_probability(self.subject.fat_share[name], t, dorsal)
        lines, blots = (field[box] for field in streaks)
        fat = (np.abs(lines) < ndtri(0.5 + 0.3 * share)) | (blots > ndtri(1 - 0.4 * share))
        canvas.tissue[box][inside & fat] = Tissue.MUSCLE_FAT


def fat_probability(share: float, t: float, dorsal: Array) -> Array:
    """Chance that a place within the fascia is fat: more of it caudally and towards the back.

    Args:
        share: mean over the muscle.
        t: 0 at L1, 1 at L5.
        dorsal: place within the muscle, −1 at its front and 1 at its back.
    """
    chance = share * (0.6 + 0.8 * min(max(t, -0.2), 1.2)) * (1 + 0.5 * np.clip(dorsal, -1, 1))
    return np.clip(chance, 0.0, 0.9).astype(np.float32)
