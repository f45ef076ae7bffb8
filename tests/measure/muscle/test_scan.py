"""Numbers of muscles: boxes by hand, SimpleITK, oblique grids, ranges of HU, levels, sides and checks."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from grn_monai.errors import InputError
from grn_monai.measure.muscle.ct import check_hu, ct_numbers
from grn_monai.measure.muscle.frame import AxialFrame
from grn_monai.measure.muscle.mr import correct_bias, threshold_region
from grn_monai.measure.muscle.scan import NOTHING, ONE_PEAK, measure_muscles
from grn_monai.measure.muscle.settings import MuscleSettings
from grn_monai.measure.muscle.sides import muscle_sides

NAMES = {1: "psoas left", 2: "psoas right"}
AFFINE = np.array([[2.0, 0, 0, -40], [0, 1.5, 0, 10], [0, 0, 5, 100], [0, 0, 0, 1]])


def boxes() -> tuple[np.ndarray, np.ndarray]:
    """Left psoas of 4 × 6 × 5 voxels and right one of 4 × 6 × 3; 50 HU, half of the left one −100 HU."""
    labels = np.zeros((20, 16, 8), np.uint8)
    labels[2:6, 4:10, 1:6] = 1
    labels[12:16, 4:10, 2:5] = 2
    hu = np.full(labels.shape, -900.0, np.float32)
    hu[labels > 0] = 50
    hu[2:4, 4:10, 1:6] = -100
    return labels, hu


def test_boxes_by_hand() -> None:
    left, right = measure_muscles(*boxes(), AFFINE, NAMES, "ct").numbers["muscles"]
    assert left["volume_ml"] == pytest.approx(120 * 15 / 1000)
    assert left["lean_volume_ml"] == pytest.approx(60 * 15 / 1000)
    assert left["area_max_cm2"] == left["area_mean_cm2"] == pytest.approx(24 * 3 / 100)
    assert (left["slices_with"], right["slices_with"]) == (5, 3)
    assert [row["position_mm"] for row in left["slices"]] == [105, 110, 115, 120, 125]
    assert (left["fat_percent"], left["normal_percent"], right["fat_percent"]) == (50, 50, 0)
    assert left["grey"]["mean"] == pytest.approx(-25)
    assert left["muscle_density_hu"] == pytest.approx(50)
    assert sum(left["histogram"]) == 120
    assert (left["cut_ends"], left["check"], right["check"]) == ("", "", "")


def test_against_simpleitk() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (12, 10, 6)).astype(np.uint8)
    hu = rng.normal(30, 60, labels.shape).astype(np.float32)
    image, mask = sitk.GetImageFromArray(hu.T), sitk.GetImageFromArray(labels.T)
    for volume in (image, mask):
        volume.SetSpacing((2.0, 1.5, 5.0))
    shape, grey = sitk.LabelShapeStatisticsImageFilter(), sitk.LabelIntensityStatisticsImageFilter()
    shape.Execute(mask)
    grey.Execute(mask, image)
    for muscle in measure_muscles(labels, hu, AFFINE, NAMES, "ct").numbers["muscles"]:
        label = muscle["label"]
        assert muscle["volume_ml"] == pytest.approx(shape.GetPhysicalSize(label) / 1000)
        assert muscle["grey"]["mean"] == pytest.approx(grey.GetMean(label), rel=1e-5)
        assert muscle["grey"]["sd"] == pytest.approx(grey.GetStandardDeviation(label), rel=1e-5)


def cylinder(tilt: float, shear: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A cylinder of 20 mm radius along S, on slices tilted about the X axis, and its affine."""
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) if not shear else [[1, 0, 0], [0, c, 0], [0, s, 1]]
    affine[:3, :3] *= [0.5, 0.5, 4]
    shape = (140, 140, 9)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    x, y, _ = np.einsum("ij,jxyz->ixyz", affine[:3, :3], grid) + affine[:3, 3][:, None, None, None]
    return (x**2 + y**2 <= 400).astype(np.uint8), affine


