"""Numbers of one scan against NumPy written out on masks."""

from __future__ import annotations

import numpy as np
import pytest

from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.measure.layers import (
    LevelStatistics,
    area_numbers,
    cut_lines,
    distribution,
    measure_layer,
    slice_areas,
    slice_counts,
)
from grn_monai.measure.quality import CHECKS, check_limits, quality_flags, view_numbers
from grn_monai.measure.scan import LabelSet, measure_scan
from tests.metrics.layered import layered_truth

SPACING = (0.2, 0.25, 0.15)
AFFINE = np.diag([*SPACING, 1.0])
LAYERED = LabelSet.of({str(k): v for k, v in LAYER_NAMES.items()})


def scan(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = layered_truth(seed)
    grey = labels * 30 + np.random.default_rng(seed).integers(0, 30, labels.shape)
    return labels, grey.astype(np.float32)


def test_numbers_of_each_layer() -> None:
    labels, grey = scan()
    measured = measure_scan(labels, grey, AFFINE, LAYERED, check_limits(None), dynamic_range_db=50.0)
    found = measured.numbers
    assert found["echo_scale"] == {"rule": "8-bit", "black": 0, "white": 255}
    assert found["shape"] == list(labels.shape)
    assert found["spacing_mm"] == pytest.approx(SPACING)
    percent = grey.astype(np.float64) / 255 * 100  # whole numbers 0 to 255: the scale of B-mode pictures
    for layer in found["layers"]:
        mask = labels == layer["label"]
        along = mask.sum(axis=2) * SPACING[2]
        present = along[along > 0]
        assert layer["name"] == LAYER_NAMES[layer["label"]]
        assert layer["coverage_percent"] == pytest.approx(100 * (along > 0).mean())
        assert layer["volume_ml"] == pytest.approx(mask.sum() * np.prod(SPACING) / 1000)
        assert layer["thickness_mm"]["mean"] == pytest.approx(present.mean(), rel=1e-6)
        assert layer["thickness_mm"]["sd"] == pytest.approx(present.std(ddof=1), rel=1e-5)
        assert layer["thickness_mm"]["p25"] == pytest.approx(np.percentile(present, 25), rel=1e-6)
        assert layer["echo_percent"]["mean"] == pytest.approx(percent[mask].mean(), rel=1e-5)
        assert layer["echo_percent"]["sd"] == pytest.approx(percent[mask].std(), rel=1e-4)
        assert layer["echo_db"]["mean"] == pytest.approx((percent[mask].mean() / 100 - 1) * 50, rel=1e-5)
        assert layer["echo_db"]["sd"] == pytest.approx(percent[mask].std() / 2, rel=1e-4)
        assert layer["grey"]["mean"] == pytest.approx(grey[mask].mean(dtype=float), rel=1e-6)
        assert (layer["area_cm2"] is not None) is (layer["label"] == 6)
    fasciae, muscle = np.isin(labels, (3, 5)), labels == 6
    assert found["fascia"]["echo_percent"]["mean"] == pytest.approx(percent[fasciae].mean(), rel=1e-5)
    contrast = percent[fasciae].mean() - percent[muscle].mean()
    assert found["fascia"]["contrast_percent"] == pytest.approx(contrast, rel=1e-4)
    assert found["fascia"]["contrast_db"] == pytest.approx(contrast / 2, rel=1e-4)
    areas = muscle.sum(axis=(1, 2)) * SPACING[1] * SPACING[2]
    sagittal = found["muscle_area_cm2"]["sagittal"]
    assert list(measured.areas) == [6]
    np.testing.assert_allclose(measured.areas[6]["sagittal"], areas / 100)
    assert sagittal["mean"] == pytest.approx(areas[areas > 0].mean() / 100)
    assert sagittal["max"] == pytest.approx(areas.max() / 100)


def test_a_missing_layer_has_no_numbers_and_is_flagged() -> None:
    labels, grey = scan()
    labels[labels == 4] = 5
    found = measure_scan(labels, grey, AFFINE, LAYERED, check_limits(None)).numbers
    deep_fat = found["layers"][3]
    assert deep_fat["coverage_percent"] == deep_fat["volume_ml"] == 0
    assert set(deep_fat["thickness_mm"].values()) == {None}
    assert deep_fat["echo_percent"] == {"mean": None, "sd": None}
    assert deep_fat["echo_db"] is None
    assert found["quality"]["status"] == "check"
    flag = found["quality"]["flags"][0]
    assert (flag["name"], flag["level"], flag["value"]) == ("layers_missing", "check", 1)
    assert flag["text"] == "Labels not found: 1 (deep fat)."


def test_other_label_sets_get_volumes_and_areas_by_anatomical_plane() -> None:
    names = LabelSet.of({"0": "background", "1": "psoas", "2": "multifidus"})
    assert not names.layered
    labels = np.zeros((6, 8, 10), np.uint8)
    labels[1:4, 2:5, 3:7] = 2
    grey = np.random.default_rng(0).normal(40, 10, labels.shape).astype(np.float32)
    affine = np.array([[0, 0, -2.0, 0], [0.5, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])  # axes: A, S, L
    measured = measure_scan(labels, grey, affine, names, check_limits(None))
    found = measured.numbers
    psoas, multifidus = found["layers"]
    assert psoas["volume_ml"] == 0
    assert psoas["area_cm2"]["axial"]["mean"] is None
    assert multifidus["volume_ml"] == pytest.approx(36 * 3 / 1000)
    assert measured.areas[2]["axial"] == pytest.approx([0, 0, 0.12, 0.12, 0.12, 0, 0, 0])
    assert measured.planes == {"coronal": 0, "axial": 1, "sagittal": 2}
    assert multifidus["area_cm2"]["coronal"]["max"] == pytest.approx(12 * 6 / 100)
    assert multifidus["area_cm2"]["sagittal"]["mean"] == pytest.approx(9 * 1.5 / 100)
    assert multifidus["grey"]["mean"] == pytest.approx(grey[labels == 2].mean(dtype=float), rel=1e-6)
    assert "thickness_mm" not in psoas
    assert found["fascia"] is found["muscle_area_cm2"] is None
    assert {flag["name"] for flag in found["quality"]["flags"]} == {
        "plane_disagreement", "sge_disagreement", "layers_missing",
    }  # fmt: skip


def test_field_of_view_and_contact() -> None:
    labels = np.zeros((10, 10, 40), np.uint8)
    for label, (start, end) in enumerate(((2, 5), (5, 12), (12, 14), (14, 20), (20, 23), (23, 40)), 1):
        labels[:, :, start:end] = label
    echo = np.full(labels.shape, 40, np.float32)
    good = view_numbers(labels, echo, LAYERS)
    assert good == {
        "field_of_view_bottom": 0, "field_of_view_top": 0, "dark_lines": 0, "layers_missing": 0, "missing": [],
        "layer_gaps": 0, "gappy": 1, "order_violations": 0,
    }  # fmt: skip
    labels[:3, :, 15:] = 4  # 30 % end in the deep fat
    labels[9, :, :12] = 2  # 10 % begin below the dermis
    labels[5, :2] = 0  # 2 A-lines without tissue
    labels[6, 0, 30] = 2  # 1 out of order
    labels[6, 1, 13] = 0  # 1 interrupted
    echo[4, :5] = 3  # 5 dark A-lines
    bad = view_numbers(labels, echo, LAYERS)
    assert bad["field_of_view_bottom"] == pytest.approx(100 * 30 / 98)
    assert bad["field_of_view_top"] == pytest.approx(100 * 10 / 98)
    assert bad["order_violations"] == pytest.approx(100 * 2 / 98)
    assert bad["dark_lines"] == pytest.approx(5)
    assert bad["gappy"] == 5
    assert bad["layer_gaps"] == pytest.approx(100 * 30 / 98)
    flags = {f["name"]: f for f in quality_flags(bad, check_limits(None), LAYERED.names)["flags"]}
    assert flags["layer_gaps"]["text"] == "The deep fascial membrane is missing on 30.6 % of the A-lines (limit 25 %)."
    assert view_numbers(np.zeros((2, 2, 5), np.uint8), None, LAYERS)["layer_gaps"] is None


def test_flags_and_limits() -> None:
    names = {1: "dermis"}
    values = dict.fromkeys(CHECKS, 0.0) | {"plane_disagreement": 12.0, "missing": [], "gappy": 1}
    flags = quality_flags(values, check_limits({"plane_disagreement": 12}), names)
    assert flags["status"] == "ok"
    flags = quality_flags(values | {"sge_disagreement": None}, check_limits({"plane_disagreement": 11.9}), names)
    assert flags["status"] == "check"
    assert [flag["level"] for flag in flags["flags"]] == ["check", "unknown"] + ["ok"] * (len(CHECKS) - 2)
    assert "differ in 12.0 % of the tissue (limit 11.9 %)" in flags["flags"][0]["text"]
    for flag in flags["flags"]:
        assert flag["text"].endswith(".")
        assert "{" not in flag["text"]
    with pytest.raises(InputError, match="'planes'; expected one of plane_disagreement"):
        check_limits({"planes": 3})
    with pytest.raises(InputError, match="a number from 0"):
        check_limits({"dark_lines": float("nan")})


def test_statistics_are_exact_far_from_zero() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (9, 8, 7)).astype(np.uint8)
    grey = (1e6 + rng.normal(0, 1, labels.shape)).astype(np.float64)
    found = LevelStatistics(labels, grey, 4)
    mean, sd = found.of([1, 2]) or (0, 0)
    kept = grey[labels > 0]
    assert mean == pytest.approx(kept.mean(), rel=1e-12)
    assert sd == pytest.approx(kept.std(), rel=1e-8)
    assert found.of([3]) is None
    assert found.counts.tolist() == [*np.bincount(labels.ravel()), 0]


def test_distribution_of_few_values() -> None:
    assert set(distribution([np.nan]).values()) == {None}
    one = distribution([2.0, np.nan])
    assert one["mean"] == one["p5"] == one["p95"] == 2
    assert one["sd"] is None


def test_areas_of_an_absent_label() -> None:
    counts = slice_counts(np.zeros((2, 3, 4), np.uint8), 2)
    areas = slice_areas(counts, 1, SPACING, {"sagittal": 0})["sagittal"]
    assert areas.tolist() == [0, 0]
    assert area_numbers(areas) == {"mean": None, "sd": None, "max": None, "slices": 0}


def test_slices_are_counted_along_every_axis() -> None:
    labels = np.random.default_rng(0).integers(0, 5, (3, 4, 6)).astype(np.uint8)
    for axis, counts in enumerate(slice_counts(labels, 7)):
        expected = [[(labels.take(i, axis) == k).sum() for k in range(7)] for i in range(labels.shape[axis])]
        assert counts.tolist() == expected


def test_grey_values_of_unknown_scale_have_no_decibels() -> None:
    labels, grey = scan()
    decibels = (grey / 255 - 1) * 60
    found = measure_scan(labels, decibels, AFFINE, LAYERED, check_limits(None), dynamic_range_db=60.0).numbers
    black, white = np.percentile(decibels, [0.5, 99.5])
    assert found["echo_scale"] == {"rule": "percentiles", "black": pytest.approx(black), "white": pytest.approx(white)}
    for layer in found["layers"]:
        mask = labels == layer["label"]
        percent = np.clip(100 * (decibels[mask] - black) / (white - black), 0, 100)
        assert layer["echo_percent"]["mean"] == pytest.approx(percent.mean(), rel=1e-4)
        assert layer["echo_db"] is None
    assert found["fascia"]["echo_percent"]["mean"] > 0
    assert found["fascia"]["echo_db"] is found["fascia"]["contrast_db"] is None


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.0), (0.0, 0.25)])
def test_percentiles_of_0_and_255_are_no_8_bits(low: float, high: float) -> None:
    labels, _ = scan()
    grey = np.where(np.random.default_rng(0).random(labels.shape) < 0.5, 0, 255).astype(np.float32)
    grey[0, 0, :2] = low, 255 + high if high else 100.5
    found = measure_scan(labels, grey, AFFINE, LAYERED, check_limits(None), dynamic_range_db=60.0).numbers
    assert found["echo_scale"] == {"rule": "percentiles", "black": 0, "white": 255}
    assert found["layers"][0]["echo_db"] is None


