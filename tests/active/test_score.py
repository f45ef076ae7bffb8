from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy.stats import entropy

from grn_monai.active import disagreement_score, mean_entropy
from grn_monai.errors import InputError
from grn_monai.measure.agreement import agreement
from grn_monai.transforms import ScanQualityd


def record(planes: float | None, sge: float | None) -> dict[str, Any]:
    """A quality record with these mean Dice; None: not compared."""
    pairs = {"plane_disagreement": planes, "sge_disagreement": sge}
    return {name: None if dice is None else {"mean_dice": dice} for name, dice in pairs.items()}


@pytest.mark.parametrize(
    ("planes", "sge", "score"),
    [
        (0.9, 0.7, 0.2),
        (1.0, 1.0, 0.0),
        (0.0, 0.0, 1.0),
        (0.6, None, 0.4),  # no generator
        (None, 0.75, 0.25),  # a scan of one slice
        (None, None, None),
    ],
)
def test_score_is_the_mean_of_the_pairs_compared(planes: float | None, sge: float | None, score: float | None) -> None:
    assert disagreement_score(record(planes, sge)) == (None if score is None else pytest.approx(score))


def test_score_of_one_source() -> None:
    quality = record(0.9, 0.7)
    assert disagreement_score(quality, ["plane_disagreement"]) == pytest.approx(0.1)
    assert disagreement_score(quality, ["sge_disagreement"]) == pytest.approx(0.3)


def test_every_layer_counts_alike() -> None:
    """A lost fascia of 10 voxels moves the score as far as 1000 lost voxels of muscle, of 1000 each way."""
    thin, thick = np.diag([0, 10, 1000]), np.diag([0, 10, 1000])
    thin[1, 1], thin[1, 0] = 0, 10
    thick[2, 2], thick[2, 0] = 0, 1000
    scores = [disagreement_score({"plane_disagreement": agreement(table)}) for table in (thin, thick)]
    assert scores == [pytest.approx(0.5), pytest.approx(0.5)]


def test_no_tissue_in_one_pair_leaves_the_other() -> None:
    empty = agreement(np.diag([100, 0, 0]))
    assert empty["mean_dice"] is None
    assert disagreement_score({"plane_disagreement": empty, "sge_disagreement": empty}) is None
    half = {"mean_dice": 0.5}
    assert disagreement_score({"plane_disagreement": empty, "sge_disagreement": half}) == pytest.approx(0.5)


def test_score_of_what_inference_makes() -> None:
    labels = torch.zeros((1, 3, 4, 8), dtype=torch.uint8)
    labels[..., 2:] = 1
    planes, sge = np.array([[10, 2], [0, 30]]), np.array([[5, 0], [10, 30]])
    item = {"pred": labels, "argmax": labels, "plane_counts": torch.tensor(planes), "sge_counts": torch.tensor(sge)}
    quality = ScanQualityd("pred")(item)["quality"]
    assert disagreement_score(quality) == pytest.approx(1 - (60 / 62 + 60 / 70) / 2)


@pytest.mark.parametrize("dice", [1.5, -0.1, math.nan, "0.5", True, [0.5]])
def test_what_is_no_dice_is_refused(dice: Any) -> None:
    with pytest.raises(InputError, match=r"plane_disagreement\.mean_dice"):
        disagreement_score({"plane_disagreement": {"mean_dice": dice}})


@pytest.mark.parametrize("sources", [(), ("planes",)])
def test_unknown_sources_are_refused(sources: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="plane_disagreement, sge_disagreement"):
        disagreement_score(record(0.5, 0.5), sources)


def test_a_list_is_no_record() -> None:
    with pytest.raises(InputError, match="a list"):
        disagreement_score([])  # type: ignore[arg-type]


def probabilities(seed: int, shape: tuple[int, ...] = (5, 4, 3, 6)) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 4, shape)
    p: np.ndarray = np.exp(logits) / np.exp(logits).sum(0)
    return p


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_entropy_against_scipy(seed: int) -> None:
    p = probabilities(seed)
    lines = (p.argmax(0) > 0).any(-1)
    expected = entropy(p, axis=0)[lines].mean()
    assert mean_entropy(torch.from_numpy(p)) == pytest.approx(expected, rel=1e-12)
    # float32 is what inference gives: its own rounding is all that is lost
    assert mean_entropy(torch.from_numpy(p.astype(np.float32))) == pytest.approx(expected, rel=1e-5)


def test_entropy_at_its_ends() -> None:
    sure = torch.zeros((7, 2, 3, 4))
    sure[1] = 1
    assert mean_entropy(sure) == 0.0
    even = torch.full((7, 2, 3, 4), 1 / 7)
    assert mean_entropy(even) is None  # of equals the background comes first: no tissue
    even[1] += 1e-6
    assert mean_entropy(even) == pytest.approx(math.log(7), rel=1e-4)


def test_lines_without_tissue_do_not_count() -> None:
    p = torch.from_numpy(probabilities(0))
    outside = torch.zeros((5, 9, 3, 6), dtype=p.dtype)
    outside[0] = 1
    assert mean_entropy(torch.cat((p, outside), 1)) == pytest.approx(mean_entropy(p), rel=1e-12)
    assert mean_entropy(outside) is None


def test_a_metatensor_is_taken_as_its_values() -> None:
    p = torch.from_numpy(probabilities(1))
    assert mean_entropy(MetaTensor(p)) == mean_entropy(p)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(1, 7, 2, 2, 2), "Take one scan out of the batch"),
        (torch.ones(1, 2, 2, 2), "K of 2 or more"),
        (torch.full((3, 2, 2, 2), 4.0), "not logits"),
        (torch.full((3, 2, 2, 2), math.nan), "not logits"),
    ],
)
def test_bad_probabilities_are_refused(values: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mean_entropy(values)
