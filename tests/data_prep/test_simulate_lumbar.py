"""Simulated CT and MR of the lumbar region: anatomy, intensities and truth of single scans."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from data_prep.simulate.lumbar import LumbarSettings
from data_prep.simulate.lumbar.acquisition import LayeredField, draw_acquisition
from data_prep.simulate.lumbar.canvas import Canvas, Outline
from data_prep.simulate.lumbar.images import bias_field
from data_prep.simulate.lumbar.muscles import fat_probability
from data_prep.simulate.lumbar.scan import LumbarVolume, Phantom, simulate_volume
from data_prep.simulate.lumbar.subject import LEVELS, draw_lumbar_subject
from data_prep.simulate.lumbar.tissues import FAT, Tissue
from grn_monai.errors import InputError
from grn_monai.labels import CT_MUSCLES, MRI_MUSCLES

# The whole region at 2.8 mm with one sample of the tissue map in a voxel, and a slab around L4.
SMALL = {
    "ct": LumbarSettings("ct", shape=(128, 128, 20), spacing_mm=(2.8, 2.8, 10.0)),
    "mri": LumbarSettings("mri", shape=(100, 100, 20), spacing_mm=(2.4, 2.4, 10.0)),
}
FINE = {m: replace(s, shape=(*s.voxels[:2], 24), spacing_mm=(*s.spacing[:2], 1.6)) for m, s in SMALL.items()}


@pytest.fixture(scope="module", params=["ct", "mri"])
def volume(request: pytest.FixtureRequest) -> tuple[str, LumbarVolume]:
    return request.param, simulate_volume(SMALL[request.param], 1)


@pytest.fixture(scope="module")
def fine() -> dict[str, tuple[LumbarVolume, np.ndarray, np.ndarray]]:
    """Volume, tissue and muscle of the same voxels."""
    made = {}
    for modality, settings in FINE.items():
        phantom = Phantom(settings, 2)
        planes = [phantom.plane(i)[0] for i in range(settings.voxels[2])]
        tissue, muscle = (np.stack([getattr(p, key) for p in planes], 2) for key in ("tissue", "muscle"))
        made[modality] = (simulate_volume(settings, 2), tissue, muscle)
    return made


def core(mask: np.ndarray) -> np.ndarray:
    """What lies at least two pixels and a slice within a mask."""
    return ndimage.binary_erosion(ndimage.binary_erosion(mask, np.ones((3, 3, 1))), np.ones((3, 3, 3)))


class TestGeometry:
    def test_types_and_axes(self, volume: tuple[str, LumbarVolume]) -> None:
        modality, made = volume
        assert made.image.dtype == np.int16
        assert made.label.dtype == np.uint8
        assert made.image.shape == made.label.shape == SMALL[modality].shape
        assert nib.aff2axcodes(made.affine) == ("R", "A", "S")
        assert set(np.unique(made.label)) == set(CT_MUSCLES if modality == "ct" else MRI_MUSCLES)

    def test_left_has_the_smaller_x(self, volume: tuple[str, LumbarVolume]) -> None:
        modality, made = volume
        names = CT_MUSCLES if modality == "ct" else MRI_MUSCLES
        for left, name in names.items():
            if name.endswith("left"):
                right = next(v for v, n in names.items() if n == name.replace("left", "right"))
                x = [(np.argwhere(made.label == v) @ made.affine[:3, :3].T + made.affine[:3, 3])[:, 0]
                     for v in (left, right)]  # fmt: skip
                assert x[0].max() < x[1].min()

    def test_the_liver_is_on_the_right_and_the_belly_in_front(self) -> None:
        phantom = Phantom(SMALL["ct"], 1)
        tissue = phantom.plane(len(phantom.z) - 1)[0].tissue
        assert phantom.x[np.nonzero(tissue == Tissue.LIVER)[0]].mean() > 30
        assert phantom.y[np.nonzero(tissue == Tissue.LIVER)[1]].mean() > 0
        assert phantom.y[np.nonzero(tissue == Tissue.TABLE_FOAM)[1]].max() < -60

    def test_spine_muscles_lie_in_order(self, volume: tuple[str, LumbarVolume]) -> None:
        modality, made = volume
        if modality == "ct":
            assert np.argwhere(made.label == 1)[:, 1].mean() < np.argwhere(made.label == 3)[:, 1].mean()
            return
        # From the midline outwards: multifidus, erector; psoas is in front of both.
        x, y = (np.array([np.argwhere(made.label == v)[:, axis].mean() for v in range(1, 7)]) for axis in (0, 1))
        assert x[2] < x[0] < x[1] < x[3]
        assert max(y[:4]) < min(y[4:])

    def test_muscles_change_along_the_spine(self) -> None:
        label = simulate_volume(SMALL["mri"], 3).label
        area = np.stack([(label == v).sum((0, 1)) for v in range(1, 7)])
        low, high = area[:, 3:8].sum(1), area[:, 12:17].sum(1)
        assert (low[[0, 1, 4, 5]] > high[[0, 1, 4, 5]]).all()  # multifidus and psoas grow caudally
        assert (low[[2, 3]] < high[[2, 3]]).all()  # erector spinae shrinks

    @pytest.mark.parametrize("number", range(1, 9))
    def test_levels(self, number: int) -> None:
        subject = draw_lumbar_subject(0, number)
        scan = draw_acquisition(SMALL["ct"], subject)
        levels = scan.levels(subject)
        assert tuple(levels) == LEVELS
        heights = np.array(list(levels.values()))
        assert (np.diff(heights) < -28).all()  # L1 is the highest
        slices = (heights - scan.affine[2, 3]) / scan.spacing_mm[2]
        assert (slices > -0.5).all()
        assert (slices < scan.shape[2] - 0.5).all()

    def test_levels_are_the_middles_of_bone(self) -> None:
        settings = replace(SMALL["mri"], spacing_mm=(2.4, 2.4, 2.0), shape=(100, 100, 90), spacing_jitter=0.0)
        phantom = Phantom(settings, 1)
        scan, subject = phantom.acquisition, phantom.subject
        middles = [(h - scan.origin_mm[2] + scan.first_mm[2]) for h in scan.levels(subject).values()]
        between = (np.array(middles[:-1]) + middles[1:]) / 2
        centre = {}
        for i, z in enumerate(phantom.z):
            if min(np.abs(z - np.array([*middles, *between]))) < 1:
                x, y = subject.centre(float(z))
                tissue = phantom.plane(i)[0].tissue
                centre[float(z)] = tissue[np.abs(phantom.x - x).argmin(), np.abs(phantom.y - y).argmin()]
        for z in middles:
            assert centre[min(centre, key=lambda c: abs(c - z))] == Tissue.CANCELLOUS_BONE
        for z in between:
            assert centre[min(centre, key=lambda c: abs(c - z))] == Tissue.NUCLEUS

    def test_levels_out_of_view_are_not_told(self) -> None:
        subject = draw_lumbar_subject(0, 1)
        slab = replace(SMALL["ct"], shape=(128, 128, 6), spacing_mm=(2.8, 2.8, 10.0))
        assert 1 <= len(draw_acquisition(slab, subject).levels(subject)) <= 2

    def test_small_field_of_view_holds_the_muscles(self) -> None:
        settings = LumbarSettings("mri", shape=(90, 90, 5), spacing_mm=(2.0, 2.0, 30.0), spacing_jitter=0.0)
        assert set(np.unique(simulate_volume(settings, 5).label)) == set(MRI_MUSCLES)

    def test_spacing_is_drawn_for_mr_alone(self) -> None:
        def spacings(modality: str) -> np.ndarray:
            settings = SMALL[modality]
            return np.array([draw_acquisition(settings, draw_lumbar_subject(0, n)).spacing_mm for n in range(1, 13)])

        mr = spacings("mri") / SMALL["mri"].spacing
        assert len(np.unique(mr[:, 0])) == 12
        assert np.allclose(mr[:, 0], mr[:, 1], atol=1e-3)
        assert (np.abs(mr[:, 0] - 1) <= 0.151).all()
        assert mr[:, 0].std() > 0.04
        assert ((mr[:, 2] >= 0.85) & (mr[:, 2] <= 1)).all()
        assert (spacings("ct") == SMALL["ct"].spacing).all()


class TestTruth:
    @pytest.mark.parametrize("modality", ["ct", "mri"])
    def test_fat_share_is_that_of_the_noiseless_map(self, modality: str) -> None:
        settings = LumbarSettings(modality, shape=(64, 64, 6))
        phantom = Phantom(settings, 4)
        scan = phantom.acquisition
        planes = [phantom.plane(i)[0] for i in range(6 * scan.sub_slices)]
        ml = float(np.prod(np.diag(scan.affine)[:3])) / scan.sub_slices / scan.sub_pixels**2 / 1000
        members = {"autochthon": ("multifidus", "erector spinae"), "iliopsoas": ("psoas",)}
        truth = simulate_volume(settings, 4).truth
        assert len(truth) == (4 if modality == "ct" else 6)
        for name, told in truth.items():
            muscle, _, side = name.rpartition(" ")
            values = [v for v, n in MRI_MUSCLES.items() if n in {f"{m} {side}" for m in members.get(muscle, (muscle,))}]
            of_muscle = [p.tissue[np.isin(p.muscle, values)] for p in planes]
            samples = np.concatenate(of_muscle)
            assert told["fat_share"] == pytest.approx(np.isin(samples, FAT).mean(), abs=1e-6)
            assert told["volume_ml"] == pytest.approx(samples.size * ml, rel=1e-4)

    def test_label_is_near_the_truth_and_not_the_truth(self, fine: dict) -> None:
        made, _, muscle = fine["mri"]
        for value in range(1, 7):
            drawn, true = made.label == value, muscle == value
            dice = 2 * (drawn & true).sum() / (drawn.sum() + true.sum())
            assert 0.9 < dice < 1

    def test_fat_within_the_fascia_is_labelled(self, fine: dict) -> None:
        made, tissue, _ = fine["ct"]
        assert (made.label[tissue == Tissue.MUSCLE_FAT] > 0).mean() > 0.9
        assert (made.label[tissue == Tissue.SUBCUTANEOUS_FAT] == 0).all()
        assert (made.label[tissue == Tissue.OTHER_MUSCLE] == 0).mean() > 0.98

    def test_shares_are_as_drawn_on_the_whole(self) -> None:
        drawn, found = [], []
        for number in range(1, 7):
            truth = simulate_volume(LumbarSettings("mri", shape=(64, 64, 6)), number).truth
            subject = draw_lumbar_subject(0, number)
            drawn += [subject.fat_share[name] for name in truth]
            found += [told["fat_share"] for told in truth.values()]
        assert np.corrcoef(drawn, found)[0, 1] > 0.9
        assert np.mean(found) == pytest.approx(np.mean(drawn), rel=0.25)

    def test_more_fat_caudally_and_dorsally(self) -> None:
        dorsal = np.array([-1.0, 0.0, 1.0], np.float32)
        # 0.1 · (0.6 + 0.8 t) · (1 ∓ 0.5)
        assert fat_probability(0.1, 0.5, dorsal) == pytest.approx([0.05, 0.1, 0.15])
        assert fat_probability(0.1, 0.0, dorsal) == pytest.approx([0.03, 0.06, 0.09])
        assert (fat_probability(0.9, 1.0, dorsal) <= 0.9).all()

    def test_ct_and_mr_of_one_number_are_one_person(self) -> None:
        same = {"shape": (64, 64, 5), "spacing_mm": (5.0, 5.0, 30.0), "spacing_jitter": 0.0}
        ct = simulate_volume(LumbarSettings("ct", **same), 1).truth
        mr = simulate_volume(LumbarSettings("mri", **same), 1).truth
        for side in ("left", "right"):
            both = sum(mr[f"{muscle} {side}"]["volume_ml"] for muscle in ("multifidus", "erector spinae"))
            assert ct[f"autochthon {side}"]["volume_ml"] == pytest.approx(both, rel=1e-4)
            assert ct[f"iliopsoas {side}"] == mr[f"psoas {side}"]

    def test_same_number_same_scan_and_others_differ(self) -> None:
        settings = LumbarSettings("mri", shape=(64, 64, 6))
        first, again, other = (simulate_volume(settings, n) for n in (2, 2, 3))
        np.testing.assert_array_equal(first.image, again.image)
        np.testing.assert_array_equal(first.label, again.label)
        assert first.truth == again.truth
        assert (first.label != other.label).any()
        assert (first.image != simulate_volume(replace(settings, seed=1), 2).image).any()


class TestCt:
    def test_hounsfield_units(self, fine: dict) -> None:
        made, tissue, _ = fine["ct"]
        hu = draw_acquisition(FINE["ct"], draw_lumbar_subject(0, 2)).drawn["hu"]
        assert made.image[core(tissue == Tissue.AIR)].mean() == pytest.approx(-1000, abs=6)
        assert made.image[core(tissue == Tissue.SUBCUTANEOUS_FAT)].mean() == pytest.approx(-105, abs=10)
        muscle = made.image[core(tissue == Tissue.MUSCLE)].mean()
        assert muscle == pytest.approx(hu["muscle"], abs=5)
        assert 45 < hu["muscle"] < 65
        assert 150 <= made.image[core(tissue == Tissue.CANCELLOUS_BONE)].mean() <= 260
        assert made.image[core(tissue == Tissue.NUCLEUS)].mean() == pytest.approx(hu["disc"] - 5, abs=6)
        assert made.image[tissue == Tissue.CORTICAL_BONE].max() > 500

    def test_noise_is_as_drawn_and_correlated(self, fine: dict) -> None:
        made, tissue, _ = fine["ct"]
        drawn = draw_acquisition(FINE["ct"], draw_lumbar_subject(0, 2)).drawn["noise_hu"]
        where = core(tissue == Tissue.SUBCUTANEOUS_FAT)
        assert 8 <= drawn <= 25
        # The fat itself varies by 3 HU, smoothly.
        assert made.image[where].std() == pytest.approx(np.hypot(drawn, 3), rel=0.15)
        pairs = where[:-1] & where[1:]
        neighbours = np.corrcoef(made.image[:-1][pairs], made.image[1:][pairs])[0, 1]
        assert neighbours > 0.3

    def test_thick_slices_average(self) -> None:
        thin, thick = (
            simulate_volume(LumbarSettings("ct", shape=(128, 128, n), spacing_mm=(2.8, 2.8, d)), 1)
            for n, d in ((18, 5 / 3), (6, 5.0))
        )
        # Both have the same planes of the tissue map: the thick slices are means of three, but for noise.
        means = thin.image.reshape(128, 128, 6, 3).mean(3)
        bone = means > 250
        assert np.abs(means - thick.image)[bone].mean() < 45
        assert np.corrcoef(means[bone], thick.image[bone])[0, 1] > 0.9


class TestMr:
    def test_t2_like_contrast(self, fine: dict) -> None:
        made, tissue, _ = fine["mri"]
        bias = bias_field(draw_acquisition(FINE["mri"], draw_lumbar_subject(0, 2)), draw_lumbar_subject(0, 2))
        even = made.image / bias
        means = {t: np.median(even[tissue == t]) for t in Tissue if (tissue == t).sum() > 50}
        order = [Tissue.CSF, Tissue.SUBCUTANEOUS_FAT, Tissue.CANCELLOUS_BONE, Tissue.MUSCLE, Tissue.CORTICAL_BONE]
        assert [means[t] for t in order] == sorted((means[t] for t in order), reverse=True)
        assert means[Tissue.CSF] > means[Tissue.SUBCUTANEOUS_FAT] > 2.5 * means[Tissue.MUSCLE]

    def test_bright_at_the_back(self, fine: dict) -> None:
        made, tissue, _ = fine["mri"]
        fat = tissue == Tissue.SUBCUTANEOUS_FAT
        back, front = fat.copy(), fat.copy()
        back[:, 40:], front[:, :60] = False, False
        assert made.image[back].mean() > 1.25 * made.image[front].mean()

    def test_noise_of_the_air_is_rayleigh(self, fine: dict) -> None:
        made, tissue, _ = fine["mri"]
        drawn = draw_acquisition(FINE["mri"], draw_lumbar_subject(0, 2)).drawn
        sigma = drawn["gain"] * drawn["noise"]
        air = made.image[core(tissue == Tissue.AIR)].astype(float)
        assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.03)
        assert air.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.03)

    def test_gain_differs_from_scan_to_scan(self) -> None:
        gains = [draw_acquisition(SMALL["mri"], draw_lumbar_subject(0, n)).drawn["gain"] for n in range(1, 9)]
        assert max(gains) > 2 * min(gains)


class TestParts:
    def test_depth_in_a_circle_and_a_turned_ellipse(self) -> None:
        axis = np.linspace(-20, 20, 41, dtype=np.float32)
        canvas = Canvas(axis, axis)
        patch = canvas.patch(Outline(1, 2, 6, 6))
        assert patch is not None
        x, y = np.meshgrid(axis[patch.box[0]], axis[patch.box[1]], indexing="ij")
        np.testing.assert_allclose(patch.depth, 6 - np.hypot(x - 1, y - 2), atol=1e-4)
        # A quarter turn swaps the axes; on the left side the turn is mirrored.
        canvas.paint(Outline(0, 0, 12, 4, np.pi / 4), 1)
        assert canvas.tissue[20 + 6, 20 + 6] == 1
        assert canvas.tissue[20 + 6, 20 - 6] == 0
        canvas.paint(Outline(0, 0, 12, 4, np.pi / 4, (), -1), 2)
        assert canvas.tissue[20 + 6, 20 - 6] == 2
        assert canvas.patch(Outline(50, 0, 6, 6)) is None
        assert canvas.patch(Outline(0, 0, 0, 6)) is None

    def test_harmonics(self) -> None:
        axis = np.linspace(-20, 20, 81, dtype=np.float32)
        patch = Canvas(axis, axis).patch(Outline(0, 0, 10, 10, waves=((0.2, 0.0), (0.0, 0.1))))
        assert patch is not None
        x, y = np.meshgrid(axis[patch.box[0]], axis[patch.box[1]], indexing="ij")
        angle = np.arctan2(y, x)
        expected = 10 * (1 + 0.2 * np.cos(3 * angle) + 0.1 * np.sin(4 * angle)) - np.hypot(x, y)
        away = np.hypot(x, y) > 0
        np.testing.assert_allclose(patch.depth[away], expected[away], atol=1e-3)

    def test_layered_field(self) -> None:
        field = LayeredField(np.random.default_rng(0), (200, 200), (2.0, 2.0), 0.0, 10.0)
        low, near, middle, far = (field.at(z) for z in (0.0, 1.0, 5.0, 10.0))
        assert [p.std() for p in (low, middle, far)] == pytest.approx([1, 1, 1], abs=0.05)
        assert np.corrcoef(low.ravel(), near.ravel())[0, 1] > 0.98
        assert abs(np.corrcoef(low.ravel(), far.ravel())[0, 1]) < 0.06


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"modality": "pet"}, "--modality: found pet; expected ct or mri"),
            ({"split": (0, 1, 1)}, "--split: found 0 1 1"),
            ({"split": (1, -1, 1)}, "--split: found 1 -1 1"),
            ({"shape": (31, 64, 6)}, "--shape: found 31 64 6; expected at least 32 32 4"),
            ({"shape": (64, 64, 0)}, "--shape: found 64 64 0"),
            ({"spacing_mm": (0.5, 1.4, 5)}, "256 voxels of 0.5 mm along X, 128 mm in all; expected 160 to 600"),
            ({"spacing_mm": (1.4, 1.4, 0)}, "40 voxels of 0 mm along Z"),
            ({"spacing_mm": (1.4, -1.4, 5)}, "along Y"),
            ({"spacing_mm": (1.4, float("nan"), 5)}, "along Y"),
            ({"spacing_jitter": 0.6}, "--spacing-jitter: found 0.6"),
            ({"seed": -1}, "--seed: found -1"),
        ],
    )
    def test_settings(self, options: dict, words: str) -> None:
        with pytest.raises(InputError) as stop:
            LumbarSettings(**options)
        assert words in str(stop.value)

    def test_a_shape_alone_keeps_the_extent(self) -> None:
        assert LumbarSettings("ct", shape=(64, 128, 10)).spacing == (5.6, 2.8, 20)