def test_layers_of_other_names() -> None:
    labels = np.zeros((8, 9, 30), np.uint8)
    labels[..., 3:6], labels[..., 6:15], labels[..., 15:] = 1, 2, 3
    names = {"0": "background", "1": "skin", "2": "subcutis", "3": "muscle"}
    assert not LabelSet.of(names).layered
    chosen = LabelSet.of(names, True)
    assert chosen.layered
    assert not LabelSet.of(LAYER_NAMES, False).layered
    found = measure_scan(labels, None, AFFINE, chosen, check_limits(None)).numbers
    assert [layer["thickness_mm"]["mean"] for layer in found["layers"]] == pytest.approx([0.45, 1.35, 2.25])
    assert found["muscle_area_cm2"]["sagittal"]["mean"] == pytest.approx(9 * 15 * 0.25 * 0.15 / 100)
    labels[:4, :, 10:] = 2
    flags = measure_scan(labels, None, AFFINE, chosen, check_limits(None)).numbers["quality"]["flags"]
    bottom = next(flag for flag in flags if flag["name"] == "field_of_view_bottom")
    assert bottom["text"].startswith("50.0 % of the A-lines end in a layer above the muscle (limit 5 %)")


@pytest.mark.parametrize("shape", [(12, 1, 20), (1, 12, 20)])
def test_a_single_slice_has_areas_in_its_own_plane_only(shape: tuple[int, ...]) -> None:
    labels = np.full(shape, 6, np.uint8)
    found = measure_scan(labels, None, AFFINE, LAYERED, check_limits(None)).numbers["muscle_area_cm2"]
    plane, width = ("transverse", SPACING[0]) if shape[1] == 1 else ("sagittal", SPACING[1])
    assert list(found) == [plane]
    assert found[plane]["mean"] == pytest.approx(12 * width * 20 * SPACING[2] / 100)
    line = measure_scan(labels[:1, :1], None, AFFINE, LAYERED, check_limits(None)).numbers
    assert line["muscle_area_cm2"] is None


