"""What lies around spine and back muscles: body outline, fat, abdominal wall and organs."""

from __future__ import annotations

import numpy as np

from data_prep.simulate.grid import Array
from data_prep.simulate.lumbar.canvas import Canvas, Outline
from data_prep.simulate.lumbar.subject import LumbarSubject
from data_prep.simulate.lumbar.tissues import Tissue

__all__ = ["back_of_skin", "body_middle", "paint_ilium", "paint_trunk"]

_SKIN_MM = 2.0
_POWER = 2.5  # of the superellipse: flatter at the back than an ellipse
_COLUMN_TO_CAVITY_MM = 20.0


def _inner_sides(subject: LumbarSubject, z: float) -> tuple[float, float]:
    """Back and front of the space within the subcutaneous fat; the back follows the lordosis in part."""
    back = -subject.back_mm + 0.6 * subject.centre(z)[1]
    return back, _COLUMN_TO_CAVITY_MM + subject.visceral_mm


def back_of_skin(subject: LumbarSubject, z: float) -> float:
    """y of the skin of the back at the midline, in mm."""
    return _inner_sides(subject, z)[0] - subject.dorsal_fat_mm - _SKIN_MM


def body_middle(subject: LumbarSubject) -> float:
    """y halfway between back and belly at L3, in mm."""
    front = _inner_sides(subject, 0.0)[1] + subject.ventral_fat_mm + _SKIN_MM
    return (back_of_skin(subject, 0.0) + front) / 2


def _squircle(canvas: Canvas, back: float, front: float, half_width: float) -> Array:
    """Depth inside a superellipse, (X, Y) in mm along the ray to its centre."""
    y0, b = np.float32((back + front) / 2), np.float32((front - back) / 2)
    u, v = np.abs(canvas.x), np.abs(canvas.y - y0)
    p = (u / np.float32(half_width)) ** np.float32(_POWER)
    q = (v / b) ** np.float32(_POWER)
    level = (p[:, None] + q[None, :] + np.float32(1e-6)) ** np.float32(1 / _POWER)
    r = np.sqrt((u * u)[:, None] + (v * v)[None, :])
    depth: Array = r / level - r
    return depth


def paint_trunk(subject: LumbarSubject, canvas: Canvas, z: float) -> Array:
    """Paint everything but the labelled muscles, the spine and the pelvis.

    Returns:
        Depth below the inner face of the subcutaneous fat, (X, Y) in mm.
    """
    back, front = _inner_sides(subject, z)
    fat = subject.lateral_fat_mm + _SKIN_MM
    body = _squircle(
        canvas,
        back - subject.dorsal_fat_mm - _SKIN_MM,
        front + subject.ventral_fat_mm + _SKIN_MM,
        subject.half_width_mm + fat,
    )
    wall = _squircle(canvas, back, front, subject.half_width_mm)
    tissue = canvas.tissue
    tissue[body > 0] = Tissue.SKIN
    tissue[body > _SKIN_MM] = Tissue.SUBCUTANEOUS_FAT
    tissue[wall > 0] = Tissue.FASCIA
    tissue[wall > 1.2] = Tissue.FAT
    _paint_wall(subject, canvas, wall, subject.centre(z)[1])
    _paint_organs(subject, canvas, wall, z)
    _paint_vessels(subject, canvas, z)
    return wall


def _paint_wall(subject: LumbarSubject, canvas: Canvas, wall: Array, column_y: float) -> None:
    """Paint the muscles of the belly: three layers at the sides, rectus in front, none behind."""
    y = canvas.y - np.float32(column_y)
    # Ends in a point beside the erector spinae; thinner in front.
    thick = subject.wall_mm * np.clip((y + 52) / 40, 0, 1) * np.where(y > 45, 0.8, 1.0)
    share = (wall - 1.2) / np.maximum(thick, 0.1).astype(np.float32)[None, :]
    side = np.abs(canvas.x)[:, None] > 70 * subject.size
    front = (y > 45)[None, :]
    inside = (share > 0) & (share < 1) & (side | front)
    canvas.tissue[inside] = Tissue.OTHER_MUSCLE
    lines = ~front & ((np.abs(share - 0.36) < 0.04) | (np.abs(share - 0.7) < 0.04))
    canvas.tissue[inside & lines] = Tissue.FAT
    canvas.tissue[inside & (np.abs(canvas.x) < 2.5)[:, None]] = Tissue.FASCIA


