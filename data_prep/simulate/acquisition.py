"""Row-column-array B-mode of a tissue: scatterers and interfaces → artefacts → beams → 8-bit image.

The chain works on complex baseband echoes at 6 MHz and c = 1.54 mm/µs. A beam is a depth-dependent Gaussian in
the lateral wavenumbers, one for the transmit (x) and one for the receive (y) axis, so that everything
lateral is a product between two Fourier transforms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from data_prep.simulate.conditions import Conditions
from data_prep.simulate.grid import Array, Grid
from data_prep.simulate.tissue import FREQUENCY_MHZ, Interface, Tissue

__all__ = ["WAVELENGTH_MM", "acquire", "axial_pulse", "beam_fwhm_mm", "log_compress"]

Echoes = NDArray[np.complex64]

SPEED_MM_PER_US = 1.54
WAVELENGTH_MM = SPEED_MM_PER_US / FREQUENCY_MHZ
"""0.257 mm."""

PULSE_FWHM_MM = 0.24
_STEERING_DEG = (0.0, 7.0, -7.0)
"""Angles of the compounded frames."""

_SIDE_LOBE_MM = 2.5
_TGC_LIMIT_DB = 40.0
_WHITE_DB = 18.0
"""Level that is displayed white at 0 dB gain."""

_FWHM_PER_SIGMA = float(np.sqrt(8 * np.log(2)))


def acquire(tissue: Tissue, cond: Conditions, grid: Grid, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take the scan.

    Args:
        tissue: what lies under the probe, on the padded grid.
        cond: settings and faults of the scan.
        grid: sampling.
        rng: draws scatterers and noise.

    Returns:
        B-mode grey values 0–255, uint8 of `grid.shape`.
    """
    loss = tissue.loss_db + _bubble_loss_db(tissue, cond, grid)
    echoes = _white(rng, grid.padded)
    echoes *= _amplitude(tissue.echo_db - loss)
    for interface in tissue.interfaces:
        _add_interface(echoes, interface, loss, grid)
    _add_probe_face(echoes, grid)
    _add_reverberation(echoes, cond, grid)
    _add_edge_waves(echoes, cond, grid)
    echoes += _white(rng, grid.padded) * np.float32(10 ** (cond.noise_db / 20))
    power = _beamform(axial_pulse(echoes, grid.spacing[2]), cond, grid)[grid.crop]
    gain = cond.gain_db + _tgc_db(loss[grid.crop], cond, grid)
    return log_compress(power, gain, cond.dynamic_range_db)


def _white(rng: np.random.Generator, shape: tuple[int, int, int]) -> Echoes:
    """Circular complex white noise of power 1: fully developed speckle."""
    noise = rng.standard_normal((*shape, 2), dtype=np.float32)
    noise *= np.float32(0.5**0.5)
    return noise.view(np.complex64)[..., 0]


def _amplitude(level_db: Array) -> Array:
    return np.exp(level_db * np.float32(np.log(10) / 20))


def _bubble_loss_db(tissue: Tissue, cond: Conditions, grid: Grid) -> Array:
    """Loss in dB behind air bubbles in the gel, (X, Y, 1), with soft edges; the gel in front stays."""
    loss = np.zeros_like(tissue.skin_mm)
    for x, y, radius, db in cond.bubbles:
        rho = np.hypot(grid.x - x, grid.y - y)
        # A logistic edge of 0.15 mm, by tanh: exp would overflow far from the bubble.
        loss = np.maximum(loss, db * (0.5 - 0.5 * np.tanh((rho - radius) / 0.3)))
    return loss[..., None].astype(np.float32)


def _add_interface(echoes: Echoes, interface: Interface, loss_db: Array, grid: Grid) -> None:
    """Add a surface's coherent echo, split between the two voxels around its depth, with its phase −2kz."""
    dz = grid.spacing[2]
    at = interface.depth_mm / dz - 0.5
    x, y = np.nonzero((at >= 0) & (at < echoes.shape[2] - 1))
    if not len(x):
        return
    at = at[x, y]
    j = at.astype(np.int64)
    part = at - j
    phase = np.exp(-2j * (2 * np.pi / WAVELENGTH_MM) * interface.depth_mm[x, y])
    value = _amplitude(interface.echo_db[x, y] - loss_db[x, y, j]) * phase
    echoes[x, y, j] += (1 - part) * value
    echoes[x, y, j + 1] += part * value


def _add_probe_face(echoes: Echoes, grid: Grid) -> None:
    """Ring-down of the transducer in the first half millimetre."""
    ring = -2.0 - 40.0 * grid.z / 0.5
    near = grid.z < 1.0
    echoes[..., near] += _amplitude(ring[near]) * np.exp(2j * grid.z[near]).astype(np.complex64)


def _add_reverberation(echoes: Echoes, cond: Conditions, grid: Grid) -> None:
    """Echoes that go once more between the probe and a shallow reflector: a delayed, weaker copy of all."""
    delay = max(1, round(cond.reverberation_mm / grid.spacing[2]))
    if delay < echoes.shape[2]:
        # The product is a copy: the sum must not feed on itself.
        echo = echoes[..., :-delay] * np.float32(10 ** (cond.reverberation_db / 20))
        echoes[..., delay:] += echo


