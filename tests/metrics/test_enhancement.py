from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.metrics import BOUNDARIES, EnhancementMeasure, cluster_bootstrap_ci
from grn_monai.metrics.contrast import contrast_to_noise, dark_and_bright
from grn_monai.metrics.enhancement import ENHANCEMENT_COLUMNS
from tests.metrics.layered import layered_truth

SPACING = (0.2, 0.25, 0.15)
FIRST = BOUNDARIES[0]


def two_layers() -> tuple[np.ndarray, np.ndarray]:
    """Two A-lines of dermis over fat; with voxels of 0.5 mm, the bands of 1 mm are z = 2, 3 and z = 4, 5."""
    labels = np.array([1, 1, 1, 1, 2, 2, 2, 2], np.uint8) * np.ones((1, 2, 1), np.uint8)
    raw = np.array([0.9, 0.9, 0.1, 0.3, -0.5, -0.1, 0.9, 0.9]) * np.ones((1, 2, 1))
    return raw, labels


def scan(seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = layered_truth(seed)
    noise = np.random.default_rng(seed).normal(0, 0.1, labels.shape)
    return np.clip(0.2 * labels - 0.6 + noise, -1, 1).astype(np.float32), labels


def test_numbers_of_two_layers_by_hand() -> None:
    raw, labels = two_layers()
    row = EnhancementMeasure().add("a", "1", raw, raw / 2, labels, (1, 1, 0.5))
    # above: 0.1 and 0.3, mean 0.2, variance 0.01; below: −0.5 and −0.1, mean −0.3, variance 0.04
    assert row.cnr[0, 0] == pytest.approx(0.5 / np.sqrt(0.05))
    assert row.gcnr[0, 0] == 1  # no bin in common
    # the step from 0.3 to −0.5 is 40 % of the range, over 0.5 mm
    assert row.gradient_percent_per_mm[:, 0] == pytest.approx([80, 40])
    assert row.sharpness_per_mm[0, 0] == pytest.approx(80 / (50 * raw.std()))
    steps = 100 * np.array([0, 0.8, 0.2, 0.4, 1.0, 0])  # within the layers, percent per mm
    assert row.prominence[0, 0] == pytest.approx(80 / steps.mean())
    assert row.inner_sharpness_per_mm[0] == pytest.approx(steps.mean() / (50 * raw.std()))
    # dermis: 0.9, 0.9, 0.1, 0.3, mean 0.55: 77.5 % of the range
    assert row.layer_mean_percent[0, 0] == pytest.approx(77.5)
    assert row.layer_sd_percent[0, 0] == pytest.approx(50 * np.std([0.9, 0.9, 0.1, 0.3]))
    assert row.l1_percent == pytest.approx(50 * np.abs(raw / 2).mean())
    assert (row.voxels, row.layer_voxels.tolist(), row.boundary_voxels.tolist()) == (
        16,
        [8, 8, 0, 0, 0, 0],
        [2, 0, 0, 0, 0],
    )


def test_bands_are_clipped_to_the_layer_and_hold_at_least_two_voxels() -> None:
    labels = np.array([[[1, 1, 1, 2, 3, 3, 3]]], np.uint8)
    raw = np.array([[[0.9, 0.0, 0.4, 0.8, -0.2, -0.4, 0.9]]])
    row = EnhancementMeasure(band_mm=0.1).add("a", "1", raw, raw, labels, (1, 1, 1))
    # bands of two voxels: 0.0, 0.4 above; below only the 0.8 of the layer that is one voxel thin
    assert row.cnr[0, 0] == pytest.approx(0.6 / 0.2)
    assert row.cnr[0, 1] == pytest.approx(1.1 / 0.1)


def test_a_band_ends_where_the_layer_ends_first() -> None:
    labels = np.array([[[1, 3, 1, 2, 2, 4, 2]]], np.uint8)
    raw = np.array([[[0.9, 0.5, 0.0, 0.2, 0.6, 0.5, -0.9]]])
    row = EnhancementMeasure(band_mm=4).add("a", "1", raw, raw, labels, (1, 1, 1))
    assert row.cnr[0, 0] == pytest.approx(0.4 / 0.2)  # 0.0 above; 0.2 and 0.6 below


def test_identity_changes_nothing() -> None:
    measure = EnhancementMeasure()
    for i, subject in enumerate("aabc"):
        raw, labels = scan(i)
        measure.add(subject, str(i), raw, raw.copy(), labels, SPACING)
    summary = measure.summary()
    assert summary["l1_percent"]["mean"] == 0
    quantities = [*summary["all_boundaries"].values(), summary["inner"]["sharpness_per_mm"]]
    quantities += [q for part in ("layers", "boundaries") for found in summary[part].values() for q in found.values()]
    quantities += list(summary["regions"].values())
    assert len(quantities) == 5 + 1 + 6 * 2 + 5 * 5 + 3
    for quantity in quantities:
        assert quantity["change"] == 0
        assert quantity["ratio"] == 1
        assert quantity["subject_ci"] == (0, 0)
        assert (quantity["n_subjects"], quantity["n_scans"], quantity["n_missing"]) == (3, 4, 0)
    for counts in summary["histograms"]["layers"].values():
        np.testing.assert_array_equal(counts["raw"], counts["enhanced"])


def test_a_stretch_of_contrast_is_no_sharpening() -> None:
    raw, labels = scan(0)
    row = EnhancementMeasure().add("a", "1", raw, 0.25 * raw + 0.1, labels, SPACING)
    np.testing.assert_allclose(row.gradient_percent_per_mm[1], row.gradient_percent_per_mm[0] / 4, rtol=1e-5)
    for same in (row.cnr, row.sharpness_per_mm, row.prominence, row.inner_sharpness_per_mm):
        np.testing.assert_allclose(same[1], same[0], rtol=1e-5)


def test_a_change_of_the_grey_scale_raises_cnr_but_not_gcnr() -> None:
    above, below = np.repeat([-0.9, 0.5], [3, 7]), np.repeat([-0.9, 0.5], [8, 2])
    assert contrast_to_noise(above, below)[1] == pytest.approx(0.5)
    levels = np.linspace(-0.99, 0.99, 50)
    above, below = levels, np.concatenate([levels[:20], levels[:20], levels[40:]])
    before, after = contrast_to_noise(above, below), contrast_to_noise(np.sign(above) * 0.9, np.sign(below) * 0.9)
    assert after[0] > 1.2 * before[0]  # two levels are left of fifty
    assert after[1] <= before[1]


def test_texture_everywhere_sharpens_but_does_not_make_boundaries_prominent() -> None:
    raw, labels = scan(1)
    chequered = raw + 0.3 * (np.indices(raw.shape).sum(axis=0) % 2)
    row = EnhancementMeasure().add("a", "1", raw, chequered.astype(np.float32), labels, SPACING)
    assert (row.sharpness_per_mm[1] > row.sharpness_per_mm[0]).all()
    assert (row.prominence[1] < row.prominence[0]).all()


def test_dark_regions_by_hand() -> None:
    raw = np.zeros((4, 4, 16), np.float32) + np.repeat([-0.8, -0.4, 0.0, 0.6], 4)
    labels = np.ones(raw.shape, np.uint8)
    enhanced = raw + np.where(raw < -0.7, 0.2, np.where(raw > 0.5, -0.1, 0.0))
    measure = EnhancementMeasure(region_mm=0.1)  # one voxel
    row = measure.add("a", "1", raw, enhanced, labels, (1, 1, 1))
    np.testing.assert_allclose(row.region_mean_percent, [[10, 80], [20, 75]], rtol=1e-5)
    regions = measure.summary()["regions"]
    assert regions["dark"]["change"] == pytest.approx(10, rel=1e-4)
    assert regions["bright"]["change"] == pytest.approx(-5, rel=1e-4)
    assert regions["dark_minus_bright"]["change"] == pytest.approx(15, rel=1e-4)
    assert regions["dark"]["subject_ci"] is None  # one subject


def test_smoothing_does_not_pass_for_brighter_dark_regions() -> None:
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (24, 24, 48)).astype(np.float32)
    labels, smooth = np.ones(noise.shape, np.uint8), gaussian_filter(noise, 1)
    changes = {}
    for size in (0.1, 2.0):
        measure = EnhancementMeasure(region_mm=size)
        measure.add("a", "1", noise, smooth, labels, (0.3, 0.3, 0.3))
        changes[size] = measure.summary()["regions"]["dark"]["change"]
    assert changes[0.1] > 25  # by voxels, it would
    assert changes[2.0] < 0.05 * changes[0.1]


