from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grn_monai.measure.agreement import agreement, compared, layer_order, order_faults


def volumes(seed: int, shape: tuple[int, int, int] = (4, 5, 9)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 4, shape).astype(np.uint8)
    return first, np.where(rng.random(shape) < 0.3, rng.integers(0, 4, shape), first).astype(np.uint8)


def test_numbers_against_boolean_masks() -> None:
    a, b = volumes(0)
    a[a == 3] = 2  # label 3 in one of them only
    numbers = compared(a, b, 6)
    tissue = (a > 0) | (b > 0)
    assert numbers["tissue_voxels"] == tissue.sum()
    assert numbers["disagreement_percent"] == pytest.approx(100 * (a != b)[tissue].mean())
    dice = {k: 2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in (1, 2, 3)}
    assert numbers["dice"] == {**{str(k): pytest.approx(v) for k, v in dice.items()}, "4": None, "5": None}
    assert dice[3] == 0
    assert numbers["mean_dice"] == pytest.approx(np.mean(list(dice.values())))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_symmetric_and_perfect_with_itself(seed: int) -> None:
    a, b = volumes(seed)
    forth, back = compared(a, b, 4), compared(b, a, 4)
    assert forth == back
    assert compared(a, a, 4)["disagreement_percent"] == 0


def test_no_tissue_is_not_perfect_agreement() -> None:
    empty = np.zeros((2, 2, 3), np.uint8)
    numbers = compared(empty, empty, 3)
    assert numbers["disagreement_percent"] is None
    assert numbers["mean_dice"] is None
    assert layer_order(empty, empty) == {
        "a_lines": 0,
        "out_of_order_percent": None,
        "interrupted_percent": None,
        "changed_percent": None,
    }


LINES = {
    (0, 1, 1, 2, 3, 0): (False, False),
    (0, 1, 3, 3, 6, 6): (False, False),  # layers may be absent
    (0, 2, 1, 1, 3, 0): (True, False),
    (1, 1, 0, 2, 2, 3): (False, True),
    (2, 0, 1, 0, 0, 0): (True, True),
    (0, 0, 0, 0, 0, 0): (False, False),
}


def test_order_of_single_a_lines() -> None:
    labels = np.array(list(LINES), np.uint8).reshape(2, 3, 6)
    tissue, unordered, interrupted = order_faults(labels)
    assert tissue.ravel().tolist() == [True] * 5 + [False]
    assert list(zip(unordered.ravel().tolist(), interrupted.ravel().tolist(), strict=True)) == list(LINES.values())
    decoded = labels.copy()
    decoded[1, 1] = (0, 0, 1, 0, 0, 0)
    numbers = layer_order(labels, decoded)
    assert numbers["a_lines"] == 5
    assert numbers["out_of_order_percent"] == pytest.approx(40)
    assert numbers["interrupted_percent"] == pytest.approx(40)
    tissue_voxels = (labels > 0).sum()
    assert numbers["changed_percent"] == pytest.approx(100 / tissue_voxels)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="one shape"):
        compared(np.zeros((2, 2, 2), int), np.zeros((2, 2, 3), int), 2)
    with pytest.raises(ValueError, match=r"expected 0\.\.1"):
        compared(np.full((2, 2, 2), 2), np.zeros((2, 2, 2), int), 2)
    with pytest.raises(ValueError, match=r"\(C, C\)"):
        agreement(np.zeros((2, 3)))
