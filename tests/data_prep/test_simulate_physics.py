"""The simulator's physics and anatomy against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.simulate.acquisition import WAVELENGTH_MM, acquire, axial_pulse, beam_fwhm_mm, log_compress
from data_prep.simulate.anatomy import THICKNESS_RANGE_MM, draw_subject, thicknesses
from data_prep.simulate.conditions import Conditions, draw_conditions
from data_prep.simulate.grid import Grid, SmoothField, texture_pair
from data_prep.simulate.scan import scan_affine, simulate_scan
from data_prep.simulate.settings import Settings
from data_prep.simulate.tissue import Interface, Tissue, build_tissue, two_way_loss_db

EXTENT = (25.6, 25.6, 38.4)
SMALL = Settings(shape=(32, 32, 128))


def quiet(**changes: object) -> Conditions:
    """Conditions without any fault."""
    values: dict = {
        "side": "left",
        "centre_mm": (20.0, 0.0),
        "tilt_rad": (0.0, 0.0),
        "pressure": 1.0,
        "gel_mm": 0.15,
        "gain_db": 0.0,
        "tgc_error_db": (0.0, 0.0, 0.0, 0.0),
        "tgc_share": 0.0,
        "dynamic_range_db": 60.0,
        "noise_db": -200.0,
        "clutter_db": -200.0,
        "reverberation_db": -200.0,
        "reverberation_mm": 2.0,
        "ghost_db": -200.0,
        "f_number": (1.7, 1.7),
        "focus_mm": 15.0,
        "bubbles": (),
    }
    return Conditions(**{**values, **changes})


def block(grid: Grid, echo_db: float = 0.0, alpha: float = 0.0) -> Tissue:
    """One homogeneous tissue filling the volume."""
    codes = np.full(grid.padded, 6, np.uint8)
    echo = np.full(grid.padded, echo_db, np.float32)
    loss = two_way_loss_db(codes, {6: alpha}, grid.spacing[2])
    return Tissue(codes, echo, loss, [], np.zeros(grid.padded[:2], np.float32))


def level_db(image: np.ndarray, dynamic_range_db: float = 60.0) -> np.ndarray:
    """Undo the display: grey values to dB, 255 is 18 dB."""
    return image.astype(float) / 255 * dynamic_range_db + 18 - dynamic_range_db


def mean_db(image: np.ndarray, axis: tuple[int, ...] | None = None) -> np.ndarray:
    """Mean echo power in dB; a mean of decibels would depend on the speckle's statistics."""
    return 10 * np.log10((10 ** (level_db(image) / 10)).mean(axis=axis))


class TestGrid:
    def test_centres(self) -> None:
        grid = Grid((128, 64, 256), EXTENT)
        assert grid.spacing == pytest.approx((0.2, 0.4, 0.15))
        assert grid.x[grid.crop[0]][[0, -1], 0] == pytest.approx([-12.7, 12.7])
        assert grid.y[0, grid.crop[1]][[0, -1]] == pytest.approx([-12.6, 12.6])
        assert grid.z[[0, -1]] == pytest.approx([0.075, 38.325])
        assert grid.padded[0] * 0.2 >= 25.6 + 2 * 1.6

    def test_smooth_field_has_unit_variance_and_its_length(self) -> None:
        rng = np.random.default_rng(0)
        at = np.zeros((1, 1), np.float32)
        pairs = [(f(at, at), f(at + 3, at)) for f in (SmoothField(rng, 3.0) for _ in range(3000))]
        a, b = np.array(pairs)[..., 0, 0].T
        assert a.std() == pytest.approx(1, abs=0.05)
        assert np.corrcoef(a, b)[0, 1] == pytest.approx(np.exp(-0.5), abs=0.04)

    def test_texture_pair_statistics(self) -> None:
        grid = Grid((64, 64, 128), (25.6, 25.6, 25.6))
        f, g = texture_pair(np.random.default_rng(1), grid, (2.0, 1.0, 0.5))
        assert f.std() == pytest.approx(1, abs=0.05)
        assert abs(np.mean(f * g)) < 0.05
        # exp(−r²/4ℓ²) at r = 0.8 mm = 2 voxels of 0.4 mm along x and y, 4 of 0.2 mm along z.
        for axis, (shift, length) in enumerate(((2, 2.0), (2, 1.0), (4, 0.5))):
            assert np.mean(f * np.roll(f, shift, axis)) == pytest.approx(np.exp(-0.64 / 4 / length**2), abs=0.06)

    def test_texture_slope(self) -> None:
        grid = Grid((32, 64, 128), (12.8, 12.8, 12.8))
        f, _ = texture_pair(np.random.default_rng(2), grid, (1.0, 4.0, 0.3), slope=0.5)
        # 0.8 mm along y the pattern lies 0.4 mm = 4 voxels deeper.
        along = np.mean(f * np.roll(f, (4, 4), (1, 2)))
        assert along > 0.9
        assert along > np.mean(f * np.roll(f, (4, -4), (1, 2))) + 0.5