def test_local_means_are_of_tissue_only() -> None:
    raw = np.full((5, 5, 20), 0.5, np.float32)
    raw[..., :5] = -1  # gel
    raw[..., 16:] = 0.2
    tissue = np.zeros(raw.shape, bool)
    tissue[..., 5:] = True
    dark, bright = dark_and_bright(raw, tissue, (1, 1, 1), 3)
    assert not dark[..., :15].any()
    assert bright[..., 5:15].all()
    assert not (dark | bright)[..., :5].any()


def test_an_absent_boundary_is_counted_not_dropped(tmp_path: Path) -> None:
    measure = EnhancementMeasure()
    for i, subject in enumerate("ab"):
        raw, labels = scan(i)
        if i:
            labels = np.where(labels == 3, 4, labels).astype(np.uint8)  # no superficial fascia: two boundaries less
        measure.add(subject, "1", raw, raw, labels, SPACING)
    assert np.isnan(measure.scans[1].cnr).any(axis=0).tolist() == [False, True, True, False, False]
    summary = measure.summary()
    assert [summary["boundaries"][name]["cnr"]["n_missing"] for name in BOUNDARIES] == [0, 1, 1, 0, 0]
    assert summary["boundaries"][BOUNDARIES[1]]["cnr"]["raw"] == measure.scans[0].cnr[0, 1]
    assert summary["boundaries"][BOUNDARIES[1]]["cnr"]["subject_ci"] is None
    assert summary["layers"][LAYER_NAMES[3]]["mean_percent"]["n_missing"] == 1
    assert summary["all_boundaries"]["cnr"]["n_scans"] == 2  # of those that are there
    measure.write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "enhancement.csv").open()))
    gone = [row for row in rows if row["subject"] == "b" and row["name"].startswith("superficial_fat|")]
    assert [(row["kind"], row["voxels"], row["raw_cnr"]) for row in gone] == [("boundary", "0", "")]


