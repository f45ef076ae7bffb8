"""Thickness along the normal, on slabs and shells whose thickness is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grn_monai.measure import thickness_map
from grn_monai.measure.normal import normal_thickness_map
from grn_monai.measure.surface import layer_extent, smooth_surface

FINE, COARSE = ((0.2, 0.2, 0.15), (64, 64, 160)), ((0.5, 0.3, 0.4), (30, 50, 60))


def centres(spacing: tuple[float, ...], shape: tuple[int, ...]) -> list[np.ndarray]:
    axes = [(np.arange(n) + 0.5) * d for n, d in zip(shape, spacing, strict=True)]
    axes[0] -= axes[0].mean()
    axes[1] -= axes[1].mean()
    return np.meshgrid(*axes, indexing="ij", sparse=True)


def slab(spacing: tuple[float, ...], shape: tuple[int, ...], t: float, tilt_x: float, tilt_y: float) -> np.ndarray:
    """A plane layer of thickness t, tilted by two angles, through the middle of the volume."""
    x, y, z = centres(spacing, shape)
    normal = np.array([-np.tan(tilt_x), -np.tan(tilt_y), 1.0])
    normal /= np.linalg.norm(normal)
    z0 = shape[2] * spacing[2] / 2 - t / 2 + 0.01
    distance = x * normal[0] + y * normal[1] + (z - z0) * normal[2]
    return ((distance >= 0) & (distance < t)).astype(np.uint8)


def shell(spacing: tuple[float, ...], shape: tuple[int, ...], t: float, radius: float, dome: bool) -> np.ndarray:
    """A layer between two concentric spheres: a dome, or a bowl."""
    x, y, z = centres(spacing, shape)
    if dome:
        r = np.sqrt(x**2 + y**2 + (z - 4 - radius) ** 2)
        return ((r <= radius) & (r > radius - t) & (z < 4 + radius)).astype(np.uint8)
    r = np.sqrt(x**2 + y**2 + (z - 12 + radius) ** 2)
    return ((r >= radius) & (r < radius + t) & (z > 12 - radius)).astype(np.uint8)


@given(st.sampled_from([FINE, COARSE]), st.floats(1, 4), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
@settings(max_examples=60, deadline=None)
def test_tilted_slabs(grid: tuple, t: float, tilt_x: float, tilt_y: float) -> None:
    labels = slab(*grid, t, tilt_x, tilt_y)
    found = normal_thickness_map(labels, 1, grid[0])
    known = found[np.isfinite(found)]
    assert known.size > 0.2 * found.size
    # A level surface falls on the voxel grid, so that a voxel's depth is all that can be promised. So it is, in part,
    # with a tilt of one voxel down for every two or three across; other tilts average the grid out.
    assert abs(known.mean() - t) < grid[0][2]
    if max(abs(tilt_x), abs(tilt_y)) > 0.15:
        assert abs(known.mean() - t) < 0.4 * grid[0][2]
        assert np.sqrt(np.mean((known - t) ** 2)) < 0.5 * grid[0][2]


def test_slabs_of_many_tilts_on_the_whole() -> None:
    errors = []
    for i in range(12):
        tilt_x, tilt_y = 0.5 * np.sin(1 + 2.4 * i), 0.5 * np.cos(1 + 2.4 * i)  # 0.5 rad all round
        found = normal_thickness_map(slab(*FINE, 0.8 + 0.21 * i, tilt_x, tilt_y), 1, FINE[0])
        errors.append(np.nanmean(found) - (0.8 + 0.21 * i))
    assert np.abs(errors).max() < 0.01
    assert abs(np.mean(errors)) < 0.002


def test_the_a_line_overestimates_a_tilted_slab_by_the_cosine() -> None:
    spacing, shape = FINE
    tilt = np.radians(20)
    labels = slab(spacing, shape, 2.0, tilt, 0)
    along = thickness_map(labels, 1, spacing[2])
    assert along.mean() == pytest.approx(2 / np.cos(tilt), abs=0.01)
    assert np.nanmean(normal_thickness_map(labels, 1, spacing)) == pytest.approx(2, abs=0.005)


@pytest.mark.parametrize("dome", [True, False])
@pytest.mark.parametrize(("t", "radius"), [(0.6, 20), (2.0, 20), (2.0, 40), (5.0, 40)])
def test_shells(t: float, radius: float, dome: bool) -> None:
    found = normal_thickness_map(shell(*FINE, t, radius, dome), 1, FINE[0])
    known = found[np.isfinite(found)]
    assert known.size > 0.6 * found.size
    assert abs(known.mean() - t) < 0.015
    assert np.sqrt(np.mean((known - t) ** 2)) < 0.03


def test_a_wedge_is_measured_from_its_upper_face() -> None:
    """Upper face level, lower face falling by a slope: along the upper normal the distance is that along the A-line."""
    spacing, shape = FINE
    x, _, z = centres(spacing, shape)
    bottom = 8 + 0.2 * x
    labels = np.broadcast_to((z >= 5) & (z < bottom), shape).astype(np.uint8)
    found = normal_thickness_map(labels, 1, spacing)
    inner = found[8:-8]
    np.testing.assert_allclose(inner, np.broadcast_to(bottom - 5.025, shape)[8:-8, :, 0], atol=0.08)


def test_what_is_not_known_is_nan() -> None:
    spacing, shape = FINE
    labels = slab(spacing, shape, 2.0, 0.2, 0)
    labels[20:24, 30:36] = 0  # a hole
    labels[50, :, 60:] = 1  # goes on to the end of the view
    found = normal_thickness_map(labels, 1, spacing)
    assert np.isnan(found[20:24, 30:36]).all()
    assert np.isnan(found[50]).all()
    assert np.nanmean(found) == pytest.approx(2, abs=0.02)
    assert np.isnan(normal_thickness_map(labels, 2, spacing)).all()
    assert np.isnan(normal_thickness_map(np.ones(shape, np.uint8), 1, spacing)).all()


def test_stray_voxels_do_not_move_the_surface() -> None:
    spacing, shape = FINE
    labels = slab(spacing, shape, 2.0, 0.2, 0.1)
    clean = normal_thickness_map(labels, 1, spacing)
    rng = np.random.default_rng(0)
    spots = rng.integers(0, [64, 64, 30], (40, 3))
    labels[tuple(spots.T)] = 1  # far above the slab
    labels[10, 10, 40:130] = 1  # one A-line all wrong
    found = normal_thickness_map(labels, 1, spacing)
    far = np.hypot(*np.ogrid[-10:54, -10:54]) > 1
    known = np.isfinite(clean) & np.isfinite(found) & far
    np.testing.assert_allclose(found[known], clean[known], atol=0.06)


def test_longest_run() -> None:
    labels = np.array([[[1, 0, 1, 1, 0, 0], [1, 1, 0, 1, 1, 0], [0, 2, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1]]], np.uint8)
    start, end = layer_extent(labels, 1)
    assert start.tolist() == [[2, 0, -1, 2]]
    assert end.tolist() == [[4, 2, -1, 6]]


def test_smoothing_keeps_planes_at_rims_and_beside_gaps() -> None:
    x, y = np.meshgrid(np.arange(30) * 0.5, np.arange(20) * 0.2, indexing="ij")
    plane = 40 + 0.3 * x - 0.7 * y
    known = np.ones_like(plane, dtype=bool)
    known[10:15, 5:9] = False
    surface, weight = smooth_surface(np.where(known, plane, np.nan), known, (0.5, 0.2), 0.8, 0.05)
    np.testing.assert_allclose(surface.height, plane, atol=1e-4)
    np.testing.assert_allclose(surface.slope_x, 0.3, atol=1e-4)
    np.testing.assert_allclose(surface.slope_y, -0.7, atol=1e-4)
    assert (weight[known] > 0.99).all()
    assert (weight[~known] == 0).all()


@pytest.mark.parametrize(
    ("shape", "spacing", "sigma"),
    [((3, 4), (1, 1, 1), 1.0), ((3, 4, 5), (1, 1), 1.0), ((3, 4, 5), (1, 0, 1), 1.0), ((3, 4, 5), (1, 1, 1), np.nan)],
)
def test_bad_input(shape: tuple, spacing: tuple, sigma: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        normal_thickness_map(np.zeros(shape, np.uint8), 1, spacing, sigma)
