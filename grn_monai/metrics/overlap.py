"""Dice per layer of label volumes, whole or slice by slice, from one joint histogram of prediction and truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYERS, NUM_CLASSES

__all__ = ["PLANE_AXES", "dice_from_counts", "dice_per_label", "dice_per_slice", "joint_counts"]

PLANE_AXES: dict[str, int] = {"sagittal": 0, "transverse": 1}
"""Plane to the axis of an (X, Y, Z) volume that its slices fix."""

Labels = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def _check_pair(pred: Labels, truth: Labels, num_classes: int) -> None:
    if pred.shape != truth.shape:
        msg = f"prediction and truth must have one shape, got {pred.shape} and {truth.shape}"
        raise ValueError(msg)
    for name, labels in (("prediction", pred), ("truth", truth)):
        if labels.dtype.kind not in "iub":
            msg = f"{name} must hold integer labels, got dtype {labels.dtype}"
            raise ValueError(msg)
        if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
            msg = f"{name} holds labels {labels.min()}..{labels.max()}, expected 0..{num_classes - 1}"
            raise ValueError(msg)


def joint_counts(
    pred: Labels, truth: Labels, axis: int | None = None, num_classes: int = NUM_CLASSES
) -> npt.NDArray[np.int64]:
    """Count voxels for every pair of truth label and predicted label.

    Args:
        pred: predicted labels 0..num_classes-1, integer, any shape.
        truth: true labels, same shape.
        axis: count each slice along this axis by itself; None counts the whole array once.
        num_classes: number of labels, background included.

    Returns:
        Counts of shape (N, num_classes, num_classes), [slice, truth label, predicted label]; N = 1 without an axis.

    Raises:
        ValueError: for different shapes, non-integer arrays or labels out of range.
    """
    pred, truth = np.asarray(pred), np.asarray(truth)
    _check_pair(pred, truth, num_classes)
    if axis is None:
        pred, truth = pred.reshape(1, -1), truth.reshape(1, -1)
    else:
        pred, truth = np.moveaxis(pred, axis, 0), np.moveaxis(truth, axis, 0)
    pairs = num_classes * num_classes
    # One bincount a slice keeps the 64-bit index array the size of a slice, not of the volume.
    counts = [
        np.bincount((t.astype(np.intp) * num_classes + p).ravel(), minlength=pairs)
        for p, t in zip(pred, truth, strict=True)
    ]
    return np.asarray(counts, dtype=np.int64).reshape(-1, num_classes, num_classes)


def dice_from_counts(
    counts: npt.NDArray[np.int64], labels: Sequence[int] = LAYERS, ignore_empty: bool = False
) -> Floats:
    """Dice 2|P∩G| / (|P|+|G|) of each label from joint counts (GRN section "Evaluation": DSC).

    Args:
        counts: (N, C, C) as `joint_counts` returns, or a sum of such.
        labels: labels to score.
        ignore_empty: how to score a label that the truth does not hold. False: 1 if the prediction does not
            hold it either, else 0 (MONAI's `DiceMetric(ignore_empty=False)`, the reading of the papers).
            True: NaN in both cases (MONAI's default).

    Returns:
        (N, len(labels)) fractions 0–1, NaN only with `ignore_empty`.
    """
    chosen = list(labels)
    both = np.diagonal(counts, axis1=-2, axis2=-1)[..., chosen].astype(np.float64)
    in_truth = counts.sum(axis=-1)[..., chosen]
    total = in_truth + counts.sum(axis=-2)[..., chosen]
    dice = np.where(total == 0, 1.0, 2.0 * both / np.maximum(total, 1))
    return np.where(in_truth == 0, np.nan, dice) if ignore_empty else dice


def dice_per_label(pred: Labels, truth: Labels, labels: Sequence[int] = LAYERS, ignore_empty: bool = False) -> Floats:
    """Dice of each label over the whole array.

    Args:
        pred: predicted labels, integer, any shape.
        truth: true labels, same shape.
        labels: labels to score.
        ignore_empty: see `dice_from_counts`.

    Returns:
        (len(labels),) fractions 0–1.

    Raises:
        ValueError: for different shapes, non-integer arrays or labels out of range.
    """
    num_classes = max((NUM_CLASSES, *(label + 1 for label in labels)))
    return dice_from_counts(joint_counts(pred, truth, None, num_classes), labels, ignore_empty)[0]


def dice_per_slice(
    pred: Labels, truth: Labels, plane: str, labels: Sequence[int] = LAYERS, ignore_empty: bool = False
) -> Floats:
    """Dice of each label in every slice of one plane.

    The papers score slices: the score of a slice is the mean over the six layers, and all slices of all test
    scans make the sample.

    Args:
        pred: (X, Y, Z) predicted labels.
        truth: (X, Y, Z) true labels.
        plane: "sagittal" (slices fix X) or "transverse" (slices fix Y).
        labels: labels to score.
        ignore_empty: see `dice_from_counts`.

    Returns:
        (N, len(labels)) fractions 0–1, N = X or Y.

    Raises:
        ValueError: for an unknown plane, arrays that are not 3D, different shapes or labels out of range.
    """
    if plane not in PLANE_AXES:
        msg = f"plane must be one of {list(PLANE_AXES)}, got {plane!r}"
        raise ValueError(msg)
    if np.ndim(pred) != 3:
        msg = f"slices need an (X, Y, Z) volume, got shape {np.shape(pred)}"
        raise ValueError(msg)
    num_classes = max((NUM_CLASSES, *(label + 1 for label in labels)))
    return dice_from_counts(joint_counts(pred, truth, PLANE_AXES[plane], num_classes), labels, ignore_empty)