def test_constant_images_have_no_contrast_and_no_sharpness() -> None:
    _, labels = scan(0)
    flat = np.full(labels.shape, 0.3, np.float32)
    measure = EnhancementMeasure()
    row = measure.add("a", "1", flat, flat, labels, SPACING)
    for values in (row.cnr, row.gcnr, row.sharpness_per_mm, row.prominence):
        assert np.isnan(values).all()
    assert measure.summary()["all_boundaries"]["cnr"]["n_missing"] == 1


def test_means_and_intervals_are_over_subjects() -> None:
    measure = EnhancementMeasure()
    subjects, gains = ["a", "a", "a", "b", "c"], [0.5, 0.7, 0.6, 0.9, 0.8]
    for i, (subject, gain) in enumerate(zip(subjects, gains, strict=True)):
        raw, labels = scan(i)
        measure.add(subject, str(i), raw, gain * raw, labels, SPACING)
    gradient = np.array([row.gradient_percent_per_mm[:, 0] for row in measure.scans])
    means = np.array([gradient[:3].mean(axis=0), gradient[3], gradient[4]])
    got = measure.summary()["boundaries"][FIRST]["gradient_percent_per_mm"]
    assert (got["raw"], got["enhanced"]) == pytest.approx(tuple(means.mean(axis=0)))
    assert got["change"] == pytest.approx(np.diff(means.mean(axis=0))[0])
    assert got["ratio"] == pytest.approx(got["enhanced"] / got["raw"])
    assert got["subject_ci"] == cluster_bootstrap_ci(means[:, 1] - means[:, 0], ["a", "b", "c"])
    assert got["subject_ci"][1] < 0
    distances = [row.l1_percent for row in measure.scans]
    expected = np.mean([np.mean(distances[:3]), *distances[3:]])
    assert measure.summary()["l1_percent"]["mean"] == pytest.approx(expected)


