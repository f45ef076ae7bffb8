"""The anatomy of a simulated subject: everything a CT and an MR of one person share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.simulate.grid import SmoothField

__all__ = ["LEVELS", "MUSCLES", "SIDES", "LumbarSubject", "draw_lumbar_subject"]

LEVELS = ("L1", "L2", "L3", "L4", "L5")

SIDES = {"left": -1, "right": 1}
"""Side to the sign of x: RAS+, so the person's left has the smaller x."""

MUSCLES = ("multifidus", "erector spinae", "psoas")

_FAT_SHARE = {"multifidus": 0.14, "erector spinae": 0.11, "psoas": 0.04}
"""Typical share of fat inside the fascia."""

_WAVES = 3
_CURVES = 4 + 2 * _WAVES


@dataclass(frozen=True)
class LumbarSubject:
    """What all scans of a subject share. Lengths in mm, shares between 0 and 1.

    The origin is the middle of the body of L3; x grows to the person's right, y to the front, z to the head.
    """

    number: int
    adiposity: float
    degeneration: float
    size: float
    pitch_mm: float
    disc_mm: float
    lordosis_mm: float
    scoliosis_mm: float
    back_mm: float
    dorsal_fat_mm: float
    lateral_fat_mm: float
    ventral_fat_mm: float
    half_width_mm: float
    visceral_mm: float
    wall_mm: float
    gap_mm: float
    psoas_start: float
    scale: dict[str, float]
    fat_share: dict[str, float]
    aorta_mm: float
    organs: list[dict[str, float]]
    curves: dict[str, tuple[SmoothField, ...]]

    def parameters(self) -> dict[str, Any]:
        """List the drawn numbers (not the random functions), for the cohort's record."""
        return {key: value for key, value in vars(self).items() if key not in ("curves", "number")}

    def level_z(self) -> dict[str, float]:
        """Height of the middle of each vertebral body."""
        return {name: (2 - i) * self.pitch_mm for i, name in enumerate(LEVELS)}

    def caudal(self, z: Any) -> Any:
        """Position along the spine: 0 at the middle of L1, 1 at that of L5."""
        return 0.5 - z / (4 * self.pitch_mm)

    def centre(self, z: float) -> tuple[float, float]:
        """Centre of the vertebral column: lordosis carries its middle forward, scoliosis to a side."""
        t = float(self.caudal(z))
        bow = 1 - ((t - 0.6) / 0.8) ** 2
        return self.scoliosis_mm * float(np.sin(np.pi * t)), self.lordosis_mm * (max(bow, -1.5) - 0.5)


def draw_lumbar_subject(seed: int, number: int) -> LumbarSubject:
    """Draw subject `number` (1, 2, …); it depends on these two numbers alone."""
    # A key of three, since ultrasound subjects use keys of one; the cohorts must not be twins.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7, number, 0)))
    adiposity, degeneration, stature = (float(np.clip(v, -2, 2)) for v in rng.standard_normal(3))
    size = float(np.exp(0.05 * stature))
    names = [(muscle, side) for muscle in MUSCLES for side in SIDES]
    bulk = {muscle: float(np.exp(0.08 * rng.standard_normal() + 0.05 * stature)) for muscle in MUSCLES}
    fat = {
        muscle: typical * float(np.exp(0.35 * adiposity + 0.45 * degeneration + 0.2 * rng.standard_normal()))
        for muscle, typical in _FAT_SHARE.items()
    }
    fat_mm = 14 * float(np.exp(0.5 * adiposity))
    return LumbarSubject(
        number=number,
        adiposity=adiposity,
        degeneration=degeneration,
        size=size,
        pitch_mm=float(35.0 * size + rng.normal(0, 0.6)),
        disc_mm=float(np.clip(rng.normal(10 - degeneration, 1), 6, 13)),
        lordosis_mm=float(np.clip(rng.normal(12, 4), 3, 20)),
        scoliosis_mm=float(np.clip(rng.normal(0, 2.5), -6, 6)),
        back_mm=float(np.clip(rng.normal(66 * size, 2), 60, 74)),
        dorsal_fat_mm=float(np.clip(fat_mm * rng.uniform(0.8, 1.25), 5, 50)),
        lateral_fat_mm=float(np.clip(0.9 * fat_mm * rng.uniform(0.8, 1.25), 5, 40)),
        ventral_fat_mm=float(np.clip(1.1 * fat_mm * rng.uniform(0.8, 1.25), 5, 50)),
        half_width_mm=float(np.clip(rng.normal(122 * size + 7 * adiposity, 5), 104, 146)),
        visceral_mm=float(np.clip(rng.normal(72 + 14 * adiposity, 7), 40, 115)),
        wall_mm=float(rng.uniform(9, 18)),
        gap_mm=float(np.clip(rng.normal(1.6 + 0.7 * degeneration, 0.5), 0.6, 4.5)),
        psoas_start=float(rng.uniform(-0.12, 0.16)),
        scale={f"{m} {s}": bulk[m] * float(np.exp(0.05 * rng.standard_normal())) for m, s in names},
        fat_share={
            f"{m} {s}": float(np.clip(fat[m] * np.exp(0.15 * rng.standard_normal()), 0.01, 0.5)) for m, s in names
        },
        aorta_mm=float(rng.uniform(7.5, 11)),
        organs=_draw_organs(rng),
        curves={f"{m} {s}": tuple(SmoothField(rng, 45.0) for _ in range(_CURVES)) for m, s in names},
    )


def _draw_organs(rng: np.random.Generator) -> list[dict[str, float]]:
    """Bowel loops: place as shares of the abdominal cavity, size in mm, gas as a share of the loop."""
    return [
        {
            "x": float(rng.uniform(-0.8, 0.8)), "y": float(rng.uniform(0.1, 0.95)), "z": float(rng.uniform(-110, 110)),
            "rx": float(rng.uniform(11, 24)), "ry": float(rng.uniform(9, 18)), "rz": float(rng.uniform(15, 50)),
            "turn": float(rng.uniform(-0.8, 0.8)), "gas": float(max(rng.uniform(-0.6, 0.8), 0.0)),
        }
        for _ in range(int(rng.integers(34, 50)))
    ]  # fmt: skip
