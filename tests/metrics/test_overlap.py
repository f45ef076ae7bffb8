from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot

from grn_monai.labels import LAYERS, NUM_CLASSES
from grn_monai.metrics import dice_per_label, dice_per_slice, joint_counts
from grn_monai.metrics.overlap import PLANE_AXES
from grn_monai.transforms import PLANES, plane_axis
from tests.metrics.layered import layered_truth, perturbed


def monai_dice(pred: np.ndarray, truth: np.ndarray, ignore_empty: bool) -> np.ndarray:
    """(B, 6) Dice of (B, H, W[, D]) labels by MONAI."""
    metric = DiceMetric(include_background=False, ignore_empty=ignore_empty, reduction="none")
    p, t = (one_hot(torch.as_tensor(a.astype(np.int64))[:, None], NUM_CLASSES) for a in (pred, truth))
    return metric(p, t).numpy()


def with_gaps() -> tuple[np.ndarray, np.ndarray]:
    """A pair with a layer missing in the truth, one in the prediction, and one in both, on some slices only."""
    truth = layered_truth(0)
    pred = perturbed(truth, 1)
    truth[:4][truth[:4] == 3] = 4
    truth[:, 2:4][truth[:, 2:4] == 1] = 2
    pred[2:6][pred[2:6] == 3] = 4
    pred[:, 5:9][pred[:, 5:9] == 5] = 6
    return pred, truth


def test_hand_computed() -> None:
    truth = np.array([[1, 1, 2, 2], [0, 3, 3, 3]])
    pred = np.array([[1, 2, 2, 2], [4, 3, 3, 0]])
    # 1: 2·1/(1+2); 2: 2·2/(3+2); 3: 2·2/(2+3); 4 false positive: 0; 5 and 6 absent from both: 1
    np.testing.assert_allclose(dice_per_label(pred, truth), [2 / 3, 0.8, 0.8, 0, 1, 1], rtol=1e-12)
    np.testing.assert_allclose(
        dice_per_label(pred, truth, ignore_empty=True), [2 / 3, 0.8, 0.8, np.nan, np.nan, np.nan], rtol=1e-12
    )
    assert dice_per_label(pred, truth, labels=[2]).tolist() == [0.8]


@pytest.mark.parametrize("ignore_empty", [False, True])
@pytest.mark.parametrize(("plane", "axis"), [("sagittal", 0), ("transverse", 1)])
def test_slices_equal_monai(plane: str, axis: int, ignore_empty: bool) -> None:
    pred, truth = with_gaps()
    ours = dice_per_slice(pred, truth, plane, ignore_empty=ignore_empty)
    assert ours.shape == (pred.shape[axis], len(LAYERS))
    theirs = monai_dice(np.moveaxis(pred, axis, 0), np.moveaxis(truth, axis, 0), ignore_empty)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, equal_nan=True)
    assert np.isnan(ours).any() == ignore_empty
    assert (ours == 0).any()


def test_volume_equals_monai() -> None:
    pred, truth = with_gaps()
    np.testing.assert_allclose(dice_per_label(pred, truth), monai_dice(pred[None], truth[None], False)[0], rtol=1e-6)


def test_identity_and_symmetry() -> None:
    pred, truth = with_gaps()
    np.testing.assert_array_equal(dice_per_label(truth, truth), 1)
    np.testing.assert_array_equal(dice_per_label(pred, truth), dice_per_label(truth, pred))


def test_joint_counts_hold_every_voxel() -> None:
    pred, truth = with_gaps()
    counts = joint_counts(pred, truth, axis=1)
    assert counts.sum() == truth.size
    for label in range(NUM_CLASSES):
        assert counts.sum(axis=(0, 2))[label] == (truth == label).sum()
    np.testing.assert_array_equal(counts.sum(axis=0), joint_counts(pred, truth)[0])


@pytest.mark.parametrize(
    ("pred", "message"),
    [
        (np.zeros((2, 2, 3), np.uint8), "one shape"),
        (np.full((2, 2, 2), 7, np.uint8), r"labels 7\.\.7, expected 0\.\.6"),
        (np.full((2, 2, 2), -1, np.int16), r"labels -1"),
        (np.zeros((2, 2, 2), np.float32), "integer labels"),
    ],
)
def test_bad_input(pred: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dice_per_label(pred, np.zeros((2, 2, 2), np.uint8))


def test_bad_plane() -> None:
    volume = np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="sagittal"):
        dice_per_slice(volume, volume, "coronal")
    with pytest.raises(ValueError, match="volume"):
        dice_per_slice(volume[0], volume[0], "sagittal")


def test_planes_are_those_of_the_transforms() -> None:
    # Written twice, since the metrics do without the import of torch and MONAI.
    assert {plane: plane_axis(plane) for plane in PLANES} == PLANE_AXES
