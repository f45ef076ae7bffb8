"""Rows of scores to means, intervals and counts: the content of `metrics.json`.

Each kind of prediction gets

* `dice`: layer name to mean; `dice_ci`: layer name to [low, high]; `mean`: mean of the six; `ci`: mean ± 1.96·SD/√N
  over rows (slices, or scans); `subject_ci`: subject-level bootstrap of `mean`, None for one subject;
* `dice_ignore_empty`, `mean_ignore_empty`, `n_ignore_empty`: only rows whose truth holds the layer;
* `n` (rows), `n_scans`, `n_subjects`;
* for "slice", `planes`: plane to mean;
* for volumes, `hd95_mm`, `asd_mm`, `thickness_error_mm`, `mean_thickness_error_mm` and `truth_thickness_mm`, each
  layer name to mean over scans, with `…_mean` beside (the mean of the layers); `n_missing`: layer name to the number
  of scans with an infinite distance (left out of the means of hd95 and asd), `n_absent`: neither has the layer.
  Where no surface distances were computed (by default those of the single planes), their keys are left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_NAMES, LAYERS
from grn_monai.metrics.statistics import cluster_bootstrap_ci, mean_ci

if TYPE_CHECKING:
    from grn_monai.metrics.evaluation import ScanScores, SliceScores

__all__ = ["CONVENTIONS", "LAYER_KEYS", "summarise_scans", "summarise_slices"]

Floats = npt.NDArray[np.float64]

NAMES: tuple[str, ...] = tuple(LAYER_NAMES[label] for label in LAYERS)

LAYER_KEYS: tuple[str, ...] = tuple(name.replace(" ", "_") for name in NAMES)
"""The layers' names as CSV files write them, superficial to deep."""

CONVENTIONS: dict[str, str] = {
    "dice": "2|P∩G|/(|P|+|G|), fraction 0-1; a layer absent from both scores 1, predicted where absent scores 0",
    "dice_ignore_empty": "rows whose truth lacks the layer are left out",
    "ci": "mean ± 1.96·SD/√N over rows (ddof 1): slices for `slice`, scans otherwise; rows taken as independent",
    "subject_ci": "95 % percentile bootstrap that resamples subjects with all their rows; null for one subject",
    "surface": "voxels with a face neighbour outside the layer, beyond the volume included; distances in mm between "
    "voxel centres; hd95 = larger of the two directed 95th percentiles, asd = mean of both directions pooled; "
    "by default of the fused volumes only (`volume`, `decoded`), not of the single planes",
    "n_missing": "scans where only one of truth and prediction has the layer: infinite distance, not in the mean",
    "thickness_error": "mean over A-lines of |predicted − true| thickness (mm); mean_thickness_error is signed",
}
"""What the numbers mean, written beside them."""


def _by_layer(values: npt.NDArray[Any]) -> dict[str, Any]:
    return {name: value.item() for name, value in zip(NAMES, values, strict=True)}


def _nan_mean(values: Floats) -> Floats:
    """Mean over rows of the numbers that are there, NaN for a column without any (and no warning)."""
    count = (~np.isnan(values)).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _dice_summary(
    dice: Floats, in_truth: npt.NDArray[np.bool_], subjects: Sequence[Hashable], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """The part that slices and scans share; dice and in_truth are (rows, 6)."""
    row_means = dice.mean(axis=1)
    overall = mean_ci(row_means)
    present = _nan_mean(np.where(in_truth, dice, np.nan))
    return {
        "dice": _by_layer(dice.mean(axis=0)),
        "dice_ci": {name: mean_ci(column).ci for name, column in zip(NAMES, dice.T, strict=True)},
        "mean": overall.mean,
        "ci": overall.ci,
        "subject_ci": cluster_bootstrap_ci(row_means, subjects, n=n_bootstrap, seed=seed),
        "n": overall.n,
        "n_subjects": len(set(subjects)),
        "dice_ignore_empty": _by_layer(present),
        "mean_ignore_empty": _nan_mean(present[:, None])[0].item(),
        "n_ignore_empty": _by_layer(in_truth.sum(axis=0)),
    }


def summarise_slices(rows: Sequence[SliceScores], n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Sum up the slices of all scans and planes, each slice one row.

    Args:
        rows: one or more scans' slice scores.
        n_bootstrap: resamples of the subject-level bootstrap.
        seed: its seed.

    Returns:
        The "slice" entry described at the top of this module.
    """
    dice = np.concatenate([row.dice for row in rows])
    in_truth = np.concatenate([row.in_truth for row in rows])
    subjects = [row.subject for row in rows for _ in row.dice]
    planes = {
        plane: float(np.concatenate([row.dice for row in rows if row.plane == plane]).mean())
        for plane in dict.fromkeys(row.plane for row in rows)
    }
    return {
        **_dice_summary(dice, in_truth, subjects, n_bootstrap, seed),
        "n_scans": len({(row.subject, row.scan) for row in rows}),
        "planes": planes,
    }


def summarise_scans(rows: Sequence[ScanScores], surface_distances: bool, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Sum up label volumes of one kind, each scan one row.

    Args:
        rows: one or more scans' scores, of one kind.
        surface_distances: whether the rows hold distances; without, the keys are left out.
        n_bootstrap: resamples of the subject-level bootstrap.
        seed: its seed.

    Returns:
        The entry of a volume kind described at the top of this module.
    """
    subjects = [row.subject for row in rows]
    dice, in_truth = np.stack([row.dice for row in rows]), np.stack([row.in_truth for row in rows])
    out = _dice_summary(dice, in_truth, subjects, n_bootstrap, seed)
    out["n_scans"] = out["n"]
    columns = ["thickness_error_mm", "mean_thickness_error_mm", "truth_thickness_mm"]
    if surface_distances:
        hd95 = np.stack([row.hd95_mm for row in rows])
        out["n_missing"] = _by_layer(np.isinf(hd95).sum(axis=0))
        out["n_absent"] = _by_layer(np.isnan(hd95).sum(axis=0))
        columns = ["hd95_mm", "asd_mm", *columns]
    for column in columns:
        values = np.stack([getattr(row, column) for row in rows])
        layers = _nan_mean(np.where(np.isfinite(values), values, np.nan))
        out[column] = _by_layer(layers)
        out[f"{column}_mean"] = _nan_mean(layers[:, None])[0].item()
    return out
