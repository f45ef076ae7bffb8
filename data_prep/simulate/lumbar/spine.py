"""The vertebral column in a plane: bodies, discs, canal, arches and processes."""

from __future__ import annotations

import numpy as np

from data_prep.simulate.grid import Array
from data_prep.simulate.lumbar.canvas import Canvas, Outline
from data_prep.simulate.lumbar.subject import LumbarSubject
from data_prep.simulate.lumbar.tissues import Tissue

__all__ = ["column_depth", "paint_spine"]

_HALF_WIDTH, _HALF_DEPTH = 24.0, 17.0
_CORTEX_MM = 1.4
_ENDPLATE_MM = 1.8  # not thinner than the planes' distance, or a tilted one would show as stripes

# The vertebrae from T11 to S2 by their distance from L3, towards the feet; endplates tilt with the lordosis.
_NUMBERS = range(-4, 5)
_TILT = (0.05, 0.08, 0.12, 0.08, 0.0, -0.10, -0.25, -0.4, -0.5)


def _body(subject: LumbarSubject, z: float) -> Outline:
    """Outline of bodies and discs: wider towards the feet, hollow at the back."""
    cx, cy = subject.centre(z)
    wide = 1 + 0.10 * (float(np.clip(subject.caudal(z), -0.3, 1.2)) - 0.5)
    return Outline(
        cx, cy, _HALF_WIDTH * subject.size * wide, _HALF_DEPTH * subject.size, waves=((0.0, 0.05), (0.0, 0.0))
    )


def column_depth(subject: LumbarSubject, canvas: Canvas, z: float) -> Array:
    """Depth inside bodies and discs, (X, Y) in mm; far outside −1000."""
    depth = np.full(canvas.tissue.shape, -1e3, np.float32)
    patch = canvas.patch(_body(subject, z), 8.0)
    if patch is not None:
        depth[patch.box] = patch.depth
    return depth


def paint_spine(subject: LumbarSubject, canvas: Canvas, z: float) -> None:
    """Paint bones, discs and canal over whatever is there."""
    _paint_column(subject, canvas, z)
    size = subject.size
    cx, cy = subject.centre(z)
    back = cy - _HALF_DEPTH * size
    canal = Outline(cx, back - 9 * size, 11.5 * size, 8.5 * size)
    # Ligaments between the spinous processes; bone is painted over them.
    canvas.paint(Outline(cx, back - 33 * size, 1.6 * size, 11 * size), Tissue.FASCIA)
    _paint_arches(subject, canvas, z, canal)
    canvas.paint(canal, Tissue.FAT)
    canvas.paint(Outline(cx, back - 8 * size, 8.8 * size, 7.2 * size), Tissue.CSF)
    canvas.paint(Outline(cx, back - 11 * size, 5.5 * size, 2.4 * size), Tissue.NERVE)


def _paint_column(subject: LumbarSubject, canvas: Canvas, z: float) -> None:
    outline = _body(subject, z)
    patch = canvas.patch(outline)
    if patch is None:
        return
    tissue = canvas.tissue[patch.box]
    inside = patch.depth > 0
    tissue[inside] = Tissue.ANNULUS
    tissue[patch.depth > 0.32 * outline.ry] = Tissue.NUCLEUS
    height = subject.pitch_mm - subject.disc_mm
    ahead = canvas.y[patch.box[1]] - np.float32(outline.y)
    for number, tilt in zip(_NUMBERS, _TILT, strict=True):
        middle = -number * subject.pitch_mm
        if abs(z - middle) > subject.pitch_mm:
            continue
        # Distance from the tilted middle plane, a row along y.
        above = np.float32(z - middle) - np.float32(np.tan(tilt)) * ahead
        within = (height / 2 - np.abs(above))[None, :]
        waist = np.float32(1.2) * (1 - (2 * above / height) ** 2)[None, :]
        depth = patch.depth - np.clip(waist, 0, None)
        bone = (within > 0) & (depth > 0)
        tissue[bone] = Tissue.CORTICAL_BONE
        tissue[bone & (depth > _CORTEX_MM) & (within > _ENDPLATE_MM)] = Tissue.CANCELLOUS_BONE
        tissue[(within > 0) & (depth <= 0) & inside] = Tissue.FAT


def _paint_arches(subject: LumbarSubject, canvas: Canvas, z: float, canal: Outline) -> None:
    size = subject.size
    cx, back = canal.x, canal.y + 9 * size
    for number, tilt in zip(_NUMBERS, _TILT, strict=True):
        # What lies behind the body's tilted middle plane.
        above = (z + number * subject.pitch_mm + np.tan(tilt) * 26 * size) / size
        if not -28 < above < 14:
            continue
        for sign in (-1, 1):
            # Transverse process, pedicle, and the joint with the vertebra below.
            r = _bulge(above, 4.5, 5.5)
            _bone(
                canvas, Outline(cx + sign * 29 * size, back - 9 * size, 17 * size * r, 3.8 * size * r, -0.12, (), sign)
            )
            r = _bulge(above, 5.5, 7.0)
            _bone(canvas, Outline(cx + sign * 15 * size, back - 6 * size, 4.5 * size * r, 10 * size * r))
            r = _bulge(above, -17, 9.0)
            _bone(
                canvas,
                Outline(cx + sign * 18 * size, back - 14 * size, 6.5 * size * r, 7.5 * size * r, 0.5, (), sign),
                2.2,
            )
        r = _bulge(above, -6.5, 11.0)
        if r > 0:  # the lamina: behind the canal, as thick as r says
            ring = canvas.patch(canal, 8.0)
            if ring is not None:
                behind = (canvas.y[ring.box[1]] < canal.y + 1)[None, :]
                bone = behind & (ring.depth > -6.0 * r * size)
                tissue = canvas.tissue[ring.box]
                tissue[bone] = Tissue.CORTICAL_BONE
                tissue[bone & (np.abs(ring.depth + 3 * r * size) < 1.2 * r)] = Tissue.CANCELLOUS_BONE
        r = _bulge(above, -10, 11.0)
        _bone(canvas, Outline(cx, back - 33 * size, 3.4 * size * r**0.5, 12.5 * size * r))


def _bulge(above: float, middle: float, half: float) -> float:
    """Relative thickness of a rounded part of a bone at a height: 1 in its middle, 0 from `half` mm away."""
    return float(np.sqrt(max(1 - ((above - middle) / half) ** 2, 0.0)))


def _bone(canvas: Canvas, outline: Outline, cortex: float = _CORTEX_MM) -> None:
    patch = canvas.patch(outline)
    if patch is not None:
        tissue = canvas.tissue[patch.box]
        tissue[patch.depth > 0] = Tissue.CORTICAL_BONE
        tissue[patch.depth > cortex] = Tissue.CANCELLOUS_BONE
