from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.metrics import LayerEvaluation, dice_per_label, dice_per_slice, mean_ci, surface_scores
from tests.metrics.layered import layered_truth, perturbed

SPACING = (0.2, 0.25, 0.15)
NAMES = [LAYER_NAMES[label] for label in LAYERS]


@pytest.fixture(scope="module")
def cases() -> list[tuple[str, str, np.ndarray, dict]]:
    """Three scans of two subjects."""
    out = []
    for i, (subject, scan) in enumerate([("a", "a1"), ("a", "a2"), ("b", "b1")]):
        truth = layered_truth(i)
        planes = {"sagittal": perturbed(truth, 10 + i, 2), "transverse": perturbed(truth, 20 + i, 2)}
        predictions = {"slice": planes, "volume": perturbed(truth, 30 + i), "decoded": perturbed(truth, 40 + i, 0.6)}
        out.append((subject, scan, truth, predictions))
    return out


@pytest.fixture(scope="module")
def evaluation(cases: list) -> LayerEvaluation:
    done = LayerEvaluation()
    for subject, scan, truth, predictions in cases:
        done.add(subject, scan, truth, predictions, SPACING)
    return done


def test_slice_summary(evaluation: LayerEvaluation, cases: list) -> None:
    rows = np.concatenate(
        [dice_per_slice(p["slice"][plane], t, plane) for *_, t, p in cases for plane in ("sagittal", "transverse")]
    )
    summary = evaluation.summary()["slice"]
    np.testing.assert_allclose([summary["dice"][name] for name in NAMES], rows.mean(axis=0))
    assert summary["mean"] == pytest.approx(rows.mean())
    assert summary["ci"] == pytest.approx(mean_ci(rows.mean(axis=1)).ci)
    assert (summary["n"], summary["n_scans"], summary["n_subjects"]) == (3 * (14 + 12), 3, 2)
    low, high = summary["subject_ci"]
    assert low < summary["mean"] < high


@pytest.fixture(scope="module")
def with_planes(cases: list) -> LayerEvaluation:
    done = LayerEvaluation(plane_surfaces=True)
    for subject, scan, truth, predictions in cases:
        done.add(subject, scan, truth, predictions, SPACING)
    return done


def test_planes_have_no_surface_distances_unless_asked_for(
    evaluation: LayerEvaluation, with_planes: LayerEvaluation, tmp_path: Path
) -> None:
    default, full = evaluation.summary(), with_planes.summary()
    surface = {"hd95_mm", "asd_mm", "hd95_mm_mean", "asd_mm_mean", "n_missing", "n_absent"}
    for kind in ("sagittal", "transverse"):
        assert set(full[kind]) - set(default[kind]) == surface
        assert default[kind] == {key: value for key, value in full[kind].items() if key not in surface}
    for kind in ("slice", "volume", "decoded"):
        assert default[kind] == full[kind]
    evaluation.write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "scans.csv").open()))
    for column in ("hd95_mm", "asd_mm"):
        assert {row["kind"] for row in rows if row[column] == ""} == {"sagittal", "transverse"}
        assert {row["kind"] for row in rows if row[column] != ""} == {"volume", "decoded"}
    assert "not of the single planes" in json.loads((tmp_path / "metrics.json").read_text())["conventions"]["surface"]


@pytest.mark.parametrize("kind", ["volume", "decoded", "sagittal", "transverse"])
def test_volume_summary(with_planes: LayerEvaluation, cases: list, kind: str) -> None:
    preds = [p["slice"][kind] if kind in p["slice"] else p[kind] for *_, p in cases]
    truths = [t for _, _, t, _ in cases]
    dice = np.array([dice_per_label(p, t) for p, t in zip(preds, truths, strict=True)])
    surface = [surface_scores(p, t, SPACING) for p, t in zip(preds, truths, strict=True)]
    summary = with_planes.summary()[kind]
    np.testing.assert_allclose([summary["dice"][name] for name in NAMES], dice.mean(axis=0))
    assert summary["ci"] == pytest.approx(mean_ci(dice.mean(axis=1)).ci)
    for i, label in enumerate(LAYERS):
        assert summary["hd95_mm"][NAMES[i]] == pytest.approx(np.mean([s[label].hd95_mm for s in surface]))
        assert summary["asd_mm"][NAMES[i]] == pytest.approx(np.mean([s[label].asd_mm for s in surface]))
        depth = [((p == label).sum(2) - (t == label).sum(2)) * 0.15 for p, t in zip(preds, truths, strict=True)]
        assert summary["thickness_error_mm"][NAMES[i]] == pytest.approx(np.mean(np.abs(depth)), rel=1e-5)
        assert summary["mean_thickness_error_mm"][NAMES[i]] == pytest.approx(np.mean(depth), abs=1e-6)
    assert summary["hd95_mm_mean"] == pytest.approx(np.mean(list(summary["hd95_mm"].values())))
    assert set(summary["n_missing"].values()) == {0}