class TestAnatomy:
    def test_subjects_keep_the_published_ranges(self) -> None:
        subjects = [draw_subject(0, n) for n in range(1, 301)]
        for k, (low, high) in THICKNESS_RANGE_MM.items():
            values = [s.thickness_mm[k] for s in subjects]
            assert low <= min(values)
            assert max(values) <= high
        mean = {k: np.mean([s.thickness_mm[k] for s in subjects]) for k in (1, 3, 5)}
        assert mean == pytest.approx({1: 1.9, 3: 0.95, 5: 1.6}, abs=0.09)
        echo = {k: np.mean([s.echo_db[k] for s in subjects]) for k in range(1, 7)}
        assert echo == pytest.approx({1: 2, 2: -12, 3: 2, 4: -12, 5: 4, 6: -13}, abs=0.8)
        assert 3 <= np.std([s.echo_db[2] for s in subjects]) <= 4
        assert np.mean([s.aponeurosis is not None for s in subjects]) == pytest.approx(0.5, abs=0.09)
        assert np.mean([s.septum is not None for s in subjects]) == pytest.approx(0.4, abs=0.09)
        assert np.mean([s.bone is not None for s in subjects]) == pytest.approx(0.4, abs=0.09)
        fats = np.log([[s.thickness_mm[2], s.thickness_mm[4]] for s in subjects]).T
        assert np.corrcoef(fats)[0, 1] > 0.5

    def test_a_subject_depends_on_seed_and_number_alone(self) -> None:
        assert draw_subject(5, 3).parameters() == draw_subject(5, 3).parameters()
        assert draw_subject(5, 3).parameters() != draw_subject(6, 3).parameters()

    def test_pressure_thins_the_fat_fully_and_collagen_by_the_root(self) -> None:
        grid = Grid((32, 32, 64), EXTENT)
        subject = draw_subject(0, 1)
        free, pressed = (thicknesses(subject, grid, (20, 0), p) for p in (1.0, 0.72))
        for k in (2, 4):
            assert pressed[k] == pytest.approx(np.maximum(free[k] * 0.72, 0.1), rel=1e-4)
        for k in (1, 3, 5):
            assert pressed[k] == pytest.approx(free[k] * 0.72**0.5, rel=1e-4)

    def test_overlapping_scans_see_the_same_anatomy(self) -> None:
        grid = Grid((128, 32, 64), EXTENT)
        one, two = (thicknesses(draw_subject(0, 2), grid, (u, 0), 1.0) for u in (20.0, 22.0))
        # 2 mm to the side are ten voxels of 0.2 mm.
        for k in one:
            assert one[k][10:] == pytest.approx(two[k][:-10], abs=2e-3)

    def test_scan_conditions_keep_the_published_ranges(self) -> None:
        scans = [draw_conditions(0, s, k, (42, 58)) for s in range(1, 101) for k in (1, 2)]
        assert all(0.72 <= c.pressure <= 1.12 and c.gel_mm >= 0.15 and min(c.f_number) >= 1.3 for c in scans)
        assert all(12 <= c.focus_mm <= 22 and max(c.f_number) <= 2.2 for c in scans)
        assert np.std([c.tilt_rad for c in scans]) == pytest.approx(0.045, abs=0.006)
        assert np.std([c.gain_db for c in scans]) == pytest.approx(4, abs=0.7)
        assert np.mean([len(c.bubbles) for c in scans]) == pytest.approx(1.2, abs=0.3)
        assert all(6 <= bubble[3] <= 18 for c in scans for bubble in c.bubbles)
        assert [c.side for c in scans[:2]] == ["left", "right"]