@pytest.mark.parametrize(("tilt", "shear"), [(0, False), (25, False), (25, True)])
def test_area_perpendicular_to_the_body_whatever_the_tilt(tilt: float, shear: bool) -> None:
    labels, affine = cylinder(tilt, shear)
    numbers = measure_muscles(labels, labels * 50.0 - 900, affine, {1: "psoas"}, "ct").numbers
    middle = numbers["muscles"][0]["slices"][4]
    assert middle["area_cm2"] == pytest.approx(np.pi * 4, rel=0.005)
    assert middle["position_mm"] == pytest.approx(0, abs=1e-9)
    assert numbers["tilt_degrees"] == pytest.approx(tilt, abs=1e-4)
    assert AxialFrame(affine, labels.shape).voxel_ml == pytest.approx(
        (1 if not shear else np.cos(np.radians(tilt))) / 1000
    )


def test_ranges_of_hu_share_all_voxels() -> None:
    hu = np.array([-191, -190, -30, -29.4, -29, 0, 29.4, 30, 150, 151], np.float32)
    found = ct_numbers(hu, MuscleSettings())
    assert [found[f"{k}_percent"] for k in ("fat", "low", "normal", "other")] == pytest.approx([20, 40, 20, 20])
    assert found["low_of_muscle_percent"] == pytest.approx(100 * 4 / 6)
    assert found["muscle_density_hu"] == pytest.approx(np.mean([-29.4, -29, 0, 29.4, 30, 150]), rel=1e-5)
    assert ct_numbers(np.array([-300.0]), MuscleSettings())["muscle_density_hu"] is None


def test_nothing_found_is_never_a_zero() -> None:
    labels, hu = boxes()
    labels[labels == 2] = 0
    left, right = measure_muscles(labels, hu, AFFINE, NAMES, "ct", levels={"L3": 110}).numbers["muscles"]
    assert right["check"] == NOTHING
    numbers = {k: v for k, v in right.items() if k.endswith(("_ml", "_cm2", "_percent", "_hu"))}
    assert set(numbers.values()) == {None}
    assert set(right["grey"].values()) == {None}
    assert right["levels"][0]["check"] == NOTHING
    assert right["levels"][0]["area_cm2"] is None
    assert left["check"] == ""
    for modality in ("ct", "mri"):
        empty = measure_muscles(labels * 0, hu, AFFINE, NAMES, modality).numbers
        assert not empty["found"]
        assert {m["check"] for m in empty["muscles"]} == {NOTHING}


def test_levels_average_and_end() -> None:
    labels, hu = boxes()
    labels[2:6, 4:7, 3] = 0  # slice 3, at 115 mm, has half the area
    levels = {"L3": 116, "L4": 105, "L5": 90, "S1": 97.4}
    left = measure_muscles(labels, hu, AFFINE, NAMES, "ct", MuscleSettings(average=1), levels).numbers["muscles"][0]
    rows = {row["level"]: row for row in left["levels"]}
    assert (rows["L3"]["slice"], rows["L3"]["slice_position_mm"], rows["L3"]["slices"]) == (3, 115, 3)
    assert rows["L3"]["area_cm2"] == pytest.approx((24 + 12 + 24) * 3 / 100 / 3)
    assert rows["L4"]["area_cm2"] == pytest.approx((0 + 24 + 24) * 3 / 100 / 3)
    assert rows["L5"]["slice"] is None
    assert rows["L5"]["check"] == rows["S1"]["check"] == "outside of the scan"
    plain = measure_muscles(labels, hu, AFFINE, NAMES, "ct", None, {"L3": 116}).numbers["muscles"][0]["levels"][0]
    assert plain["area_cm2"] == pytest.approx(12 * 3 / 100)
    assert plain["lean_area_cm2"] == pytest.approx(6 * 3 / 100)


