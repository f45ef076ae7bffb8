"""From a subject and a scan's conditions to tissue codes, echo levels, attenuation and interfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from data_prep.simulate.anatomy import BONE, GEL, Subject, thicknesses
from data_prep.simulate.conditions import Conditions
from data_prep.simulate.grid import Array, Grid, SmoothField, texture_pair

__all__ = ["FREQUENCY_MHZ", "Interface", "Tissue", "build_tissue", "label_volume", "two_way_loss_db"]

FREQUENCY_MHZ = 6.0
"""Centre frequency of the transducer."""

_GEL_DB, _BONE_DB = -45.0, -22.0
_BONE_ATTENUATION = 10.0
_ANNOTATOR_JITTER_MM = 0.1


@dataclass(frozen=True)
class Interface:
    """A coherently reflecting surface: depth in mm and echo level in dB, both (X, Y); NaN depth: not there."""

    depth_mm: Array
    echo_db: Array


@dataclass(frozen=True)
class Tissue:
    """Everything the acquisition needs to know, on the padded grid.

    Attributes:
        codes: uint8 (X, Y, Z); labels 1–6, 0 gel, 7 bone and what lies behind it.
        echo_db: mean scatter level, float32 (X, Y, Z).
        loss_db: two-way loss down to each voxel, float32 (X, Y, Z).
        interfaces: coherent reflectors.
        skin_mm: depth of the skin, (X, Y).
    """

    codes: NDArray[np.uint8]
    echo_db: Array
    loss_db: Array
    interfaces: list[Interface]
    skin_mm: Array


def two_way_loss_db(codes: NDArray[np.uint8], attenuation: dict[int, float], dz_mm: float) -> Array:
    """Integrate the attenuation down each A-line, there and back.

    Args:
        codes: tissue codes (X, Y, Z).
        attenuation: dB/cm/MHz by code, one way; codes not listed lose nothing.
        dz_mm: voxel size along z.

    Returns:
        dB at the voxel centres: Σ α · 6 MHz · 2 · path in cm.
    """
    lut = np.zeros(256, np.float32)
    for code, alpha in attenuation.items():
        lut[code] = alpha * FREQUENCY_MHZ * 2 * dz_mm / 10
    step = lut[codes]
    # Half of the voxel's own step: the path ends at its centre.
    return np.cumsum(step, axis=-1) - 0.5 * step


def _codes(boundaries: list[Array], grid: Grid) -> NDArray[np.uint8]:
    """Count the boundaries above each voxel centre; they are (X, Y) depths in mm, from the skin inwards."""
    codes = np.zeros(grid.padded, np.uint8)
    for depth in boundaries:
        codes += grid.z >= depth[..., None]
    return codes


def label_volume(boundaries: list[Array], bone_mm: Array, grid: Grid, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the boundaries as an annotator would: 0.1 mm off, but in order.

    Args:
        boundaries: six (X, Y) depths in mm: skin to muscle surface.
        bone_mm: (X, Y) depth of bone in mm, NaN where there is none.
        grid: where.
        rng: draws the annotator's jitter.

    Returns:
        Labels 0–6 on the padded grid.
    """
    drawn: list[Array] = []
    for depth in boundaries:
        jitter = SmoothField(rng, 2.0)(grid.x, grid.y)
        jittered = depth + np.float32(_ANNOTATOR_JITTER_MM) * jitter
        drawn.append(np.maximum(jittered, drawn[-1]) if drawn else np.maximum(jittered, 0))
    labels = _codes(drawn, grid)
    jitter = SmoothField(rng, 2.0)(grid.x, grid.y)
    labels[grid.z >= np.nan_to_num(bone_mm + 0.1 * jitter, nan=np.inf)[..., None]] = 0
    return labels


def _bone_surface(subject: Subject, cond: Conditions, grid: Grid, muscle: Array) -> Array:
    """Depth in mm of the vertebral laminae, NaN where the beam passes; they repeat every 32 mm along y."""
    if subject.bone is None:
        return np.full_like(muscle, np.nan)
    bone = subject.bone
    # Distance from the laminae's middle line, 12 mm beside the spine on either side.
    across = (np.abs(grid.x + np.float32(cond.centre_mm[0])) - 12) / np.float32(bone["half_width_mm"])
    along = grid.y + np.float32(cond.centre_mm[1] - bone["level_mm"])
    along = (np.mod(along + 16, 32) - 16) / np.float32(bone["half_height_mm"])
    rho = across**2 + along**2
    depth = np.mean(muscle) + bone["depth_mm"] + 2.5 * rho + 0.3 * subject.decoy_relief(grid.x, grid.y)
    depth = np.maximum(depth, muscle + 3)
    return np.where(rho < 1, depth, np.nan).astype(np.float32)


