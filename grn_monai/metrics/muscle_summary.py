"""Rows of muscle scores to means, SD, intervals and counts: the entry `volume` of a muscle cohort's `metrics.json`.

* `mean`, `ci`, `subject_ci`: mean Dice, each scan's mean over its muscles being one row; `n` (rows), `n_scans`,
  `n_subjects`; `dice`: muscle to mean Dice;
* `muscles`: muscle to measure to `mean`, `sd` (N − 1), `subject_ci`, `n` (values that count), `n_undefined` and, of
  distances, `n_infinite`; beside the measures `n_absent_truth` and `n_absent_prediction`, scans without the muscle;
* `overall`: measure to the same of each scan's mean over its muscles; its counts are of single muscles.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.metrics.statistics import cluster_bootstrap_ci, mean_ci

__all__ = ["MUSCLE_CONVENTIONS", "mean_over_muscles", "summarise_muscles"]

Floats = npt.NDArray[np.float64]

MUSCLE_CONVENTIONS: dict[str, str] = {
    "overlap": "per scan and muscle, the whole volume: dice 2TP/(2TP+FP+FN), jaccard TP/(TP+FP+FN), conformity "
    "1 - (FP+FN)/TP, tpr TP/(TP+FN), tnr TN/(TN+FP), ppv TP/(TP+FP), volume_ratio |prediction|/|truth|; fractions",
    "undefined": "a denominator of 0: all overlap measures but tnr where neither has the muscle, tpr and volume_ratio "
    "where the truth lacks it, ppv where the prediction does, conformity where they do not meet (TP = 0). An empty "
    "cell of muscles.csv; left out of means and counted in n_undefined. A muscle that only one of the two has scores "
    "dice and jaccard 0",
    "tnr": "depends on the field of view: all voxels outside the muscle count",
    "volume": "voxels times voxel volume, ml; volume_ml is the prediction's",
    "surface": "as in scans of layers: distances in mm between voxel centres of the surfaces, axes taken as "
    "perpendicular (not so with a tilted gantry), hd95 the larger of the "
    "two directed 95th percentiles, asd the mean of both directions pooled; infinite where only one has the muscle "
    "(left out of means and counted in n_infinite), undefined where neither has",
    "mean_sd": "over scans, SD with N - 1; overall: of each scan's mean over the muscles with a value",
    "ci": "mean ± 1.96·SD/√N over scans, taken as independent",
    "subject_ci": "95 % percentile bootstrap that resamples subjects with all their scans; null for one subject",
}
"""What the numbers mean, written beside them."""


def _statistics(values: Floats, subjects: Sequence[Hashable], n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Mean, SD, interval and number of the finite ones of (scans,) values."""
    finite = np.where(np.isfinite(values), values, np.nan)
    mean, _, count = mean_ci(finite)
    sd = float(np.nanstd(finite, ddof=1)) if count > 1 else None
    interval = cluster_bootstrap_ci(finite, subjects, n=n_bootstrap, seed=seed)
    return {"mean": mean, "sd": sd, "subject_ci": interval, "n": count}


def _counts(values: Floats, measure: str) -> dict[str, int]:
    """How many values are undefined, and of distances how many infinite."""
    counts = {"n_undefined": int(np.isnan(values).sum())}
    if measure.endswith("_mm"):
        counts["n_infinite"] = int(np.isinf(values).sum())
    return counts


def mean_over_muscles(values: Floats) -> Floats:
    """(rows,) mean over the finite values of (rows, muscles); NaN without any."""
    finite = np.isfinite(values)
    sums = np.where(finite, values, 0.0).sum(axis=1)
    return np.where(finite.any(axis=1), sums / np.maximum(finite.sum(axis=1), 1), np.nan)


def summarise_muscles(
    values: Floats,
    subjects: Sequence[Hashable],
    muscles: Sequence[str],
    measures: Sequence[str],
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Sum up the scores of one or more scans.

    Args:
        values: (scans, muscles, measures); NaN undefined, inf a distance to nothing.
        subjects: (scans,) subject of each scan.
        muscles: names of the muscles.
        measures: names of the measures; `dice`, `volume_ml` and `truth_volume_ml` are among them.
        n_bootstrap: resamples of the subject-level bootstrap.
        seed: its seed.

    Returns:
        The entry described at the top of this module.
    """

    def entry(table: Floats, raw: Floats, measure: str) -> dict[str, Any]:
        return {**_statistics(table, subjects, n_bootstrap, seed), **_counts(raw, measure)}

    by_muscle: dict[str, dict[str, Any]] = {}
    for m, muscle in enumerate(muscles):
        by_muscle[muscle] = {name: entry(values[:, m, i], values[:, m, i], name) for i, name in enumerate(measures)}
        for name, key in (("truth_volume_ml", "n_absent_truth"), ("volume_ml", "n_absent_prediction")):
            by_muscle[muscle][key] = int((values[:, m, measures.index(name)] == 0).sum())
    overall = {
        name: entry(mean_over_muscles(values[:, :, i]), values[:, :, i], name) for i, name in enumerate(measures)
    }
    row_means = mean_ci(mean_over_muscles(values[:, :, measures.index("dice")]))
    return {
        "mean": row_means.mean,
        "ci": row_means.ci,
        "subject_ci": overall["dice"]["subject_ci"],
        "n": row_means.n,
        "n_scans": len(values),
        "n_subjects": len(set(subjects)),
        "dice": {muscle: by_muscle[muscle]["dice"]["mean"] for muscle in muscles},
        "muscles": by_muscle,
        "overall": overall,
    }