def test_erosion_takes_the_edge_from_density_only() -> None:
    labels, hu = boxes()
    hu[labels > 0] = -100
    hu[13:15, 5:9, 2:5] = 50  # all but one voxel of the right muscle's edge
    settings = MuscleSettings(erode_mm=2.0)
    left, right = measure_muscles(labels, hu, AFFINE, NAMES, "ct", settings).numbers["muscles"]
    plain = measure_muscles(labels, hu, AFFINE, NAMES, "ct").numbers["muscles"][1]
    assert right["volume_ml"] == plain["volume_ml"]
    assert plain["fat_percent"] > 60
    assert right["fat_percent"] == 0
    assert left["fat_percent"] == 100
    gone = measure_muscles(labels, hu, AFFINE, NAMES, "ct", MuscleSettings(erode_mm=50)).numbers["muscles"][0]
    assert gone["fat_percent"] is None
    assert "erosion" in gone["check"]


def test_the_rim_of_the_volume_is_no_edge() -> None:
    labels = np.zeros((8, 8, 2), np.uint8)
    labels[:4] = 1
    hu = np.where(labels, 50.0, -900.0)
    hu[3] = -100
    muscle = measure_muscles(labels, hu, np.eye(4), {1: "psoas"}, "ct", MuscleSettings(erode_mm=1)).numbers["muscles"][
        0
    ]
    assert sum(muscle["histogram"]) == 3 * 8 * 2
    assert muscle["fat_percent"] == 0


def test_sides() -> None:
    labels, hu = boxes()
    numbers = measure_muscles(labels, hu, AFFINE, NAMES, "ct", None, {"L3": 115}).numbers
    rows = {(row["level"], row["measure"]): row for row in muscle_sides(numbers)}
    assert {row["muscle"] for row in rows.values()} == {"psoas"}
    volume = rows["", "volume"]
    assert volume["asymmetry_percent"] == pytest.approx(100 * (72 - 120) / 96)
    assert volume["difference"] == pytest.approx((72 - 120) * 15 / 1000)
    assert rows["L3", "area"]["asymmetry_percent"] == 0
    assert (rows["", "fat"]["difference"], rows["", "fat"]["unit"]) == (-50, "percentage points")
    assert rows["", "fat"]["asymmetry_percent"] == pytest.approx(-200)
    density = rows["", "muscle_density"]
    assert (density["difference"], density["asymmetry_percent"]) == (0, None)
    labels[labels == 2] = 0
    numbers = measure_muscles(labels, hu, AFFINE, NAMES, "ct").numbers
    assert all(row["difference"] is None and "nothing found" in row["check"] for row in muscle_sides(numbers))


def test_swapped_sides_are_flagged() -> None:
    labels, hu = boxes()
    muscles = measure_muscles(labels, hu, AFFINE, {1: "psoas right", 2: "psoas left"}, "ct").numbers["muscles"]
    assert all("swapped" in muscle["check"] for muscle in muscles)
    flipped = AFFINE @ np.diag([-1, 1, 1, 1])  # the same voxels, mirrored in the body
    muscles = measure_muscles(labels, hu, flipped, NAMES, "ct").numbers["muscles"]
    assert all("swapped" in muscle["check"] for muscle in muscles)


@pytest.mark.parametrize(("axis", "step"), [(0, -2), (0, 4), (1, -4), (1, 6)])
def test_a_muscle_at_the_rim_of_the_slices_is_flagged(axis: int, step: int) -> None:
    labels, hu = boxes()
    moved = [np.roll(volume, step, axis) for volume in (labels, hu)]
    left, right = measure_muscles(*moved, AFFINE, NAMES, "ct").numbers["muscles"]
    touches = {(0, -2): (True, False), (0, 4): (False, True)}.get((axis, step), (True, True))
    assert ("lower bounds" in left["check"], "lower bounds" in right["check"]) == touches


def test_odd_density_and_cut_ends_are_flagged() -> None:
    labels, _ = boxes()
    labels[2:6, 4:10, :] = 1
    muscle = measure_muscles(labels, np.where(labels, 900.0, -900.0), AFFINE, NAMES, "ct").numbers["muscles"][0]
    assert "900 HU" in muscle["check"]
    assert muscle["cut_ends"] == "lower and upper"


