from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Compose

from grn_monai.engines import ScanEvaluator
from grn_monai.handlers import MuscleEvaluationHandler
from grn_monai.labels import LUMBAR_MUSCLE
from grn_monai.metrics.files import read_rows

AFFINE = torch.diag(torch.tensor([2.0, 5.0, 10.0, 1.0], dtype=torch.float64))


class Shift(torch.nn.Module):
    """Logits whose argmax is the image itself: the 'prediction' is what the image holds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - x, x - 0.5], dim=1)


def items() -> list[dict[str, Any]]:
    truth = torch.zeros(1, 4, 4, 4)
    truth[:, :2] = 1
    pred = truth.clone()
    pred[:, 2, 0, 0] = 1  # one voxel too many in the second scan
    return [
        {
            "image": MetaTensor(image, affine=AFFINE),
            "label": MetaTensor(truth, affine=AFFINE),
            "subject": f"s{i}",
            "scan": f"s{i}_a",
        }
        for i, image in enumerate((truth, pred))
    ]


def evaluator(
    data: list[dict[str, Any]],
    out: Path,
    kind: type[SupervisedEvaluator] = ScanEvaluator,
    batch_size: int = 2,
    **options: Any,
) -> SupervisedEvaluator:
    post = Compose([AsDiscreted(keys="pred", argmax=True)])
    loader = DataLoader(Dataset(data), batch_size=batch_size)
    handler = MuscleEvaluationHandler(out, LUMBAR_MUSCLE)
    return kind(torch.device("cpu"), loader, Shift(), postprocessing=post, val_handlers=[handler], **options)


def test_scores_of_decollated_volumes(tmp_path: Path) -> None:
    engine = evaluator(items(), tmp_path)
    engine.run()
    engine.run()  # starts anew: nothing is counted twice
    rows = read_rows(tmp_path / "muscles.csv")
    assert [(row["subject"], row["scan"]) for row in rows] == [("s0", "s0_a"), ("s1", "s1_a")]
    assert [float(row["dice"]) for row in rows] == pytest.approx([1, 64 / 65], rel=1e-5)
    assert [float(row["volume_ml"]) for row in rows] == pytest.approx([3.2, 3.3])
    found = json.loads((tmp_path / "metrics.json").read_text())["volume"]
    assert found["mean"] == pytest.approx(np.mean([1, 64 / 65]))
    assert found["n_subjects"] == 2


def test_volumes_of_a_tilted_gantry(tmp_path: Path) -> None:
    sheared = AFFINE.clone()
    sheared[1, 2] = 3.0
    data = items()
    for item in data:
        item["image"].affine = item["label"].affine = sheared
    evaluator(data, tmp_path).run()
    rows = read_rows(tmp_path / "muscles.csv")
    assert [float(row["truth_volume_ml"]) for row in rows] == pytest.approx([3.2, 3.2])


def test_a_bad_truth_is_listed_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = items()
    data[0]["label"] = data[0]["label"] * 3
    engine = evaluator(data, tmp_path, batch_size=1)
    with pytest.raises(SystemExit):
        engine.run()
    assert "scan s0_a: found labels that cannot be scored: truth holds labels 0..3" in capsys.readouterr().err
    assert [row["scan"] for row in read_rows(tmp_path / "muscles.csv")] == ["s1_a"]


def test_what_cannot_be_scored_is_said(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="decollate"):
        evaluator(items(), tmp_path, SupervisedEvaluator, decollate=False).run()
    with pytest.raises(ValueError, match="names that differ"):
        MuscleEvaluationHandler(tmp_path, {0: "background"})
