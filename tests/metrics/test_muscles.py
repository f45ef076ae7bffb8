from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from monai.metrics import get_confusion_matrix

from grn_monai.labels import CT_MUSCLES, LUMBAR_MUSCLE
from grn_monai.metrics import MUSCLE_MEASURES, MuscleEvaluation
from grn_monai.metrics.files import read_rows
from grn_monai.metrics.muscles import foreground, overlap_scores

SPACING = (2.0, 5.0, 10.0)  # 0.1 ml a voxel
LABELS = {0: "background", 1: "left", 2: "right"}


def line(*labels: int) -> np.ndarray:
    return np.array(labels, np.uint8).reshape(-1, 1, 1)


def scores(evaluation: MuscleEvaluation, muscle: int = 0, scan: int = -1) -> dict[str, float]:
    return dict(zip(MUSCLE_MEASURES, evaluation.scans[scan].values[muscle], strict=True))


def test_a_small_contingency_by_hand() -> None:
    evaluation = MuscleEvaluation(LUMBAR_MUSCLE)
    truth = line(1, 1, 1, 1, 0, 0, 0, 0, 0, 0)
    evaluation.add("s", "s", line(1, 1, 1, 0, 1, 1, 0, 0, 0, 0), truth, SPACING)  # TP 3, FN 1, FP 2, TN 4
    found = scores(evaluation)
    assert found["dice"] == pytest.approx(6 / 9)
    assert found["jaccard"] == pytest.approx(3 / 6)
    assert found["conformity"] == pytest.approx(0.0, abs=1e-12)
    assert (found["tpr"], found["tnr"], found["ppv"]) == pytest.approx((3 / 4, 4 / 6, 3 / 5))
    assert found["volume_ratio"] == pytest.approx(5 / 4)
    assert (found["volume_ml"], found["truth_volume_ml"]) == pytest.approx((0.5, 0.4))
    # Every voxel of a line is surface: two predicted ones lie 2 and 4 mm off, one true one 2 mm.
    assert found["asd_mm"] == pytest.approx((2 + 4 + 2) / 9)
    assert found["hd95_mm"] == pytest.approx(2 + 0.8 * 2)  # 95th percentile of 0, 0, 0, 2, 4


def test_measures_against_monai_and_simpleitk() -> None:
    rng = np.random.default_rng(0)
    truth, pred = (rng.integers(0, 5, (9, 8, 7)).astype(np.uint8) for _ in range(2))
    pred[:5] = truth[:5]
    evaluation = MuscleEvaluation(CT_MUSCLES)
    evaluation.add("s", "s", torch.as_tensor(pred)[None], truth, (1.5, 1.5, 4.0))
    one_hot = [torch.nn.functional.one_hot(torch.as_tensor(x).long(), 5).movedim(-1, 0)[None] for x in (pred, truth)]
    counts = get_confusion_matrix(*one_hot, include_background=False)[0].double().numpy()
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    images = [SimpleITK.GetImageFromArray(x) for x in (truth, pred)]
    overlap.Execute(*images)
    for i, (tp, fp, tn, fn) in enumerate(counts):
        found = scores(evaluation, i)
        d = found["dice"]
        assert d == pytest.approx(overlap.GetDiceCoefficient(i + 1))
        assert found["jaccard"] == pytest.approx(overlap.GetJaccardCoefficient(i + 1))
        assert found["jaccard"] == pytest.approx(d / (2 - d))
        assert found["conformity"] == pytest.approx((3 * d - 2) / d)
        assert (found["tpr"], found["tnr"]) == pytest.approx((tp / (tp + fn), tn / (tn + fp)))
        assert found["ppv"] == pytest.approx(tp / (tp + fp))
        assert found["volume_ratio"] == pytest.approx(found["volume_ml"] / found["truth_volume_ml"])
        assert found["truth_volume_ml"] == pytest.approx((truth == i + 1).sum() * 9.0 / 1000)


@pytest.mark.parametrize(
    ("pred", "truth", "undefined", "distance"),
    [
        ((0, 0), (0, 0), {"dice", "jaccard", "conformity", "tpr", "ppv", "volume_ratio"}, np.nan),
        ((1, 0), (0, 0), {"conformity", "tpr", "volume_ratio"}, np.inf),
        ((0, 0), (1, 0), {"conformity", "ppv"}, np.inf),
        ((1, 0), (0, 1), {"conformity"}, 2.0),
        ((1, 1), (1, 1), {"tnr"}, 0.0),
    ],
    ids=["neither", "only predicted", "missed", "apart", "everything"],
)
def test_absent_muscles(
    pred: tuple[int, ...], truth: tuple[int, ...], undefined: set[str], distance: float, tmp_path: Path
) -> None:
    evaluation = MuscleEvaluation(LUMBAR_MUSCLE)
    evaluation.add("s", "s", line(*pred), line(*truth), SPACING)
    found = scores(evaluation)
    surfaces = {"hd95_mm", "asd_mm"}
    assert {k for k, v in found.items() if np.isnan(v)} - surfaces == undefined
    assert found["asd_mm"] == pytest.approx(distance, nan_ok=True)
    entry = evaluation.summary()["volume"]["muscles"]["lumbar muscle"]
    assert {k for k in MUSCLE_MEASURES if entry[k]["n_undefined"]} - surfaces == undefined
    assert entry["n_absent_truth"] == int(sum(truth) == 0)
    assert entry["n_absent_prediction"] == int(sum(pred) == 0)
    assert entry["hd95_mm"]["n_infinite"] == int(np.isinf(distance))
    evaluation.write(tmp_path)
    row = read_rows(tmp_path / "muscles.csv")[0]
    assert {k for k in MUSCLE_MEASURES if row[k] == ""} - surfaces == undefined
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)


