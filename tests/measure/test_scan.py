"""Numbers of one scan against NumPy written out on masks."""

from __future__ import annotations

import numpy as np
import pytest

from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.measure.layers import LevelStatistics, distribution, slice_areas
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
    found = measure_scan(labels, grey, AFFINE, LAYERED, check_limits(None), dynamic_range_db=50.0).numbers
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
    assert sagittal["per_slice_mm2"] == pytest.approx(areas.tolist(), abs=1e-3)
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
    assert flag["text"] == "Not found: deep fat."


def test_other_label_sets_get_volumes_and_areas_by_anatomical_plane() -> None:
    names = LabelSet.of({"0": "background", "1": "psoas", "2": "multifidus"})
    assert not names.layered
    labels = np.zeros((6, 8, 10), np.uint8)
    labels[1:4, 2:5, 3:7] = 2
    grey = np.random.default_rng(0).normal(40, 10, labels.shape).astype(np.float32)
    affine = np.array([[0, 0, -2.0, 0], [0.5, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 0, 1]])  # axes: A, S, L
    found = measure_scan(labels, grey, affine, names, check_limits(None)).numbers
    psoas, multifidus = found["layers"]
    assert psoas["volume_ml"] == 0
    assert psoas["area_cm2"]["axial"]["mean"] is None
    assert multifidus["volume_ml"] == pytest.approx(36 * 3 / 1000)
    assert multifidus["area_cm2"]["axial"]["per_slice_mm2"] == [0, 0, 12, 12, 12, 0, 0, 0]
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
    assert flags["layer_gaps"]["text"] == "The deep fascial membrane is missing on 31 % of the A-lines (limit 25 %)."
    assert view_numbers(np.zeros((2, 2, 5), np.uint8), None, LAYERS)["layer_gaps"] is None


def test_flags_and_limits() -> None:
    names = {1: "dermis"}
    values = dict.fromkeys(CHECKS, 0.0) | {"plane_disagreement": 12.0, "missing": []}
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
    areas = slice_areas(np.zeros((2, 3, 4), np.uint8), 1, SPACING, {"sagittal": 0})["sagittal"]
    assert areas == {"mean": None, "sd": None, "max": None, "slices": 0, "per_slice_mm2": [0, 0]}
