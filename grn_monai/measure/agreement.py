"""How far two segmentations of one scan agree, and whether the layers of each A-line come in order: signs of quality
that need no truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["QUALITY_FORMAT", "agreement", "compared", "layer_order", "order_faults"]

QUALITY_FORMAT = "grn-monai quality 1"
"""The ``format`` of the NAME_quality.json that inference writes."""

Labels = npt.NDArray[np.integer]


def agreement(counts: npt.ArrayLike) -> dict[str, Any]:
    """Disagreement and Dice of two segmentations of one scan, from their joint histogram; the order does not matter.

    Args:
        counts: (C, C) voxels by the label in the one and in the other, label 0 the background, as
            `grn_monai.metrics.joint_counts` and `TwoPlaneInferer(return_agreement=True)` give.

    Returns:
        ``disagreement_percent``: share of the tissue voxels, those that at least one of the two calls tissue, in
        which the labels differ; None without tissue. ``dice``: label to Dice 2·|A∩B| / (|A|+|B|), 0 to 1, None for a
        layer that neither has. ``mean_dice``: mean over the layers that one of them has, or None.
        ``tissue_voxels``: the denominator of the first.

    Raises:
        ValueError: `counts` is not square.
    """
    table = np.asarray(counts, dtype=np.int64)
    if table.ndim != 2 or table.shape[0] != table.shape[1]:
        msg = f"counts must be (C, C), got shape {table.shape}"
        raise ValueError(msg)
    tissue = int(table.sum() - table[0, 0])
    differing = int(table.sum() - np.trace(table))
    sizes = table.sum(axis=0) + table.sum(axis=1)
    dice = {
        str(label): 2 * int(table[label, label]) / int(sizes[label]) if sizes[label] else None
        for label in range(1, len(table))
    }
    scored = [value for value in dice.values() if value is not None]
    return {
        "disagreement_percent": 100 * differing / tissue if tissue else None,
        "mean_dice": sum(scored) / len(scored) if scored else None,
        "dice": dice,
        "tissue_voxels": tissue,
    }


def compared(first: Labels, second: Labels, num_classes: int) -> dict[str, Any]:
    """`agreement` of two label volumes.

    Args:
        first: (X, Y, Z) labels below `num_classes`.
        second: the same grid.
        num_classes: number of labels, background included.

    Raises:
        ValueError: the shapes differ, or a label is out of range.
    """
    from grn_monai.metrics.overlap import joint_counts  # at the top it would bring all metrics to every transform

    # A slab at a time, which keeps the temporaries small.
    return agreement(joint_counts(first, second, axis=0, num_classes=num_classes).sum(axis=0))


def order_faults(labels: Labels) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which A-lines break the anatomical order.

    Args:
        labels: (X, Y, Z) labels, ordered superficial to deep, 0 background; Z = depth.

    Returns:
        Three (X, Y) masks: the A-line has tissue; a layer lies below a deeper one (out of order, whatever
        background lies between); background lies between tissue (interrupted).
    """
    labels = np.asarray(labels)
    shape = labels.shape[:2]
    tissue, unordered, interrupted = (np.zeros(shape, dtype=bool) for _ in range(3))
    for x, slab in enumerate(labels):  # a slab at a time keeps the temporaries small
        there = slab > 0
        deepest = np.maximum.accumulate(slab, axis=1)
        unordered[x] = ((slab < deepest) & there).any(axis=1)
        count = there.sum(axis=1)
        tissue[x] = count > 0
        extent = slab.shape[1] - there.argmax(axis=1) - there[:, ::-1].argmax(axis=1)
        interrupted[x] = tissue[x] & (count < extent)
    return tissue, unordered, interrupted


def layer_order(labels: Labels, decoded: Labels | None = None) -> dict[str, Any]:
    """How much of a plain argmax has to be put in order.

    Args:
        labels: (X, Y, Z) labels before the ordered-layer decode, Z = depth.
        decoded: the labels after it.

    Returns:
        ``a_lines``: those with tissue; ``out_of_order_percent`` and ``interrupted_percent``: shares of them, see
        `order_faults`; ``changed_percent``: share of the tissue voxels (tissue before or after) whose label the
        decode changed. A share is None where there is nothing to share, or nothing was decoded.
    """
    tissue, unordered, interrupted = order_faults(labels)
    lines = int(tissue.sum())
    changed = None
    if decoded is not None:
        num_classes = int(max(np.max(labels), np.max(decoded))) + 1
        changed = compared(labels, decoded, num_classes)["disagreement_percent"]
    return {
        "a_lines": lines,
        "out_of_order_percent": 100 * int(unordered.sum()) / lines if lines else None,
        "interrupted_percent": 100 * int(interrupted.sum()) / lines if lines else None,
        "changed_percent": changed,
    }