def test_dark_lines_are_seen_where_they_are_most() -> None:
    labels, _ = scan()
    echo = np.full(labels.shape, 40, np.float32)
    for share in (0.25, 0.75):
        echo[: int(share * len(echo))] = 2
        dark = int(share * len(echo)) / len(echo) * 100
        assert view_numbers(labels, echo, LAYERS)["dark_lines"] == pytest.approx(dark)


def test_cut_at_the_top_and_by_black_below_the_picture() -> None:
    labels = np.zeros((10, 10, 40), np.uint8)
    for label, (start, end) in enumerate(((2, 5), (5, 12), (12, 14), (14, 20), (20, 23), (23, 36)), 1):
        labels[:, :, start:end] = label  # and 4 voxels of black
    assert not cut_lines(labels, 4, LAYERS).any()
    assert not cut_lines(labels, 6, LAYERS).any(), "the deepest layer may end in view"
    labels[:4, :, 18:] = 0
    labels[:, :2, :10] = 2
    assert cut_lines(labels, 4, LAYERS).sum() == 40
    numbers, _, across = measure_layer(labels, 4, SPACING, layers=LAYERS)
    assert numbers["cut_percent"] == pytest.approx(40)
    assert numbers["coverage_percent"] == 100
    assert across is not None
    assert np.isnan(across[:4]).all()
    assert numbers["normal_coverage_percent"] == pytest.approx(100 * np.isfinite(across).mean())
    assert numbers["normal_thickness_mm"]["mean"] == pytest.approx(6 * 0.15, abs=0.01)
    numbers, _, across = measure_layer(labels, 2, SPACING, layers=LAYERS)
    assert numbers["cut_percent"] == pytest.approx(20)
    assert across is not None
    assert np.isnan(across[:, :2]).all()
    assert np.isfinite(across[:, 2:]).any()
    labels[:, :, 0] = 1
    assert measure_layer(labels, 1, SPACING, layers=LAYERS)[0]["cut_percent"] == 0, "nothing lies above the first"
    assert view_numbers(labels, None, LAYERS)["field_of_view_bottom"] == pytest.approx(40)