class TestLabels:
    @pytest.mark.parametrize("subject", [1, 2, 7])
    def test_every_a_line_meets_the_layers_in_order(self, subject: int) -> None:
        _, labels, _ = simulate_scan(SMALL, subject, 1)
        step = np.diff(labels.astype(int), axis=2)
        # Downwards only from muscle to the background behind bone, and once at that.
        down = step < 0
        assert (labels[..., :-1][down] == 6).all()
        assert (labels[..., 1:][down] == 0).all()
        assert down.sum(axis=2).max() <= 1
        assert labels[..., 0].max() <= 1  # gel, or skin where the annotator drew it 0.1 mm too high
        assert set(np.unique(labels)) == set(range(7))

    def test_bone_hides_what_lies_behind_it(self) -> None:
        number = next(n for n in range(1, 40) if draw_subject(0, n).bone)
        settings = Settings(shape=(64, 64, 128))
        for scan in range(1, 9):
            image, labels, _ = simulate_scan(settings, number, scan)
            hidden = labels[..., -1] == 0
            if hidden.any() and not hidden.all():
                assert (labels[hidden].max(axis=1) == 6).all()
                assert image[hidden, -16:].mean() < image[~hidden, -16:].mean()
                return
        pytest.fail("no scan of this subject shows a lamina")

    def test_labels_follow_the_anatomy_to_the_annotators_jitter(self) -> None:
        grid = Grid((64, 64, 256), EXTENT)
        subject, cond = draw_subject(0, 1), quiet(pressure=0.9)
        _, labels = build_tissue(subject, cond, grid, np.random.default_rng(0))
        thick = thicknesses(subject, grid, cond.centre_mm, 0.9)
        for k in range(1, 6):
            measured = (labels == k).sum(axis=2) * 0.15
            error = measured - thick[k]
            assert abs(error.mean()) < 0.1
            # Two boundaries of 0.1 mm each, and the rounding of two ends to 0.15 mm voxels.
            assert error.std() == pytest.approx((2 * 0.1**2 + 2 * 0.15**2 / 12) ** 0.5, rel=0.45)