def test_summary_is_of_the_defined_values(tmp_path: Path) -> None:
    evaluation = MuscleEvaluation({str(k): v for k, v in LABELS.items()}, surface_distances=False)
    truth = line(1, 1, 2, 2, 0)
    evaluation.add("a", "a_1", truth, truth, SPACING)  # both 1
    evaluation.add("a", "a_2", line(1, 0, 0, 0, 2), truth, SPACING)  # left 2/3, right 0
    evaluation.add("b", "b_1", line(1, 1, 0, 0, 0), line(1, 1, 0, 0, 0), SPACING)  # left 1, right neither
    found = evaluation.summary()["volume"]
    left, right = found["muscles"]["left"]["dice"], found["muscles"]["right"]["dice"]
    assert (left["mean"], left["n"], left["n_undefined"]) == (pytest.approx(8 / 9), 3, 0)
    assert left["sd"] == pytest.approx(np.std([1, 2 / 3, 1], ddof=1))
    assert (right["mean"], right["n"], right["n_undefined"]) == (0.5, 2, 1)
    assert found["mean"] == pytest.approx((1 + 1 / 3 + 1) / 3)  # the mean of each scan's muscles with a value
    assert found["overall"]["dice"]["mean"] == found["mean"]
    assert found["dice"] == {"left": left["mean"], "right": 0.5}
    assert (found["n"], found["n_scans"], found["n_subjects"]) == (3, 3, 2)
    assert "hd95_mm" not in found["overall"]
    low, high = found["subject_ci"]
    assert low < found["mean"] <= high + 1e-12
    evaluation.write(tmp_path)
    rows = read_rows(tmp_path / "muscles.csv")
    assert [(r["subject"], r["scan"], r["muscle"]) for r in rows[:3]] == [
        ("a", "a_1", "left"),
        ("a", "a_1", "right"),
        ("a", "a_2", "left"),
    ]
    assert rows[3]["conformity"] == ""
    assert json.loads((tmp_path / "metrics.json").read_text())["labels"] == {"1": "left", "2": "right"}
    evaluation.reset()
    assert evaluation.summary() == {}


def test_what_is_refused() -> None:
    evaluation = MuscleEvaluation(LABELS)
    good = line(0, 1, 2)
    evaluation.add("s", "s", good, good, SPACING)
    with pytest.raises(ValueError, match="added before"):
        evaluation.add("s", "s", good, good, SPACING)
    with pytest.raises(ValueError, match="one shape"):
        evaluation.add("s", "t", good, line(0, 1), SPACING)
    with pytest.raises(ValueError, match="positive"):
        evaluation.add("s", "t", good, good, (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match=r"expected 0\.\.2"):
        evaluation.add("s", "t", good, line(0, 1, 3), SPACING)
    with pytest.raises(ValueError, match="whole label values"):
        evaluation.add("s", "t", good * 0.5, good, SPACING)
    gap = MuscleEvaluation({1: "left", 3: "right"})
    with pytest.raises(ValueError, match=r"prediction holds the labels \[2\]"):
        gap.add("s", "t", good, line(0, 1, 3), SPACING)
    assert len(evaluation.scans) == 1
    assert not gap.scans
    for labels in ({0: "background"}, {1: "a", 2: "a"}, {-1: "a", 1: "b"}):
        with pytest.raises(ValueError, match="names that differ"):
            foreground(labels)


def test_voxels_of_a_sheared_grid() -> None:
    evaluation = MuscleEvaluation(LABELS, surface_distances=False)
    evaluation.add("s", "s", line(1, 1, 0), line(1, 0, 0), SPACING, voxel_ml=0.09)
    assert (scores(evaluation)["volume_ml"], scores(evaluation)["truth_volume_ml"]) == pytest.approx((0.18, 0.09))
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="voxel_ml"):
            evaluation.add("s", "t", line(1), line(1), SPACING, voxel_ml=wrong)


def test_labels_may_leave_gaps() -> None:
    evaluation = MuscleEvaluation({86: "left", 89: "right"})
    evaluation.add("s", "s", line(86, 89, 89), line(86, 86, 89), SPACING)
    assert scores(evaluation, 0)["dice"] == scores(evaluation, 1)["dice"] == pytest.approx(2 / 3)
    counts = np.array([[4, 2], [1, 3]])
    assert overlap_scores(counts, [1])["tnr"] == pytest.approx([4 / 6])