def _paint_organs(subject: LumbarSubject, canvas: Canvas, wall: Array, z: float) -> None:
    cavity = wall > subject.wall_mm + 3
    cx, cy = subject.centre(z)
    size = subject.size
    for sign in (-1, 1):
        # Kidneys beside L1 to L3, the right one lower; their sinus is fat.
        r = _round(z - (1.25 if sign < 0 else 0.9) * subject.pitch_mm, 54 * size)
        kidney = Outline(cx + sign * 62 * size, cy - 2, 24 * size * r, 29 * size * r, 0.5, (), sign)
        canvas.paint(kidney, Tissue.KIDNEY)
        canvas.paint(
            Outline(kidney.x - sign * 8, kidney.y + 4, kidney.rx * 0.5, kidney.ry * 0.45, 0.5, (), sign), Tissue.FAT
        )
    r = _round(z - 3.2 * subject.pitch_mm, 85 * size)
    liver = canvas.patch(Outline(70 * size, cy + 42, 62 * size * r, 62 * size * r))
    if liver is not None:
        canvas.tissue[liver.box][(liver.depth > 0) & cavity[liver.box]] = Tissue.LIVER
    for organ in subject.organs:
        r = _round(z - organ["z"], organ["rz"])
        x = organ["x"] * (subject.half_width_mm - subject.wall_mm - 12)
        y = cy + 34 + organ["y"] * (subject.visceral_mm - subject.wall_mm - 26)
        loop = canvas.patch(
            Outline(x, y, organ["rx"] * r, organ["ry"] * r, organ["turn"], ((0.08, 0.05), (0.04, -0.05)))
        )
        if loop is None:
            continue
        inside = (loop.depth > 0) & cavity[loop.box] & (canvas.y[loop.box[1]] > cy + 22)[None, :]
        tissue = canvas.tissue[loop.box]
        tissue[inside] = Tissue.OTHER_MUSCLE
        inside &= loop.depth > 2.0
        tissue[inside] = Tissue.BOWEL
        if organ["gas"] > 0:  # gas rises to the belly of a supine person
            high = canvas.y[loop.box[1]] > y + organ["ry"] * r * (1 - 2 * organ["gas"])
            tissue[inside & high[None, :]] = Tissue.GAS


def _paint_vessels(subject: LumbarSubject, canvas: Canvas, z: float) -> None:
    """Paint aorta (on the person's left) and vena cava; both fork before L4."""
    cx, cy = subject.centre(z)
    r = subject.aorta_mm * subject.size
    front = cy + 17 * subject.size + 2.5
    below = -subject.pitch_mm * 1.2 - z
    if below < 0:
        aorta = Outline(cx - 9, front + r, r, r)
        canvas.paint(aorta, Tissue.VESSEL)
        if subject.degeneration > 0.3:
            canvas.paint(Outline(aorta.x - 0.75 * r, aorta.y - 0.3 * r, 1.3, 3.0), Tissue.CALCIFICATION)
        canvas.paint(Outline(cx + 15, front + 8, 11, 8), Tissue.VESSEL)
        return
    for sign in (-1, 1):
        x = cx + sign * (10 + 0.35 * below)
        canvas.paint(Outline(x, front + r + 3, 0.65 * r, 0.65 * r), Tissue.VESSEL)
        canvas.paint(Outline(x + 2, front + 3, 7.5, 5.5), Tissue.VESSEL)


def paint_ilium(subject: LumbarSubject, canvas: Canvas, z: float) -> None:
    """Paint the wings of the pelvis, whose crest is at L4."""
    t = float(subject.caudal(z))
    rise = float(np.clip((t - 0.80) / 0.35, 0, 1)) ** 0.5
    cx, cy = subject.centre(z)
    for sign in (-1, 1):
        wing = Outline(
            cx + sign * 82 * subject.size, cy - 16, 44 * subject.size * rise, 6 * subject.size * rise**0.5,
            0.75, (), sign,
        )  # fmt: skip
        patch = canvas.patch(wing)
        if patch is not None:
            tissue = canvas.tissue[patch.box]
            tissue[patch.depth > 0] = Tissue.CORTICAL_BONE
            tissue[patch.depth > 2.0] = Tissue.CANCELLOUS_BONE


def _round(distance: float, half: float) -> float:
    """Relative radius of an ellipsoid at a height."""
    return float(np.sqrt(max(1 - (distance / half) ** 2, 0.0)))