def test_histograms_count_every_voxel_of_a_layer_once() -> None:
    measure = EnhancementMeasure()
    truths = []
    for i in range(2):
        raw, labels = scan(i)
        truths.append(labels)
        measure.add("a", str(i), raw, 3 * raw, labels, SPACING)  # beyond ±1: in the outermost bins
    found = measure.summary()["histograms"]
    assert (found["edges_percent"][0], found["edges_percent"][-1], len(found["edges_percent"])) == (0, 100, 65)
    for label in LAYERS:
        counts = found["layers"][LAYER_NAMES[label]]
        assert counts["raw"].sum() == counts["enhanced"].sum() == sum((labels == label).sum() for labels in truths)
    muscle = found["layers"]["muscle"]
    assert muscle["enhanced"][-1] > muscle["raw"][-1]


def test_without_labels_only_the_distance_is_measured(tmp_path: Path) -> None:
    raw, labels = scan(0)
    measure = EnhancementMeasure()
    measure.add("a", "1", raw, -raw, None, SPACING)
    summary = measure.summary()
    assert summary["l1_percent"]["mean"] == pytest.approx(100 * np.abs(raw).mean(), rel=1e-5)
    assert (summary["n_scans"], summary["n_labelled"]) == (1, 0)
    assert not {"layers", "regions", "boundaries", "histograms"} & set(summary)
    measure.add("b", "1", raw, raw, labels, SPACING)
    assert measure.summary()["boundaries"][FIRST]["cnr"]["n_missing"] == 0  # of labelled scans
    measure.write(tmp_path)
    kinds = [row["kind"] for row in csv.DictReader((tmp_path / "enhancement.csv").open())]
    assert kinds == ["scan", "scan", *["layer"] * 6, *["region"] * 2, *["boundary"] * 5, "inner"]


def test_files(tmp_path: Path) -> None:
    measure = EnhancementMeasure()
    raw, labels = scan(0)
    measure.add("a", "1", torch.as_tensor(raw), torch.as_tensor(raw / 2), torch.as_tensor(labels), SPACING)
    measure.write(tmp_path, pictures=["p.png"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enhancement.csv", "enhancement.json"]
    content = json.loads((tmp_path / "enhancement.json").read_text(), parse_constant=pytest.fail)
    assert content["pictures"] == ["p.png"]
    assert {"cnr", "regions", "n_missing"} <= set(content["conventions"])
    assert (content["band_mm"], content["region_mm"]) == (1, 2)
    with (tmp_path / "enhancement.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == ENHANCEMENT_COLUMNS
    boundary = next(row for row in rows if row["kind"] == "boundary")
    assert boundary["name"] == "dermis|superficial_fat"
    assert float(boundary["raw_cnr"]) == pytest.approx(content["boundaries"][FIRST]["cnr"]["raw"], rel=1e-5)


def test_memory_does_not_grow_with_voxels() -> None:
    measure = EnhancementMeasure()
    for i in range(3):
        measure.add("a", str(i), *(scan(i)[0],) * 2, scan(i)[1], SPACING)
    for row in measure.scans:
        assert all(np.size(getattr(row, field.name)) <= 12 for field in fields(row))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"enhanced": np.zeros((14, 12, 39))}, "one shape"),
        ({"labels": np.zeros((14, 12), np.uint8)}, "one shape"),
        ({"labels": np.full((14, 12, 40), 7, np.uint8)}, "whole numbers 0–6"),
        ({"labels": np.zeros((14, 12, 40))}, "whole numbers 0–6"),
        ({"spacing": (1, 1)}, "spacing"),
        ({"spacing": (1, 1, 0)}, "spacing"),
    ],
)
def test_bad_scans_leave_nothing(change: dict, message: str) -> None:
    raw, labels = scan(0)
    measure = EnhancementMeasure()
    with pytest.raises(ValueError, match=message):
        measure.add("a", "1", **{"raw": raw, "enhanced": raw, "labels": labels, "spacing": SPACING, **change})
    assert measure.scans == []
    assert measure.histograms.sum() == 0
    assert measure.summary()["l1_percent"]["n_scans"] == 0


def test_a_scan_counts_once_until_reset_and_options_are_checked() -> None:
    raw, labels = scan(0)
    measure = EnhancementMeasure()
    measure.add("a", "1", raw, raw, labels, SPACING)
    with pytest.raises(ValueError, match="added before"):
        measure.add("a", "1", raw, raw, labels, SPACING)
    measure.reset()
    measure.add("a", "1", raw, raw, labels, SPACING)
    with pytest.raises(ValueError, match="above 0"):
        EnhancementMeasure(band_mm=0)
