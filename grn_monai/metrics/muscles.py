"""Score muscle segmentations scan by scan: any label set, the measures of the paraspinal MRI study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.files import write_whole
from grn_monai.metrics.files import csv_text, json_text
from grn_monai.metrics.inputs import as_labels, check_spacing, new_key
from grn_monai.metrics.muscle_summary import MUSCLE_CONVENTIONS, summarise_muscles
from grn_monai.metrics.overlap import joint_counts
from grn_monai.metrics.surface import surface_scores

__all__ = ["MUSCLE_COLUMNS", "MUSCLE_MEASURES", "MuscleEvaluation", "MuscleScores", "foreground", "overlap_scores"]

Floats = npt.NDArray[np.float64]

MUSCLE_MEASURES: tuple[str, ...] = (
    "dice",
    "jaccard",
    "conformity",
    "tpr",
    "tnr",
    "ppv",
    "volume_ratio",
    "volume_ml",
    "truth_volume_ml",
    "hd95_mm",
    "asd_mm",
)
"""The measures of one muscle in one scan, in the order of the tables."""

MUSCLE_COLUMNS: tuple[str, ...] = ("subject", "scan", "muscle", *MUSCLE_MEASURES)
"""The columns of `muscles.csv`."""


@dataclass(frozen=True)
class MuscleScores:
    """Scores of one label volume: `values` (muscles, measures) in the order of the labels and `MUSCLE_MEASURES`.

    NaN where a measure is undefined, or was not asked for; inf for a distance to nothing.
    """

    subject: str
    scan: str
    values: Floats


def foreground(labels: Mapping[Any, str]) -> dict[int, str]:
    """Label value to name without the background, by value; keys may be text, as JSON files have them.

    Raises:
        ValueError: no label above 0, a value below 0, or two labels of one name.
    """
    named = {int(value): str(name) for value, name in labels.items()}
    muscles = {value: named[value] for value in sorted(named) if value != 0}
    if not muscles or min(muscles) < 0 or len(set(muscles.values())) < len(muscles):
        msg = f"labels must map values from 1 on to names that differ, got {dict(labels)!r}"
        raise ValueError(msg)
    return muscles


def overlap_scores(counts: npt.NDArray[np.int64], labels: Sequence[int]) -> dict[str, Floats]:
    """Overlap measures of each label from the joint counts of one volume (Sci Rep 2022, paraspinal MRI).

    Args:
        counts: (C, C), [truth label, predicted label], of `joint_counts`.
        labels: labels to score, each against everything else.

    Returns:
        Measure to (len(labels),): `dice` 2TP/(2TP+FP+FN), `jaccard` TP/(TP+FP+FN), `conformity` 1 − (FP+FN)/TP,
        `tpr` TP/(TP+FN), `tnr` TN/(TN+FP), `ppv` TP/(TP+FP), `volume_ratio` (TP+FP)/(TP+FN). NaN where the
        denominator is 0.
    """
    chosen = list(labels)
    tp = np.diagonal(counts)[chosen].astype(np.float64)
    fp = counts.sum(axis=0)[chosen] - tp
    fn = counts.sum(axis=1)[chosen] - tp
    tn = counts.sum() - tp - fp - fn

    def ratio(above: Floats, below: Floats) -> Floats:
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "jaccard": ratio(tp, tp + fp + fn),
        "conformity": 1 - ratio(fp + fn, tp),
        "tpr": ratio(tp, tp + fn),
        "tnr": ratio(tn, tn + fp),
        "ppv": ratio(tp, tp + fp),
        "volume_ratio": ratio(tp + fp, tp + fn),
    }


class MuscleEvaluation:
    """Collects the scores of test scans and sums them up. Only rows are kept, so memory does not grow with voxels.

    Args:
        labels: label value to name, such as `grn_monai.labels.MRI_MUSCLES`; 0 is the background. Values may be text.
        surface_distances: also compute HD95 and ASD (most of the time of an evaluation).
        n_bootstrap: resamples of the subject-level bootstrap.
        seed: seed of the bootstrap.

    Raises:
        ValueError: `labels` names no muscle, or two alike.

    Example:
        >>> evaluation = MuscleEvaluation({0: "background", 1: "lumbar muscle"})
        >>> evaluation.add("s01", "s01", prediction, truth, (1.4, 1.4, 5.0))  # doctest: +SKIP
        >>> evaluation.summary()["volume"]["mean"]  # doctest: +SKIP
    """

    def __init__(
        self, labels: Mapping[Any, str], surface_distances: bool = True, n_bootstrap: int = 2000, seed: int = 0
    ) -> None:
        self.labels = foreground(labels)
        self.surface_distances = surface_distances
        self.n_bootstrap = n_bootstrap
        self.seed = seed
        self.scans: list[MuscleScores] = []
        self._seen: set[tuple[str, str]] = set()

    def reset(self) -> None:
        """Forget all scans, to start another evaluation."""
        self.scans.clear()
        self._seen.clear()

    def add(
        self,
        subject: str,
        scan: str,
        prediction: Any,
        truth: Any,
        spacing_mm: Sequence[float],
        voxel_ml: float | None = None,
    ) -> None:
        """Score one scan.

        Args:
            subject: subject of the scan; rows of one subject are resampled together.
            scan: name of the scan, unique within the subject.
            prediction: (X, Y, Z) or (1, X, Y, Z) predicted labels; array or CPU tensor.
            truth: true labels, same shape.
            spacing_mm: voxel size along X, Y and Z in mm.
            voxel_ml: volume of a voxel in ml, |det| of its affine / 1000; None: the product of the spacings, which is
                too much where the axes are not perpendicular (a CT with tilted gantry).

        Raises:
            ValueError: for a scan added before, shapes that differ, a label without a name, or a bad spacing or volume.
                Nothing is kept of a scan that raises.
        """
        key = new_key(subject, scan, self._seen)
        check_spacing(spacing_mm, "spacing_mm")
        if voxel_ml is None:
            voxel_ml = float(np.prod(spacing_mm)) / 1000
        if not (np.isfinite(voxel_ml) and voxel_ml > 0):
            msg = f"voxel_ml must be a positive number in ml, got {voxel_ml!r}"
            raise ValueError(msg)
        pred, true = as_labels(prediction, "the prediction"), as_labels(truth, "the truth")
        values = list(self.labels)
        counts = joint_counts(pred, true, num_classes=max(values) + 1)[0]
        for what, axis in (("truth", 1), ("prediction", 0)):
            unnamed = sorted(set(np.flatnonzero(counts.sum(axis=axis)).tolist()) - {0, *values})
            if unnamed:
                msg = f"the {what} holds the labels {unnamed}, which have no name; named are {values}"
                raise ValueError(msg)
        scores = overlap_scores(counts, values)
        scores["volume_ml"] = counts.sum(axis=0)[values] * voxel_ml
        scores["truth_volume_ml"] = counts.sum(axis=1)[values] * voxel_ml
        distances = np.full((len(values), 2), np.nan)
        if self.surface_distances:
            distances = np.array(list(surface_scores(pred, true, spacing_mm, values).values()))
        scores["hd95_mm"], scores["asd_mm"] = distances.T
        self._seen.add(key)
        self.scans.append(MuscleScores(*key, np.stack([scores[name] for name in MUSCLE_MEASURES], axis=1)))

    def summary(self) -> dict[str, Any]:
        """Means, SD, intervals and counts of everything added so far: `{"volume": …}`, empty without scans.

        See `grn_monai.metrics.muscle_summary` for what it holds.
        """
        if not self.scans:
            return {}
        measures = MUSCLE_MEASURES if self.surface_distances else MUSCLE_MEASURES[:-2]
        values = np.stack([row.values[:, : len(measures)] for row in self.scans])
        subjects = [row.subject for row in self.scans]
        muscles = list(self.labels.values())
        return {"volume": summarise_muscles(values, subjects, muscles, measures, self.n_bootstrap, self.seed)}

    def write(self, folder: str | PathLike[str]) -> Path:
        """Write `metrics.json` (the summary) and `muscles.csv` (a row for each scan and muscle), each whole or not.

        Args:
            folder: made if missing.

        Returns:
            The folder.
        """
        target = Path(folder)
        rows = (
            (row.subject, row.scan, muscle, *values)
            for row in self.scans
            for muscle, values in zip(self.labels.values(), row.values, strict=True)
        )
        write_whole(target / "muscles.csv", csv_text(MUSCLE_COLUMNS, rows))
        content = {"conventions": MUSCLE_CONVENTIONS, "labels": self.labels, **self.summary()}
        write_whole(target / "metrics.json", json_text(content))
        return target