class TestAcquisition:
    def test_two_way_loss(self) -> None:
        # 1.5 mm of fat at 0.5, 3 mm of muscle at 1.0 dB/cm/MHz, voxels of 0.15 mm, 6 MHz, there and back.
        codes = np.repeat(np.array([2, 6], np.uint8), [10, 20])[None, None]
        loss = two_way_loss_db(codes, {2: 0.5, 6: 1.0}, 0.15)[0, 0]
        assert loss[0] == pytest.approx(0.5 * 6 * 2 * 0.015 / 2)
        assert loss[10] == pytest.approx(0.9 + 0.09)
        assert loss[-1] == pytest.approx(0.9 + 3.6 - 0.09)

    def test_attenuation_darkens_the_image_by_that_many_decibels(self) -> None:
        grid = Grid((48, 48, 256), EXTENT)
        image = acquire(block(grid, alpha=0.5), quiet(), grid, np.random.default_rng(0))
        profile = mean_db(image, axis=(0, 1))
        slope = np.polyfit(grid.z[20:-20], profile[20:-20], 1)[0]
        assert slope == pytest.approx(-0.5 * 6 * 2 / 10, rel=0.03)

    def test_tgc_undoes_its_share(self) -> None:
        grid = Grid((48, 48, 256), EXTENT)
        image = acquire(block(grid, alpha=0.5), quiet(tgc_share=1.0), grid, np.random.default_rng(0))
        profile = mean_db(image, axis=(0, 1))
        assert abs(np.polyfit(grid.z[20:-20], profile[20:-20], 1)[0]) < 0.02

    def test_speckle_has_the_mean_power_of_the_tissue(self) -> None:
        grid = Grid((64, 64, 128), EXTENT)
        image = acquire(block(grid, echo_db=-10.0), quiet(), grid, np.random.default_rng(0))
        power = 10 ** (level_db(image)[..., 20:-4] / 10)
        assert 10 * np.log10(power.mean()) == pytest.approx(-10, abs=0.3)
        # Three correlated frames: between one look of full speckle (1) and three independent ones (0.58).
        assert 0.6 < power.std() / power.mean() < 1.0

    def test_bubble_shadow(self) -> None:
        grid = Grid((64, 64, 128), EXTENT)
        cond = quiet(bubbles=((0.0, 0.0, 4.0, 12.0),))
        image = acquire(block(grid), cond, grid, np.random.default_rng(0))
        power = 10 ** (level_db(image)[..., 20:] / 10)
        radius = np.hypot(grid.x, grid.y)[grid.crop[:2]]
        inside, outside = power[radius < 2.5].mean(), power[radius > 7].mean()
        assert 10 * np.log10(outside / inside) == pytest.approx(12, abs=0.8)

    def test_noise_level(self) -> None:
        grid = Grid((48, 48, 128), EXTENT)
        image = acquire(block(grid, echo_db=-200.0), quiet(noise_db=-25.0), grid, np.random.default_rng(0))
        assert mean_db(image[..., 20:-4]) == pytest.approx(-25, abs=0.4)

    def test_interface_lies_at_its_depth_and_repeats_after_the_reverberation(self) -> None:
        grid = Grid((48, 48, 256), EXTENT)
        flat = np.full(grid.padded[:2], 12.0, np.float32)
        tissue = block(grid, echo_db=-200.0)
        tissue.interfaces.append(Interface(flat, np.full_like(flat, -15.0)))
        cond = quiet(reverberation_db=-12.0, reverberation_mm=3.0)
        image = acquire(tissue, cond, grid, np.random.default_rng(0))
        profile = level_db(image).mean(axis=(0, 1))
        peak = int(profile[40:].argmax()) + 40
        assert grid.z[peak] == pytest.approx(12.0, abs=0.15)
        again = int(profile[peak + 8 :].argmax()) + peak + 8
        assert grid.z[again] == pytest.approx(15.0, abs=0.15)
        # The lateral beam widens from 12 to 15 mm, hence the tolerance.
        assert profile[again] - profile[peak] == pytest.approx(-12, abs=1.5)

    def test_ghost_of_an_edge_wave_is_deeper(self) -> None:
        grid = Grid((64, 64, 256), EXTENT)
        flat = np.full(grid.padded[:2], 10.0, np.float32)
        tissue = block(grid, echo_db=-200.0)
        tissue.interfaces.append(Interface(flat, np.full_like(flat, 10.0)))
        image = acquire(tissue, quiet(ghost_db=-24.0, f_number=(2.2, 2.2)), grid, np.random.default_rng(0))
        # Under the middle both ends are 12.8 mm aside: (10 + √(10² + 12.8²)) / 2 = 13.12 mm.
        profile = level_db(image)[30:34, 30:34].mean(axis=(0, 1))
        deep = grid.z > 11.5
        assert grid.z[deep][profile[deep].argmax()] == pytest.approx(13.12, abs=0.3)

    def test_axial_pulse(self) -> None:
        echoes = np.zeros((1, 1, 401), np.complex64)
        echoes[0, 0, 200] = 1
        shape = np.abs(axial_pulse(echoes, 0.01))[0, 0]
        assert (shape >= shape.max() / 2).sum() * 0.01 == pytest.approx(0.24, abs=0.015)
        assert (shape**2).sum() == pytest.approx(1, rel=1e-4)

    def test_beam_width(self) -> None:
        cond = quiet(f_number=(1.5, 2.0), focus_mm=15.0)
        x, y = beam_fwhm_mm(cond, np.array([5.0, 15.0, 38.4], np.float32), (25.6, 25.6))
        assert x[1] == pytest.approx(WAVELENGTH_MM * 1.5)
        assert pytest.approx(1.54 / 6) == WAVELENGTH_MM
        assert x[0] > x[1] < x[2]
        assert y[2] == pytest.approx(WAVELENGTH_MM * 2.0 * (1 + (38.4 / 30) ** 2) ** 0.5)

    def test_speckle_grain_is_anisotropic_and_widens_with_depth(self) -> None:
        grid = Grid((128, 64, 256), EXTENT)
        image = level_db(acquire(block(grid), quiet(focus_mm=12.0), grid, np.random.default_rng(0)))

        def correlation(part: np.ndarray, axis: int, mm: float) -> float:
            shift = round(mm / grid.spacing[axis])
            a, b = np.moveaxis(part, axis, 0)[shift:], np.moveaxis(part, axis, 0)[:-shift]
            return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

        focus, deep = image[..., 60:100], image[..., 200:240]
        assert correlation(focus, 2, 0.3) < correlation(focus, 0, 0.4)
        assert correlation(deep, 0, 0.6) > correlation(focus, 0, 0.6) + 0.2

    def test_log_compression(self) -> None:
        power = np.array([10**1.8, 10**-3.2, 10**-0.7, 1e3, 0], np.float32)
        assert log_compress(power, 0.0, 50.0).tolist() == [255, 0, 128, 255, 0]
        assert log_compress(power, 10.0, 50.0).tolist() == [255, 51, 178, 255, 0]


class TestGeometry:
    def test_axes_point_left_superior_anterior_and_are_right_handed(self) -> None:
        affine = scan_affine(Grid((128, 128, 256), EXTENT), (20.0, 30.0))
        assert affine[:3, :3].tolist() == pytest.approx(np.array([[-0.2, 0, 0], [0, 0, 0.15], [0, 0.2, 0]]))
        assert np.linalg.det(affine[:3, :3]) > 0
        # The middle of the probe face lies 20 mm to the left (−R) of the midline, 30 mm up, at depth 0.
        middle = affine @ [63.5, 63.5, -0.5, 1]
        assert middle[:3] == pytest.approx([-20, 0, 30])

    def test_a_scan_depends_on_its_numbers_alone(self) -> None:
        small = Settings(shape=(16, 16, 32))
        one, two = simulate_scan(small, 2, 1), simulate_scan(small, 2, 1)
        assert (one[0] == two[0]).all()
        assert (one[1] == two[1]).all()
        assert (one[0] != simulate_scan(small, 2, 2)[0]).mean() > 0.5
        other = Settings(split=(20, 2, 11), split_scans=(40, 2, 11), shape=(16, 16, 32))
        assert (simulate_scan(other, 2, 1)[0] == one[0]).all()