def texts(values: dict, limits: dict | None = None, **options: bool) -> dict[str, dict]:
    names = {1: "dermis", 3: "superficial fascial membrane", 6: "muscle"}
    flags = quality_flags(values, check_limits(limits), names, **options)["flags"]
    return {flag["name"]: flag for flag in flags}


@pytest.mark.parametrize(
    ("value", "limit", "shown"),
    [(7.04, 7, "7.04"), (7.0001, 7, "7.0001"), (6.96, 7, "6.96"), (7, 7, "7.0"), (12.34, 7, "12.3"),
     (0.001, 0, "0.001"), (0.0, 0, "0.0"), (99.97, 5, "100.0")],
)  # fmt: skip
def test_a_rounded_value_stays_on_its_side_of_the_limit(value: float, limit: float, shown: str) -> None:
    flag = texts({"plane_disagreement": value}, {"plane_disagreement": limit})["plane_disagreement"]
    assert f" {shown} % of the tissue" in flag["text"]


def test_texts_state_the_value_and_only_predictions_are_decoded() -> None:
    found = texts({"layer_gaps": 0.4, "gappy": 3, "order_violations": 0.02, "layers_missing": 1, "missing": [3]},
                  {"layers_missing": 1, "order_violations": 1})  # fmt: skip
    assert {found[name]["level"] for name in ("layer_gaps", "order_violations", "layers_missing")} == {"ok"}
    gaps = found["layer_gaps"]["text"]
    assert gaps == "The layer with most gaps, the superficial fascial membrane, is missing on 0.4 % of the A-lines."
    assert found["order_violations"]["text"] == "Layers are out of order or interrupted on 0.02 % of the A-lines."
    assert found["layers_missing"]["text"] == "Labels not found: 1 (superficial fascial membrane)."
    assert texts({"layers_missing": 0})["layers_missing"]["text"] == "Labels not found: 0."
    bad = {"order_violations": 3.0}
    assert texts(bad)["order_violations"]["text"].endswith("A-lines: use the ordered decode.")
    assert texts(bad, predicted=False)["order_violations"]["text"].endswith("3.0 % of the A-lines.")
    assert "no prediction" in texts({}, predicted=False)["plane_disagreement"]["text"]
    assert "compared_disagreement" not in texts({})
    assert texts({"compared_disagreement": None})["compared_disagreement"]["level"] == "unknown"
