"""Score layer segmentations scan by scan, and keep the rows that every table of the report comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.files import write_whole
from grn_monai.labels import LAYERS
from grn_monai.measure.thickness import thickness_map
from grn_monai.metrics.files import csv_text, json_text
from grn_monai.metrics.inputs import as_labels, check_spacing, new_key
from grn_monai.metrics.overlap import PLANE_AXES, dice_from_counts, joint_counts
from grn_monai.metrics.summary import CONVENTIONS, LAYER_KEYS, summarise_scans, summarise_slices
from grn_monai.metrics.surface import surface_scores

__all__ = ["SCAN_COLUMNS", "SLICE_COLUMNS", "LayerEvaluation", "ScanScores", "SliceScores", "as_labels"]

Floats = npt.NDArray[np.float64]

SLICE_COLUMNS = ("subject", "scan", "plane", "index", *(f"dice_{key}" for key in LAYER_KEYS), "dice_mean")
SCAN_COLUMNS = (
    "subject",
    "scan",
    "kind",
    "layer",
    "in_truth",
    "dice",
    "hd95_mm",
    "asd_mm",
    "thickness_error_mm",
    "mean_thickness_error_mm",
    "truth_thickness_mm",
)


@dataclass(frozen=True)
class SliceScores:
    """Scores of the slices of one scan in one plane: `dice` (N, 6) fractions, `in_truth` (N, 6) bool."""

    subject: str
    scan: str
    plane: str
    dice: Floats
    in_truth: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ScanScores:
    """Scores of one label volume of one scan; every array has shape (6,), superficial to deep.

    Attributes:
        subject: subject of the scan.
        scan: name of the scan.
        kind: "volume", "decoded", "sagittal" or "transverse".
        dice: fractions 0–1, an absent layer scores 1 if predicted absent, else 0.
        in_truth: whether the truth holds the layer.
        hd95_mm: 95 % Hausdorff distance; inf where only one of the two has the layer, NaN where neither has, or
            where distances were not asked for.
        asd_mm: symmetric mean surface distance, inf and NaN likewise.
        thickness_error_mm: mean over A-lines of |predicted − true| thickness.
        mean_thickness_error_mm: predicted − true mean thickness over the A-lines (signed).
        truth_thickness_mm: true mean thickness over the A-lines.
    """

    subject: str
    scan: str
    kind: str
    dice: Floats
    in_truth: npt.NDArray[np.bool_]
    hd95_mm: Floats
    asd_mm: Floats
    thickness_error_mm: Floats
    mean_thickness_error_mm: Floats
    truth_thickness_mm: Floats


class LayerEvaluation:
    """Collects the scores of test scans and sums them up. Only rows are kept, so memory does not grow with voxels.

    Args:
        surface_distances: also compute HD95 and ASD (most of the time of an evaluation).
        plane_volumes: also score the slices of each plane, stacked, as a volume of their own (Dice and thickness).
        n_bootstrap: resamples of the subject-level bootstrap.
        seed: seed of the bootstrap.
        plane_surfaces: also compute HD95 and ASD of the planes' volumes, which doubles the time.

    Example:
        >>> evaluation = LayerEvaluation()
        >>> evaluation.add("s01", "s01_left", truth, {"decoded": labels}, (0.2, 0.2, 0.15))  # doctest: +SKIP
        >>> evaluation.summary()["decoded"]["mean"]  # doctest: +SKIP
    """

    def __init__(
        self,
        surface_distances: bool = True,
        plane_volumes: bool = True,
        n_bootstrap: int = 2000,
        seed: int = 0,
        plane_surfaces: bool = False,
    ) -> None:
        self.surface_distances = surface_distances
        self.plane_volumes = plane_volumes
        self.n_bootstrap = n_bootstrap
        self.seed = seed
        self.plane_surfaces = plane_surfaces
        self.slices: list[SliceScores] = []
        self.scans: list[ScanScores] = []
        self._seen: set[tuple[str, str]] = set()

    def reset(self) -> None:
        """Forget all scans, to start another evaluation."""
        self.slices.clear()
        self.scans.clear()
        self._seen.clear()

    def add(
        self, subject: str, scan: str, truth: Any, predictions: Mapping[str, Any], spacing: Sequence[float]
    ) -> None:
        """Score one scan.

        Args:
            subject: subject of the scan; rows of one subject are resampled together.
            scan: name of the scan, unique within the subject.
            truth: (X, Y, Z) or (1, X, Y, Z) true labels 0–6, Z = depth; array or CPU tensor.
            predictions: any of "slice": {"sagittal": labels, "transverse": labels}, the per-slice argmax of
                each plane stacked to a volume; "volume": labels of the fused probabilities; "decoded": labels
                after the ordered-layer decode. All of the shape of `truth`.
            spacing: voxel size (X, Y, Z) in mm.

        Raises:
            ValueError: for a scan added before, unknown or no predictions, shapes that differ, labels outside
                0–6 or a bad spacing. Nothing is kept of a scan that raises.
        """
        key = new_key(subject, scan, self._seen)
        unknown = sorted(set(predictions) - {"slice", "volume", "decoded"})
        planes: Mapping[str, Any] = predictions.get("slice") or {}
        unknown += sorted(set(planes) - set(PLANE_AXES))
        if unknown or not predictions:
            msg = f"predictions must be of 'slice' (by plane), 'volume', 'decoded'; got {unknown or 'none'}"
            raise ValueError(msg)
        check_spacing(spacing)

        true = as_labels(truth, "truth")
        true_maps = [thickness_map(true, label, spacing[2]) for label in LAYERS]
        slices, scans = [], []
        for plane, volume in planes.items():
            pred = as_labels(volume, f"the {plane} prediction")
            counts = joint_counts(pred, true, PLANE_AXES[plane])
            in_truth = counts.sum(axis=-1)[:, list(LAYERS)] > 0
            slices.append(SliceScores(*key, plane, dice_from_counts(counts), in_truth))
            if self.plane_volumes:
                scans.append(self._score(key, plane, pred, true, true_maps, spacing, counts))
        for kind in ("volume", "decoded"):
            if kind in predictions:
                pred = as_labels(predictions[kind], f"the {kind} prediction")
                counts = joint_counts(pred, true)
                scans.append(self._score(key, kind, pred, true, true_maps, spacing, counts))
        self._seen.add(key)
        self.slices.extend(slices)
        self.scans.extend(scans)

    def _has_surfaces(self, kind: str) -> bool:
        return self.surface_distances and (self.plane_surfaces or kind not in PLANE_AXES)

    def _score(
        self,
        key: tuple[str, str],
        kind: str,
        pred: npt.NDArray[np.integer],
        truth: npt.NDArray[np.integer],
        true_maps: list[npt.NDArray[np.float32]],
        spacing: Sequence[float],
        counts: npt.NDArray[np.int64],
    ) -> ScanScores:
        """Scores of one label volume; `counts` are its joint counts, of one or of all slices."""
        whole = counts.sum(axis=0, keepdims=True)
        if self._has_surfaces(kind):
            distances = np.array(list(surface_scores(pred, truth, spacing).values()))
        else:
            distances = np.full((len(LAYERS), 2), np.nan)
        errors = [
            thickness_map(pred, label, spacing[2]).astype(np.float64) - true_map
            for label, true_map in zip(LAYERS, true_maps, strict=True)
        ]
        return ScanScores(
            *key,
            kind,
            dice=dice_from_counts(whole)[0],
            in_truth=whole[0].sum(axis=-1)[list(LAYERS)] > 0,
            hd95_mm=distances[:, 0],
            asd_mm=distances[:, 1],
            thickness_error_mm=np.array([np.abs(error).mean() for error in errors]),
            mean_thickness_error_mm=np.array([error.mean() for error in errors]),
            truth_thickness_mm=np.array([true_map.mean(dtype=np.float64) for true_map in true_maps]),
        )

    def summary(self) -> dict[str, Any]:
        """Means, intervals and counts of everything added so far.

        Returns:
            One entry for each kind of prediction seen, of "slice", "volume", "decoded", "sagittal" and
            "transverse"; see `grn_monai.metrics.summary` for what each holds. Dice are fractions 0–1.
        """
        out: dict[str, Any] = {}
        if self.slices:
            out["slice"] = summarise_slices(self.slices, self.n_bootstrap, self.seed)
        for kind in ("volume", "decoded", *PLANE_AXES):
            rows = [row for row in self.scans if row.kind == kind]
            if rows:
                out[kind] = summarise_scans(rows, self._has_surfaces(kind), self.n_bootstrap, self.seed)
        return out

    def write(self, folder: str | PathLike[str]) -> Path:
        """Write `metrics.json` (the summary), `scans.csv` and `slices.csv`, each whole or not at all.

        Args:
            folder: made if missing.

        Returns:
            The folder.
        """
        target = Path(folder)
        slice_rows = (
            (row.subject, row.scan, row.plane, index, *scores, scores.mean())
            for row in self.slices
            for index, scores in enumerate(row.dice)
        )
        scan_rows = (
            (
                *(row.subject, row.scan, row.kind, layer, int(row.in_truth[i])),
                *(getattr(row, column)[i] for column in SCAN_COLUMNS[5:]),
            )
            for row in self.scans
            for i, layer in enumerate(LAYER_KEYS)
        )
        write_whole(target / "slices.csv", csv_text(SLICE_COLUMNS, slice_rows))
        write_whole(target / "scans.csv", csv_text(SCAN_COLUMNS, scan_rows))
        write_whole(target / "metrics.json", json_text({"conventions": CONVENTIONS, **self.summary()}))
        return target
