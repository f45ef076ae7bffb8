"""The anatomy of a simulated subject: layer thicknesses, their echo and attenuation, and decoys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.simulate.grid import Array, Grid, SmoothField

__all__ = ["BONE", "ECHO_DB", "GEL", "THICKNESS_RANGE_MM", "Subject", "draw_subject", "thicknesses"]

GEL, BONE = 0, 7
"""Tissue codes beside the labels 1–6; both are background in the label volume."""

ECHO_DB = {1: 2.0, 2: -12.0, 3: 2.0, 4: -12.0, 5: 4.0, 6: -13.0}
"""Mean echo level of each layer in dB; subjects spread around it."""

_ECHO_SPREAD_DB = 3.5

THICKNESS_RANGE_MM = {1: (0.8, 3.2), 2: (1.5, 15.0), 3: (0.4, 1.6), 4: (0.4, 10.0), 5: (0.7, 2.6)}
"""Range of a subject's uncompressed layer thickness in mm, anywhere on the back."""

_ATTENUATION_RANGE = {1: (1.4, 2.0), 2: (0.4, 0.9), 3: (2.0, 2.4), 4: (0.4, 0.9), 5: (2.0, 2.4), 6: (0.7, 1.3)}
"""dB/cm/MHz, one way."""

# Relative variation of the thickness over the back, and over which distance in mm.
_RELIEF = {1: (0.06, 10.0), 2: (0.12, 11.0), 3: (0.14, 6.0), 4: (0.22, 8.0), 5: (0.14, 7.0)}


@dataclass(frozen=True)
class Subject:
    """What all scans of a subject share. Thickness in mm, echo levels in dB, attenuation in dB/cm/MHz."""

    number: int
    adiposity: float
    thickness_mm: dict[int, float]
    echo_db: dict[int, float]
    attenuation: dict[int, float]
    septa_spacing_mm: float
    septa_db: float
    fibre_spacing_mm: float
    perimysium_db: float
    pennation_rad: float
    laminae: dict[int, int]
    hidden_share: dict[int, float]
    infiltration_db: float
    aponeurosis: dict[str, float] | None
    septum: dict[str, float] | None
    bone: dict[str, float] | None
    relief: dict[int, SmoothField]
    wave: SmoothField
    wave_mm: float
    decoy_relief: SmoothField

    def parameters(self) -> dict[str, Any]:
        """List the drawn numbers (not the random functions), for the cohort's record."""
        return {
            key: value for key, value in vars(self).items() if key not in ("relief", "wave", "decoy_relief", "number")
        }


def draw_subject(seed: int, number: int) -> Subject:
    """Draw subject `number` (1, 2, …); it depends on these two numbers alone."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    adiposity = float(rng.standard_normal())
    thickness = {
        1: rng.normal(1.9, 0.5),
        2: 4.8 * np.exp(0.50 * adiposity + 0.20 * rng.standard_normal()),
        3: rng.normal(0.95, 0.25),
        4: 2.6 * np.exp(0.60 * adiposity + 0.35 * rng.standard_normal()),
        5: rng.normal(1.6, 0.4),
    }
    return Subject(
        number=number,
        adiposity=adiposity,
        thickness_mm={k: float(np.clip(t, *THICKNESS_RANGE_MM[k])) for k, t in thickness.items()},
        echo_db={k: float(rng.normal(mean, _ECHO_SPREAD_DB)) for k, mean in ECHO_DB.items()},
        attenuation={k: float(rng.uniform(*bounds)) for k, bounds in _ATTENUATION_RANGE.items()},
        septa_spacing_mm=float(rng.uniform(1.8, 3.6)),
        septa_db=float(rng.uniform(8, 15)),
        fibre_spacing_mm=float(rng.uniform(0.9, 1.7)),
        perimysium_db=float(rng.uniform(8, 14)),
        pennation_rad=float(np.deg2rad(rng.uniform(4, 20)) * rng.choice((-1, 1))),
        laminae={3: int(rng.integers(1, 4)), 5: int(rng.integers(2, 5))},
        hidden_share={3: float(rng.uniform(0, 0.25)), 5: float(rng.uniform(0, 0.15))},
        infiltration_db=float(np.clip(rng.normal(4 + 2 * adiposity, 2), 0, 9)),
        aponeurosis=_maybe(
            rng, 0.5, depth_mm=(3, 10), slope_x=(-0.12, 0.12), slope_y=(-0.12, 0.12), thickness_mm=(0.5, 1.1),
            echo_db=(-2, 5),
        ),
        septum=_maybe(rng, 0.4, offset_mm=(-8, 8), slope=(0.6, 1.7), thickness_mm=(0.4, 0.8), echo_db=(-4, 3)),
        bone=_maybe(
            rng, 0.4, depth_mm=(8, 20), half_width_mm=(6, 10), half_height_mm=(6, 11), level_mm=(-20, 20)
        ),
        relief={k: SmoothField(rng, length) for k, (_, length) in _RELIEF.items()},
        wave=SmoothField(rng, 3.0),
        wave_mm=float(rng.uniform(0.05, 0.3)),
        decoy_relief=SmoothField(rng, 8.0),
    )  # fmt: skip


def _maybe(rng: np.random.Generator, chance: float, **bounds: tuple[float, float]) -> dict[str, float] | None:
    """Draw a decoy's numbers, or None; the same random numbers are used up in both cases."""
    there = rng.random() < chance
    drawn = {name: float(rng.uniform(*pair)) for name, pair in bounds.items()}
    return drawn if there else None


def thicknesses(subject: Subject, grid: Grid, centre_mm: tuple[float, float], pressure: float) -> dict[int, Array]:
    """Evaluate the layer thicknesses under the probe.

    Args:
        subject: whose back.
        grid: sampled columns.
        centre_mm: place of the probe on the back.
        pressure: 0.72–1.12, the share of the fat's thickness that is left. Dermis and fasciae are dense
            collagen and give way less: by the square root.

    Returns:
        For layers 1–5 an array (X, Y) in mm, at least 0.1.
    """
    u, v = grid.x + np.float32(centre_mm[0]), grid.y + np.float32(centre_mm[1])
    out: dict[int, Array] = {}
    for k, mean in subject.thickness_mm.items():
        sigma = _RELIEF[k][0]
        t = mean * np.exp(sigma * subject.relief[k](u, v) - sigma**2 / 2)
        low, high = THICKNESS_RANGE_MM[k]
        out[k] = np.clip(t, low, high).astype(np.float32)
    # The superficial fascial membrane undulates between the two fats.
    wave = np.float32(subject.wave_mm) * subject.wave(u, v)
    wave = np.clip(wave, 0.2 - out[2], out[4] - 0.2)
    out[2], out[4] = out[2] + wave, out[4] - wave
    for k in out:
        out[k] = np.maximum(out[k] * np.float32(pressure if k in (2, 4) else pressure**0.5), 0.1)
    return out