def mr(shares: tuple[float, float], n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Two muscles of which a share of voxels is fat, surrounded by fat; air beyond."""
    rng = np.random.default_rng(0)
    labels = np.zeros((2 * n + 20, n + 20, 8), np.uint8)
    grey = rng.rayleigh(8, labels.shape)
    grey[5:-5, 5:-5] = rng.normal(400, 30, grey[5:-5, 5:-5].shape)
    for label, (start, share) in enumerate(zip((10, n + 12), shares, strict=True), 1):
        labels[start : start + n - 4, 10 : 10 + n, :] = label
        inside = labels == label
        fat = rng.random(int(inside.sum())) < share
        grey[inside] = np.where(fat, rng.normal(400, 30, fat.size), rng.normal(100, 20, fat.size))
    return labels, grey.astype(np.float32)


@pytest.mark.parametrize("method", ["otsu", "gaussian"])
def test_fat_in_mr(method: str) -> None:
    labels, grey = mr((0.3, 0.05))
    out = measure_muscles(labels, grey, np.eye(4), NAMES, "mri", MuscleSettings(threshold=method))
    shares = [muscle["fat_percent"] for muscle in out.numbers["muscles"]]
    truth = [100 * (grey[labels == k] > 250).mean() for k in (1, 2)]
    assert shares == pytest.approx(truth, abs=0.3)
    assert out.numbers["fat_threshold"]["trusted"]
    assert {muscle["check"] for muscle in out.numbers["muscles"]} == {""}


def test_one_peak_in_mr_is_flagged() -> None:
    labels, grey = mr((0.0, 0.0))
    out = measure_muscles(labels, grey, np.eye(4), NAMES, "mri", MuscleSettings(margin_mm=0))
    assert all(ONE_PEAK in muscle["check"] for muscle in out.numbers["muscles"])


def test_region_has_the_margin_but_not_the_air() -> None:
    labels, grey = mr((0.1, 0.1))
    inside = threshold_region(labels, grey, (1, 1, 1), 0)
    wide = threshold_region(labels, grey, (1, 1, 1), 8)  # reaches the air
    assert inside.size == np.count_nonzero(labels)
    assert wide.size > inside.size
    assert wide[inside.size :].min() > 50
    assert threshold_region(labels * 0, grey, (1, 1, 1), 5).size == 0


def test_bias_field_is_taken_out() -> None:
    labels, grey = mr((0.0, 0.0))
    field = np.linspace(0.6, 1.5, grey.shape[0])[:, None, None]
    corrected = correct_bias((grey * field).astype(np.float32), (1, 1, 1))
    before, after = ((v[labels == 2].mean() / v[labels == 1].mean()) for v in (grey * field, corrected))
    assert before > 1.4
    assert abs(after - 1) < 0.1


def test_normalised_values_have_no_bias_field() -> None:
    _, grey = mr((0.0, 0.0))
    with pytest.raises(InputError, match="% of the grey values below 0, as if normalised"):
        correct_bias((grey - grey.mean()) / grey.std(), (1, 1, 1))


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0, 255, "window"), (0, 2500, "rescal"), (-1, 1, "normalised"), (-3, 4, "normalised")]
)
def test_ct_without_hu_is_refused(low: float, high: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_hu(np.linspace(low, high, 50), "ct.nii.gz")


def test_ct_with_hu_is_taken() -> None:
    check_hu(np.linspace(-1000, 1500, 50), "ct.nii.gz")
    check_hu(np.linspace(-120, 300, 50), "ct.nii.gz")


@pytest.mark.parametrize(
    "options",
    [
        {"fat_hu": (-190, -20)},
        {"low_hu": (29, -29)},
        {"normal_hu": (30.5, 150)},
        {"threshold": "huang"},
        {"threshold": float("nan")},
        {"margin_mm": -1},
        {"erode_mm": float("inf")},
        {"average": -1},
    ],
)
def test_settings_that_contradict(options: dict) -> None:
    with pytest.raises(InputError):
        MuscleSettings(**options)