def _paint_sheet(volume: Array, grid: Grid, top: Array, thickness: Array | float, value: Array | float) -> None:
    """Set the voxels between two surfaces to a level in dB, column by column; NaN columns are left alone."""
    thick = np.broadcast_to(np.asarray(thickness, np.float32), top.shape)
    level = np.broadcast_to(np.asarray(value, np.float32), top.shape)
    dz = grid.spacing[2]
    first = np.ceil(np.nan_to_num(top, nan=-1e6) / dz - 0.5).astype(np.int64)
    last = np.floor(np.nan_to_num(top + thick, nan=-1e6) / dz - 0.5).astype(np.int64)
    last = np.maximum(last, first)
    for step in range(int((last - first).max()) + 1):
        j = first + step
        x, y = np.nonzero((j <= last) & (j >= 0) & (j < volume.shape[2]))
        volume[x, y, j[x, y]] = level[x, y]


def _visibility(rng: np.random.Generator, grid: Grid, hidden_share: float) -> Array:
    """Draw where a fascia is seen: 1 mostly, 0 in patches that cover about `hidden_share`."""
    field = SmoothField(rng, 2.5)(grid.x, grid.y)
    threshold = np.quantile(field, hidden_share)
    return (1 / (1 + np.exp(-(field - threshold) / 0.12))).astype(np.float32)


def build_tissue(
    subject: Subject, cond: Conditions, grid: Grid, rng: np.random.Generator
) -> tuple[Tissue, NDArray[np.uint8]]:
    """Lay the subject's tissues under the probe.

    Args:
        subject: whose back.
        cond: place, tilt, pressure.
        grid: sampling.
        rng: draws the textures, which are new in every scan.

    Returns:
        The tissue and the label volume, both on the padded grid.
    """
    thick = thicknesses(subject, grid, cond.centre_mm, cond.pressure)
    wedge = np.tan(cond.tilt_rad[0]) * grid.x + np.tan(cond.tilt_rad[1]) * grid.y
    skin = (wedge - wedge.min() + cond.gel_mm).astype(np.float32)
    boundaries = [skin]
    for k in range(1, 6):
        boundaries.append(boundaries[-1] + thick[k])
    muscle = boundaries[5]
    bone = _bone_surface(subject, cond, grid, muscle)
    codes = _codes(boundaries, grid)
    codes[grid.z >= np.nan_to_num(bone, nan=np.inf)[..., None]] = BONE
    seen = {k: _visibility(rng, grid, subject.hidden_share[k]) for k in (3, 5)}

    echo = _texture_db(subject, grid, codes, rng)
    for k in (3, 5):
        _paint_fascia(echo, subject, grid, k, boundaries[k - 1], thick[k], seen[k])
    interfaces = [
        _interface(rng, grid, boundaries[0], 7.0),
        _interface(rng, grid, boundaries[1], 0.0),
        *(_interface(rng, grid, boundaries[i], 1.0, seen[3]) for i in (2, 3)),
        *(_interface(rng, grid, boundaries[i], 3.0, seen[5]) for i in (4, 5)),
    ]
    interfaces += _decoys(echo, subject, cond, grid, muscle, codes, rng)
    if subject.bone is not None:
        interfaces.append(_interface(rng, grid, bone, 16.0))
        _paint_sheet(echo, grid, bone, 0.4, 10.0)

    loss = two_way_loss_db(codes, {**subject.attenuation, BONE: _BONE_ATTENUATION}, grid.spacing[2])
    labels = label_volume(boundaries, bone, grid, rng)
    return Tissue(codes, echo, loss, interfaces, skin), labels