def test_planes_as_volumes_can_be_left_out(cases: list) -> None:
    subject, scan, truth, predictions = cases[0]
    done = LayerEvaluation(surface_distances=False, plane_volumes=False)
    done.add(subject, scan, truth, predictions, SPACING)
    assert set(done.summary()) == {"slice", "volume", "decoded"}


def test_missing_and_absent_layers_are_counted() -> None:
    truth = layered_truth(0)
    truth[truth == 1] = 2  # no dermis in the truth ...
    pred = truth.copy()
    pred[pred == 3] = 4  # ... nor in the prediction, which also misses the superficial fascia
    done = LayerEvaluation()
    done.add("a", "1", truth, {"decoded": pred}, SPACING)
    done.add("b", "1", layered_truth(1), {"decoded": layered_truth(1)}, SPACING)
    summary = done.summary()["decoded"]
    assert [summary["n_missing"][name] for name in NAMES] == [0, 0, 1, 0, 0, 0]
    assert [summary["n_absent"][name] for name in NAMES] == [1, 0, 0, 0, 0, 0]
    assert summary["hd95_mm"][NAMES[2]] == 0  # of the one finite scan
    assert summary["dice"][NAMES[0]] == 1
    assert summary["n_ignore_empty"][NAMES[0]] == 1
    assert summary["dice_ignore_empty"][NAMES[2]] == 0.5


def test_files(evaluation: LayerEvaluation, tmp_path: Path) -> None:
    evaluation.write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "scans.csv", "slices.csv"]
    metrics = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["decoded"]["mean"] == pytest.approx(evaluation.summary()["decoded"]["mean"])
    slices = list(csv.DictReader((tmp_path / "slices.csv").open()))
    assert len(slices) == metrics["slice"]["n"]
    assert np.mean([float(row["dice_mean"]) for row in slices]) == pytest.approx(metrics["slice"]["mean"], rel=1e-5)
    scans = list(csv.DictReader((tmp_path / "scans.csv").open()))
    assert len(scans) == 3 * 4 * 6
    dermis = [float(row["hd95_mm"]) for row in scans if (row["kind"], row["layer"]) == ("decoded", "dermis")]
    assert np.mean(dermis) == pytest.approx(metrics["decoded"]["hd95_mm"]["dermis"], rel=1e-5)


def test_infinite_distance_is_null_in_json_and_inf_in_csv(tmp_path: Path) -> None:
    done = LayerEvaluation()
    done.add("a", "1", layered_truth(0), {"decoded": np.zeros_like(layered_truth(0))}, SPACING)
    done.write(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["decoded"]["hd95_mm"]["muscle"] is None
    assert metrics["decoded"]["n_missing"]["muscle"] == 1
    assert metrics["decoded"]["subject_ci"] is None
    assert {row["hd95_mm"] for row in csv.DictReader((tmp_path / "scans.csv").open())} == {"inf"}


def test_tensors_with_a_channel_are_taken(cases: list) -> None:
    subject, scan, truth, predictions = cases[0]
    done = LayerEvaluation(surface_distances=False)
    labels = torch.as_tensor(predictions["decoded"])[None].float()
    done.add(subject, scan, torch.as_tensor(truth)[None], {"decoded": labels}, SPACING)
    summary = done.summary()
    assert list(summary) == ["decoded"]
    assert "hd95_mm" not in summary["decoded"]
    assert summary["decoded"]["mean"] == pytest.approx(dice_per_label(predictions["decoded"], truth).mean())


@pytest.mark.parametrize(
    ("predictions", "spacing", "message"),
    [
        ({}, SPACING, "none"),
        ({"fused": np.zeros((14, 12, 40), np.uint8)}, SPACING, "fused"),
        ({"slice": {"coronal": np.zeros((14, 12, 40), np.uint8)}}, SPACING, "coronal"),
        ({"decoded": np.zeros((14, 12, 39), np.uint8)}, SPACING, "one shape"),
        ({"decoded": np.zeros((14, 12), np.uint8)}, SPACING, "label volume"),
        ({"decoded": np.full((14, 12, 40), 0.5)}, SPACING, "whole label values"),
        ({"decoded": np.zeros((14, 12, 40), np.uint8)}, (1, 1), "spacing"),
    ],
)
def test_bad_scans_leave_nothing(predictions: dict, spacing: tuple, message: str) -> None:
    done = LayerEvaluation()
    with pytest.raises(ValueError, match=message):
        done.add("a", "1", layered_truth(0), predictions, spacing)
    assert done.summary() == {}


def test_a_scan_counts_once_until_reset(cases: list) -> None:
    subject, scan, truth, predictions = cases[0]
    done = LayerEvaluation(surface_distances=False)
    done.add(subject, scan, truth, predictions, SPACING)
    with pytest.raises(ValueError, match="added before"):
        done.add(subject, scan, truth, predictions, SPACING)
    done.reset()
    done.add(subject, scan, truth, predictions, SPACING)
    assert done.summary()["volume"]["n"] == 1