def _add_edge_waves(echoes: Echoes, cond: Conditions, grid: Grid) -> None:
    """Ghosts of the waves that the ends of the long elements send out.

    An echo from depth z whose one leg starts at an element's end, e mm aside, arrives as if from
    z' = (z + √(z² + e²)) / 2, hence from z = z' − e² / 4z'.
    """
    dz = grid.spacing[2]
    gain = np.float32(10 ** (cond.ghost_db / 20))
    ghost = np.zeros_like(echoes)
    for axis, centres in enumerate((grid.x[:, 0], grid.y[0])):
        half = grid.extent_mm[axis] / 2
        for end in (-half, half):
            for i, centre in enumerate(centres):
                source = grid.z - (centre - end) ** 2 / (4 * grid.z)
                index = np.floor(source / dz).astype(np.int64)
                first = int(np.argmax(index >= 0)) if (index >= 0).any() else len(index)
                if axis == 0:
                    ghost[i, :, first:] += echoes[i][:, index[first:]]
                else:
                    ghost[:, i, first:] += echoes[:, i][:, index[first:]]
    echoes += gain * ghost


def axial_pulse(echoes: Echoes, dz_mm: float) -> Echoes:
    """Convolve with the Gaussian pulse of FWHM 0.24 mm along z, keeping the power of white noise."""
    sigma = PULSE_FWHM_MM / _FWHM_PER_SIGMA / dz_mm
    radius = int(np.ceil(3 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= np.sqrt((taps**2).sum())
    out: Echoes = echoes * np.float32(taps[radius])
    for step in range(1, radius + 1):
        tap = np.float32(taps[radius + step])
        out[..., step:] += tap * echoes[..., :-step]
        out[..., :-step] += tap * echoes[..., step:]
    return out


def beam_fwhm_mm(cond: Conditions, depth_mm: Array, aperture_mm: tuple[float, float]) -> tuple[Array, Array]:
    """Width of the transmit (x) and the receive (y) beam at each depth.

    Receive is focused at every depth with F-number max(F, z/D) and loses a little to aberration; transmit has
    one focus and widens away from it over the depth of field 7 λ F², of which retrospective focusing leaves a
    third.

    Args:
        cond: F-numbers and focus.
        depth_mm: depths in mm.
        aperture_mm: size of the probe face along x and y.

    Returns:
        Full width at half maximum of the pressure in mm, along x and y.
    """
    f_x, f_y = cond.f_number
    transmit = np.maximum(f_x, depth_mm / aperture_mm[0])
    half_field = 3.5 * WAVELENGTH_MM * f_x**2
    spread = 0.35 * (depth_mm - cond.focus_mm) / half_field
    receive = np.maximum(f_y, depth_mm / aperture_mm[1])
    aberration = np.sqrt(1 + (depth_mm / 30) ** 2)
    return WAVELENGTH_MM * transmit * np.sqrt(1 + spread**2), WAVELENGTH_MM * receive * aberration


def _transfer(k: Array, fwhm: Array, shift: float, side_lobe: float) -> Array:
    """Beam in the wavenumbers (K, Z): a Gaussian of unit noise power plus a wide side-lobe skirt."""
    sigma = fwhm / _FWHM_PER_SIGMA
    main = np.exp(-0.5 * ((k[:, None] - shift) * sigma[None, :]) ** 2)
    main /= np.sqrt((main**2).mean(axis=0))
    skirt = np.exp(-0.5 * (k[:, None] * _SIDE_LOBE_MM) ** 2) * np.ones_like(sigma)
    skirt /= np.sqrt((skirt**2).mean(axis=0))
    return (main + np.float32(side_lobe) * skirt).astype(np.float32)


def _beamform(echoes: Echoes, cond: Conditions, grid: Grid) -> Array:
    """Form three steered frames and compound their power; (X, Y, Z)."""
    kx, ky = (
        (2 * np.pi * np.fft.fftfreq(n, d)).astype(np.float32)
        for n, d in zip(grid.padded[:2], grid.spacing[:2], strict=True)
    )
    width_x, width_y = beam_fwhm_mm(cond, grid.z, grid.extent_mm[:2])
    side_lobe = 10 ** (cond.clutter_db / 20)
    spectrum = fft.fft(echoes, axis=1, overwrite_x=True)
    spectrum *= _transfer(ky, width_y, 0.0, side_lobe)[None]
    spectrum = fft.ifft(spectrum, axis=1, overwrite_x=True)
    spectrum = fft.fft(spectrum, axis=0, overwrite_x=True)
    power = np.zeros(echoes.shape, np.float32)
    for angle in _STEERING_DEG:
        shift = 2 * np.pi / WAVELENGTH_MM * np.sin(np.deg2rad(angle))
        frame = fft.ifft(spectrum * _transfer(kx, width_x, shift, side_lobe)[:, None, :], axis=0)
        power += frame.real**2
        power += frame.imag**2
    return power / np.float32(len(_STEERING_DEG))


def _tgc_db(loss_db: Array, cond: Conditions, grid: Grid) -> Array:
    """Time-gain compensation by depth: the operator's share of the typical loss, with errors at four knots."""
    typical = np.median(loss_db[::4, ::4], axis=(0, 1))
    knots = np.linspace(0, grid.extent_mm[2], len(cond.tgc_error_db))
    error = np.interp(grid.z, knots, cond.tgc_error_db)
    gain: Array = np.minimum(cond.tgc_share * typical, _TGC_LIMIT_DB) + error
    return gain.astype(np.float32)


def log_compress(power: Array, gain_db: Array | float, dynamic_range_db: float) -> NDArray[np.uint8]:
    """Map echo power to grey values: `18 dB − dynamic range` and below is 0, 18 dB and above is 255.

    Args:
        power: squared envelope, 1 is 0 dB.
        gain_db: added before display; broadcasts against `power`.
        dynamic_range_db: displayed range.

    Returns:
        uint8 of the shape of `power`.
    """
    level = np.log10(power + np.float32(1e-12))
    level *= np.float32(10)
    level += np.float32(dynamic_range_db - _WHITE_DB) + gain_db
    level *= np.float32(255 / dynamic_range_db)
    return np.clip(np.rint(level), 0, 255).astype(np.uint8)