def _texture_db(subject: Subject, grid: Grid, codes: NDArray[np.uint8], rng: np.random.Generator) -> Array:
    """Mean scatter level with lobules and septa in the fat, perimysium and infiltration in the muscle."""
    base = np.zeros(8, np.float32)
    base[GEL], base[BONE] = _GEL_DB, _BONE_DB
    for k, level in subject.echo_db.items():
        base[k] = level

    # Zeros along z are 4.44 ℓ apart; a sheet's half width w is a level of w / (√2 ℓ).
    lz = subject.septa_spacing_mm / 4.44
    septa, lobules = texture_pair(rng, grid, (3.2 * lz, 3.2 * lz, lz))
    lz = subject.fibre_spacing_mm / 4.44
    fibres, blobs = texture_pair(rng, grid, (3.0 * lz, 14.0 * lz, lz), np.tan(subject.pennation_rad))
    echo = base[codes]
    fat = np.array([0, 0, 1, 0, 1, 0, 0, 0], np.float32)[codes]
    septa /= np.float32(0.10 / (2**0.5 * subject.septa_spacing_mm / 4.44))
    np.exp(-np.square(septa, out=septa), out=septa)
    echo += fat * (np.float32(subject.septa_db) * septa + np.float32(2.0) * lobules)
    flesh = np.array([0, 0, 0, 0, 0, 0, 1, 0], np.float32)[codes]
    fibres /= np.float32(0.11 / (2**0.5 * lz))
    np.exp(-np.square(fibres, out=fibres), out=fibres)
    # Infiltrating fat lies between the fascicles where the lobule field is high.
    marbling = np.float32(subject.infiltration_db) * np.clip(lobules - 0.5, 0, 1)
    echo += flesh * (fibres * (np.float32(subject.perimysium_db) + 3 * lobules) + np.float32(1.5) * blobs + marbling)
    dense = np.array([0, 1.5, 0, 1.5, 0, 1.5, 0, 0], np.float32)[codes]
    echo += dense * blobs
    return echo


def _paint_fascia(echo: Array, subject: Subject, grid: Grid, k: int, top: Array, thick: Array, seen: Array) -> None:
    """Give fascia `k` its laminae, and the fat's level where it is not seen."""
    x, y, z = np.nonzero((grid.z >= top[..., None]) & (grid.z < (top + thick)[..., None]))
    u = (grid.z[z] - top[x, y]) / thick[x, y]
    n = subject.laminae[k]
    # Bright at u = (i + ½)/n, darker between: looser tissue separates the laminae.
    dip = np.float32(3.5) * (1 + np.cos(2 * np.pi * n * u)) if n > 1 else np.float32(0)
    fat = np.float32(max(subject.echo_db[2], subject.echo_db[4]) + 1)
    bright = echo[x, y, z] - dip
    echo[x, y, z] = fat + seen[x, y] * (bright - fat)


def _interface(
    rng: np.random.Generator, grid: Grid, depth: Array, level_db: float, seen: Array | None = None
) -> Interface:
    """A reflector whose echo varies by 3 dB over the surface and fades where the fascia is not seen."""
    echo = level_db + 3 * SmoothField(rng, 2.0)(grid.x, grid.y)
    if seen is not None:
        echo = echo - 25 * (1 - seen)
    return Interface(depth, echo.astype(np.float32))


def _decoys(
    echo: Array,
    subject: Subject,
    cond: Conditions,
    grid: Grid,
    muscle: Array,
    codes: NDArray[np.uint8],
    rng: np.random.Generator,
) -> list[Interface]:
    """Paint aponeurosis and intermuscular septum into the muscle; they look like fascia and are not labelled so."""
    surfaces: list[tuple[Array, Array | float, float]] = []
    if subject.aponeurosis is not None:
        a = subject.aponeurosis
        smooth = ndimage.gaussian_filter(muscle, [4 / s for s in grid.spacing[:2]], mode="nearest")
        top = smooth + a["depth_mm"] + a["slope_x"] * grid.x + a["slope_y"] * grid.y
        top = np.maximum(top + 0.4 * subject.decoy_relief(grid.x, grid.y), muscle + 1.0)
        surfaces.append((top.astype(np.float32), a["thickness_mm"], a["echo_db"]))
    if subject.septum is not None:
        s = subject.septum
        away = np.sign(cond.centre_mm[0]) * grid.x - s["offset_mm"] + 0.5 * subject.decoy_relief(grid.x, grid.y)
        top = np.where(away > 0, muscle + s["slope"] * away, np.nan).astype(np.float32)
        surfaces.append((top, s["thickness_mm"] * (1 + s["slope"] ** 2) ** 0.5, s["echo_db"]))
    found = []
    for top, thickness, level in surfaces:
        seen = _visibility(rng, grid, 0.15)
        sheet = np.full_like(echo, np.nan)
        _paint_sheet(sheet, grid, top, thickness, level - 10 * (1 - seen))
        inside = np.isfinite(sheet) & (codes == 6)
        echo[inside] = sheet[inside]
        found.append(_interface(rng, grid, top, level - 2, seen))
    return found
