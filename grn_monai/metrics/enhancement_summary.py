"""Numbers of scans before and after a generator to means, changes and intervals: the content of `enhancement.json`.

* `n_scans`, `n_labelled` (scans with labels), `n_subjects`; `band_mm`, `region_mm`: options of the measurement;
* `l1_percent`: `mean`, `subject_ci`, `n_subjects`, `n_scans`; everything below is left out without labelled scans;
* `layers`: layer name to `mean_percent` and `sd_percent`;
* `regions`: `dark`, `bright`, and `dark_minus_bright`, the difference between the two;
* `boundaries`: boundary name to `cnr`, `gcnr`, `gradient_percent_per_mm`, `sharpness_per_mm` and `prominence`;
  `all_boundaries`: the same of each scan's mean over its boundaries; `inner`: `sharpness_per_mm` within the layers;
* `histograms`: `edges_percent` (65 edges of the bins); `layers`: layer name to `raw` and `enhanced`, voxels of all
  scans in each bin (64).

Each quantity is {`raw`, `enhanced`, `change`, `ratio`, `subject_ci`, `n_subjects`, `n_scans`, `n_missing`}, where
`raw` and `enhanced` are means over the same scans, those that have both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grn_monai.metrics.contrast import BINS, BOUNDARIES
from grn_monai.metrics.statistics import cluster_bootstrap_ci, paired_difference
from grn_monai.metrics.summary import NAMES

if TYPE_CHECKING:
    from grn_monai.metrics.enhancement import ScanEnhancement

__all__ = [
    "BOUNDARY_QUANTITIES",
    "ENHANCEMENT_CONVENTIONS",
    "IMAGES",
    "LAYER_QUANTITIES",
    "QUANTITIES",
    "REGIONS",
    "summarise_enhancement",
]

Floats = npt.NDArray[np.float64]

IMAGES = ("raw", "enhanced")
REGIONS = ("dark", "bright")
LAYER_QUANTITIES = ("mean_percent", "sd_percent")
BOUNDARY_QUANTITIES = ("cnr", "gcnr", "gradient_percent_per_mm", "sharpness_per_mm", "prominence")
QUANTITIES = LAYER_QUANTITIES + BOUNDARY_QUANTITIES

ENHANCEMENT_CONVENTIONS: dict[str, str] = {
    "percent": "echo levels and their changes in percent of the dynamic range: 0 % is −1 (black), 100 % is 1 (white)",
    "l1_percent": "mean over all voxels of |enhanced − raw|",
    "layers": "mean and SD over the voxels of the true layer",
    "regions": "tissue (labels 1–6) by the mean of the raw image in a box of `region_mm`: dark in the lowest quartile "
    "of the scan, bright in the highest. Regions, not voxels: single voxels that are dark by chance turn brighter "
    "under any smoothing",
    "boundaries": "where the next deeper layer follows along depth; on either side a band of `band_mm` (at least 2 "
    "voxels) along depth, clipped to the layer, pooled over the scan",
    "cnr": "|mean above − mean below| / √(variance above + variance below): a linear stretch does not change it, "
    "another change of the grey scale can",
    "gcnr": "1 − overlap of the histograms (64 bins) of the two bands, 0–1: hardly changed by any one-to-one change "
    "of the grey scale (Rodriguez-Molares et al., IEEE TUFFC 67, 2020, 745–759)",
    "gradient_percent_per_mm": "mean |below − above| / voxel depth over the voxel pairs of the boundary",
    "sharpness_per_mm": "gradient / SD of the same image over the tissue: a linear stretch does not change it",
    "inner": "the same between neighbours along depth within the layers, that is of speckle, texture and artefacts",
    "prominence": "gradient at the boundary / gradient within the layers: it rises only where boundaries gain more "
    "than texture does",
    "change": "enhanced − raw; means over subjects, each the mean of its scans; ratio: enhanced / raw of these means; "
    "subject_ci: 95 % percentile bootstrap over subjects of the change, null for one subject",
    "n_missing": "labelled scans without the number: the layer or boundary is absent, or the grey values are constant",
}
"""What the numbers mean, written beside them."""


def _subject_means(values: Floats, subjects: Sequence[str]) -> tuple[list[str], Floats]:
    """Subjects and the mean (subjects, K) of the rows (scans, K) of each."""
    names = list(dict.fromkeys(subjects))
    index = np.array([names.index(subject) for subject in subjects], np.intp)
    means = [values[index == i].mean(axis=0) for i in range(len(names))]
    return names, np.array(means).reshape(len(names), values.shape[1])


def _paired(values: Floats, subjects: Sequence[str], n_bootstrap: int, seed: int) -> dict[str, Any]:
    """One quantity, described at the top of this module, from (scans, 2) raw and enhanced numbers."""
    there: npt.NDArray[np.bool_] = np.isfinite(values[:, 0]) & np.isfinite(values[:, 1])
    names, means = _subject_means(values[there], [s for s, kept in zip(subjects, there, strict=True) if kept])
    change = paired_difference(means[:, 1], means[:, 0], names, n=n_bootstrap, seed=seed)
    raw, enhanced = means.mean(axis=0) if names else (np.nan, np.nan)
    return {
        "raw": raw,
        "enhanced": enhanced,
        "change": change.mean,
        "ratio": enhanced / raw if raw else np.nan,
        "subject_ci": change.subject_ci,
        "n_subjects": len(names),
        "n_scans": int(there.sum()),
        "n_missing": int((~there).sum()),
    }


def _mean_present(values: Floats) -> Floats:
    """Means (scans, 2) over the boundaries (scans, 2, 5) that have a number in both images of the scan."""
    there = np.isfinite(values).all(axis=1, keepdims=True)
    count = there.sum(axis=2)
    total: Floats = np.where(there, values, 0).sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def summarise_enhancement(
    rows: Sequence[ScanEnhancement], histograms: npt.NDArray[np.int64], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Sum up scans.

    Args:
        rows: numbers of the scans.
        histograms: (2, 6, 64) voxels of all scans by image, layer and bin.
        n_bootstrap: resamples of the subject-level bootstrap.
        seed: its seed.

    Returns:
        The entries described at the top of this module, without the options of the measurement.
    """
    labelled = [row for row in rows if row.labelled]
    distances = np.array([row.l1_percent for row in rows])[:, None]
    names, means = _subject_means(distances, [row.subject for row in rows])
    out: dict[str, Any] = {
        "n_scans": len(rows),
        "n_labelled": len(labelled),
        "n_subjects": len(names),
        "l1_percent": {
            "mean": means.mean() if names else np.nan,
            "subject_ci": cluster_bootstrap_ci(means[:, 0], names, n=n_bootstrap, seed=seed),
            "n_subjects": len(names),
            "n_scans": len(rows),
        },
    }
    if not labelled:
        return out
    subjects = [row.subject for row in labelled]

    def stack(name: str) -> Floats:
        """(scans, 2, …) numbers of one attribute."""
        return np.stack([getattr(row, name) for row in labelled])

    def each(values: Floats) -> dict[str, Any]:
        return _paired(values, subjects, n_bootstrap, seed)

    layers = {key: stack(f"layer_{key}") for key in LAYER_QUANTITIES}
    bounds = {key: stack(key) for key in BOUNDARY_QUANTITIES}
    regions = stack("region_mean_percent")
    out["layers"] = {n: {key: each(v[..., i]) for key, v in layers.items()} for i, n in enumerate(NAMES)}
    out["regions"] = {name: each(regions[..., i]) for i, name in enumerate(REGIONS)}
    out["regions"]["dark_minus_bright"] = each(regions[..., 0] - regions[..., 1])
    out["boundaries"] = {n: {key: each(v[..., i]) for key, v in bounds.items()} for i, n in enumerate(BOUNDARIES)}
    out["all_boundaries"] = {key: each(_mean_present(v)) for key, v in bounds.items()}
    out["inner"] = {"sharpness_per_mm": each(stack("inner_sharpness_per_mm"))}
    out["histograms"] = {
        "edges_percent": np.linspace(0, 100, BINS + 1),
        "layers": {name: dict(zip(IMAGES, histograms[:, i], strict=True)) for i, name in enumerate(NAMES)},
    }
    return out
