"""How one scan is taken: where the probe sits, how it is pressed and set, and what goes wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Conditions", "draw_conditions"]

_MIDLINE_DISTANCE_MM = (18.0, 28.0)
_REPOSITIONING_MM = 2.0
"""SD, along each axis of the skin, of where a repeat is taken; an assumption, the papers give none."""


@dataclass(frozen=True)
class Conditions:
    """One scan's settings and faults. Lengths in mm, levels in dB, angles in radians."""

    side: str
    centre_mm: tuple[float, float]
    tilt_rad: tuple[float, float]
    pressure: float
    gel_mm: float
    gain_db: float
    tgc_error_db: tuple[float, ...]
    tgc_share: float
    dynamic_range_db: float
    noise_db: float
    clutter_db: float
    reverberation_db: float
    reverberation_mm: float
    ghost_db: float
    f_number: tuple[float, float]
    focus_mm: float
    bubbles: tuple[tuple[float, float, float, float], ...]
    """Each: x, y, radius in mm, and the two-way loss in dB of everything behind it."""

    def parameters(self) -> dict[str, Any]:
        """List the drawn numbers, for the cohort's record."""
        return asdict(self)


def draw_conditions(
    seed: int,
    subject: int,
    scan: int,
    dynamic_range_db: tuple[float, float],
    lateral_mm: tuple[float, float] = (25.6, 25.6),
    repeat: int = 1,
) -> Conditions:
    """Draw the conditions of scan `scan` (1, 2, …) of a subject; they depend on the arguments alone.

    Odd scans are on the left side, even ones on the right. A repeat of a scan has its place, within 2 mm (SD), and
    conditions of its own.

    Args:
        seed: of the cohort.
        subject: the subject's number.
        scan: the scan's number within the subject.
        dynamic_range_db: bounds of the displayed dynamic range.
        lateral_mm: size of the probe face, where bubbles may lie.
        repeat: 1 for the first scan of a place, 2, 3, … for the next ones.
    """
    if repeat > 1:
        first = draw_conditions(seed, subject, scan, dynamic_range_db, lateral_mm)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(subject, scan, 0, repeat)))
        u, v = (float(c + rng.normal(0, _REPOSITIONING_MM)) for c in first.centre_mm)
        return _draw(rng, first.side, (u, v), dynamic_range_db, lateral_mm)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(subject, scan, 0)))
    side = "left" if scan % 2 else "right"
    # The scan's first axis points to the left of the patient, so the left side has positive u.
    u = float(rng.uniform(*_MIDLINE_DISTANCE_MM)) * (1 if side == "left" else -1)
    return _draw(rng, side, (u, float(rng.uniform(-45, 45))), dynamic_range_db, lateral_mm)


def _draw(
    rng: np.random.Generator,
    side: str,
    centre_mm: tuple[float, float],
    dynamic_range_db: tuple[float, float],
    lateral_mm: tuple[float, float],
) -> Conditions:
    """Everything but the place."""
    return Conditions(
        side=side,
        centre_mm=centre_mm,
        tilt_rad=(float(rng.normal(0, 0.045)), float(rng.normal(0, 0.045))),
        pressure=float(rng.uniform(0.72, 1.12)),
        gel_mm=float(0.15 + rng.exponential(0.35)),
        gain_db=float(rng.normal(0, 4)),
        tgc_error_db=tuple(float(e) for e in rng.normal(0, 3, 4)),
        tgc_share=float(rng.uniform(0.65, 0.9)),
        dynamic_range_db=float(rng.uniform(*dynamic_range_db)),
        noise_db=float(rng.uniform(-58, -44)),
        clutter_db=float(rng.uniform(-30, -17)),
        reverberation_db=float(rng.uniform(-26, -12)),
        reverberation_mm=float(rng.uniform(1.0, 4.0)),
        ghost_db=float(rng.uniform(-34, -24)),
        f_number=(float(rng.uniform(1.3, 2.2)), float(rng.uniform(1.3, 2.2))),
        focus_mm=float(rng.uniform(12, 22)),
        bubbles=tuple(
            (
                float(rng.uniform(-0.5, 0.5)) * lateral_mm[0],
                float(rng.uniform(-0.5, 0.5)) * lateral_mm[1],
                float(rng.uniform(0.8, 3.5)),
                float(rng.uniform(6, 18)),
            )
            for _ in range(int(rng.poisson(1.2)))
        ),
    )
