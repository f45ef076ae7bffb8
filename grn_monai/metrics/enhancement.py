"""What a generator does to scans: echo levels, dark regions, and contrast and sharpness of the layer boundaries.

Everything is measured twice on the same voxels, in the raw and in the enhanced image. The claims that these numbers
test (dark regions get brighter, boundaries sharper) are those of "GRN" (arXiv 2501.17690) and "GRN+".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.files import write_whole
from grn_monai.labels import LAYERS, NUM_CLASSES
from grn_monai.metrics.contrast import (
    BINS,
    BOUNDARIES,
    boundary_scores,
    dark_and_bright,
    l1_percent,
    layer_levels,
    mean_percent,
)
from grn_monai.metrics.enhancement_summary import (
    BOUNDARY_QUANTITIES,
    ENHANCEMENT_CONVENTIONS,
    IMAGES,
    QUANTITIES,
    REGIONS,
    summarise_enhancement,
)
from grn_monai.metrics.files import csv_text, json_text
from grn_monai.metrics.inputs import check_spacing, new_key
from grn_monai.metrics.summary import NAMES

__all__ = ["ENHANCEMENT_COLUMNS", "EnhancementMeasure", "ScanEnhancement"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

ENHANCEMENT_COLUMNS: tuple[str, ...] = (
    *("subject", "scan", "kind", "name", "voxels", "l1_percent"),
    *(f"{image}_{quantity}" for quantity in QUANTITIES for image in IMAGES),
)
"""Columns of `enhancement.csv`; kind is scan, layer, region, boundary or inner; what does not apply is empty."""


@dataclass(frozen=True)
class ScanEnhancement:
    """Numbers of one scan. The first axis of length 2 is raw, enhanced; NaN where the scan has no such thing.

    Attributes:
        subject: subject of the scan.
        scan: name of the scan.
        labelled: whether it came with labels; without, only `voxels` and `l1_percent` are numbers.
        voxels: voxels of the scan.
        l1_percent: mean |enhanced − raw|.
        layer_voxels: (6,) voxels of each layer.
        layer_mean_percent: (2, 6) mean echo level of each layer.
        layer_sd_percent: (2, 6) its SD.
        region_mean_percent: (2, 2) mean echo level of the dark and of the bright regions.
        boundary_voxels: (5,) voxel pairs of each boundary.
        cnr: (2, 5) contrast-to-noise ratio across each boundary.
        gcnr: (2, 5) generalised contrast-to-noise ratio.
        gradient_percent_per_mm: (2, 5) mean absolute depth gradient at each boundary.
        sharpness_per_mm: (2, 5) the same in SDs of the image's tissue.
        prominence: (2, 5) gradient at each boundary over that between neighbours along depth within the layers.
        inner_sharpness_per_mm: (2,) the gradient within the layers in SDs of the image's tissue.
    """

    subject: str
    scan: str
    labelled: bool
    voxels: int
    l1_percent: float
    layer_voxels: Counts
    layer_mean_percent: Floats
    layer_sd_percent: Floats
    region_mean_percent: Floats
    boundary_voxels: Counts
    cnr: Floats
    gcnr: Floats
    gradient_percent_per_mm: Floats
    sharpness_per_mm: Floats
    prominence: Floats
    inner_sharpness_per_mm: Floats

    def cells(self) -> Iterator[tuple[Any, ...]]:
        """The rows of the scan in `enhancement.csv`."""

        def row(kind: str, name: str, voxels: int | str, l1: float | str = "", **pairs: Floats) -> tuple[Any, ...]:
            values = (pairs[quantity][i] if quantity in pairs else "" for quantity in QUANTITIES for i in range(2))
            return (self.subject, self.scan, kind, name.replace(" ", "_"), voxels, l1, *values)

        yield row("scan", "all", self.voxels, self.l1_percent)
        if not self.labelled:
            return
        for i, name in enumerate(NAMES):
            mean, sd = self.layer_mean_percent[:, i], self.layer_sd_percent[:, i]
            yield row("layer", name, int(self.layer_voxels[i]), mean_percent=mean, sd_percent=sd)
        for i, name in enumerate(REGIONS):
            yield row("region", name, "", mean_percent=self.region_mean_percent[:, i])
        for i, name in enumerate(BOUNDARIES):
            pairs = {key: getattr(self, key)[:, i] for key in BOUNDARY_QUANTITIES}
            yield row("boundary", name.replace(" | ", "|"), int(self.boundary_voxels[i]), **pairs)
        yield row("inner", "layers", "", sharpness_per_mm=self.inner_sharpness_per_mm)


def _nonzero(values: Floats) -> Floats:
    """NaN for what is zero up to rounding: an image without variance has no sharpness."""
    return np.where(values > 1e-4, values, np.nan)


class EnhancementMeasure:
    """Collects what a generator did to scans and sums it up.

    Only numbers of each scan and the histograms summed over scans are kept, so memory does not grow with voxels.

    Args:
        band_mm: thickness in mm of the bands on either side of a boundary.
        region_mm: edge in mm of the box over which echo levels are averaged to call a region dark or bright.
        n_bootstrap: resamples of the subject-level bootstrap.
        seed: seed of the bootstrap.

    Raises:
        ValueError: for a band or box that is not positive.

    Example:
        >>> measure = EnhancementMeasure()
        >>> measure.add("s01", "s01_left", raw, enhanced, labels, (0.2, 0.2, 0.15))  # doctest: +SKIP
        >>> measure.summary()["boundaries"]["deep fascial membrane | muscle"]["cnr"]["change"]  # doctest: +SKIP
    """

    def __init__(self, band_mm: float = 1.0, region_mm: float = 2.0, n_bootstrap: int = 2000, seed: int = 0) -> None:
        if not (band_mm > 0 and region_mm > 0):
            msg = f"band_mm and region_mm must be above 0, got {band_mm} and {region_mm}"
            raise ValueError(msg)
        self.band_mm, self.region_mm = band_mm, region_mm
        self.n_bootstrap, self.seed = n_bootstrap, seed
        self.reset()

    def reset(self) -> None:
        """Forget all scans, to start another evaluation."""
        self.scans: list[ScanEnhancement] = []
        self.histograms: Counts = np.zeros((2, len(LAYERS), BINS), np.int64)
        self._seen: set[tuple[str, str]] = set()

    def add(
        self, subject: str, scan: str, raw: Any, enhanced: Any, labels: Any | None, spacing: Sequence[float]
    ) -> ScanEnhancement:
        """Measure one scan.

        Args:
            subject: subject of the scan; subjects are what the bootstrap resamples.
            scan: name of the scan, unique within the subject.
            raw: (X, Y, Z) echo levels in [−1, 1], Z = depth; array or CPU tensor.
            enhanced: what the generator made of it, same shape and range.
            labels: true labels 0–6, same shape; None: only the L1 distance is measured.
            spacing: voxel size (X, Y, Z) in mm.

        Returns:
            The numbers of the scan.

        Raises:
            ValueError: for a scan added before, shapes that differ, labels outside 0–6 or a bad spacing. Nothing is
                kept of a scan that raises.
        """
        key = new_key(subject, scan, self._seen)
        check_spacing(spacing)
        images = [np.asarray(image) for image in (raw, enhanced)]
        truth = None if labels is None else np.asarray(labels)
        shapes = {volume.shape for volume in (*images, *([] if truth is None else [truth]))}
        if len(shapes) != 1 or images[0].ndim != 3:
            msg = f"raw, enhanced and labels must have one shape (X, Y, Z), got {sorted(shapes)}"
            raise ValueError(msg)
        if truth is not None and (truth.dtype.kind not in "iub" or truth.min() < 0 or truth.max() >= NUM_CLASSES):
            msg = f"labels must be whole numbers 0–{NUM_CLASSES - 1}, got {truth.dtype} {truth.min()}..{truth.max()}"
            raise ValueError(msg)
        row, histograms = self._measure(key, images, None if truth is None else truth.astype(np.uint8), spacing)
        self._seen.add(key)
        self.scans.append(row)
        self.histograms += histograms
        return row

    def _measure(
        self,
        key: tuple[str, str],
        images: Sequence[npt.NDArray[Any]],
        labels: npt.NDArray[np.uint8] | None,
        spacing: Sequence[float],
    ) -> tuple[ScanEnhancement, Counts]:
        """Numbers and histograms (2, 6, 64) of one scan."""
        size, l1 = images[0].size, l1_percent(images[1], images[0])
        if labels is None:
            by_layer, by_boundary = np.full((2, len(LAYERS)), np.nan), np.full((2, len(BOUNDARIES)), np.nan)
            none: list[Any] = [np.zeros(len(LAYERS), np.int64), by_layer, by_layer, np.full((2, 2), np.nan)]
            none += [np.zeros(len(BOUNDARIES), np.int64), *[by_boundary] * len(BOUNDARY_QUANTITIES), np.full(2, np.nan)]
            return ScanEnhancement(*key, False, size, l1, *none), np.zeros_like(self.histograms)
        levels = [layer_levels(image, labels) for image in images]
        tissue_sd = _nonzero(np.array([level.tissue_sd_percent for level in levels]))
        regions = dark_and_bright(images[0], labels > 0, spacing, self.region_mm)
        bounds = boundary_scores(images, labels, spacing[2], self.band_mm)
        gradient = np.stack([scores.gradient_percent_per_mm for scores in bounds])
        inner = np.array([scores.inner_gradient_percent_per_mm for scores in bounds])
        row = ScanEnhancement(
            *key,
            labelled=True,
            voxels=size,
            l1_percent=l1,
            layer_voxels=levels[0].voxels,
            layer_mean_percent=np.stack([level.mean_percent for level in levels]),
            layer_sd_percent=np.stack([level.sd_percent for level in levels]),
            region_mean_percent=np.array([[mean_percent(image[region]) for region in regions] for image in images]),
            boundary_voxels=bounds[0].voxels,
            cnr=np.stack([scores.cnr for scores in bounds]),
            gcnr=np.stack([scores.gcnr for scores in bounds]),
            gradient_percent_per_mm=gradient,
            sharpness_per_mm=gradient / tissue_sd[:, None],
            prominence=gradient / _nonzero(inner)[:, None],
            inner_sharpness_per_mm=inner / tissue_sd,
        )
        return row, np.stack([level.histograms for level in levels])

    def summary(self) -> dict[str, Any]:
        """Means over subjects and paired changes, as `grn_monai.metrics.enhancement_summary` describes them."""
        options = {"band_mm": self.band_mm, "region_mm": self.region_mm}
        return options | summarise_enhancement(self.scans, self.histograms, self.n_bootstrap, self.seed)

    def write(self, folder: str | PathLike[str], **more: Any) -> Path:
        """Write `enhancement.json` (the summary) and `enhancement.csv`, each whole or not at all.

        Args:
            folder: made if missing.
            more: further entries of the JSON file.

        Returns:
            The folder.
        """
        target = Path(folder)
        rows = (cells for row in self.scans for cells in row.cells())
        write_whole(target / "enhancement.csv", csv_text(ENHANCEMENT_COLUMNS, rows))
        content = {"conventions": ENHANCEMENT_CONVENTIONS, **self.summary(), **more}
        write_whole(target / "enhancement.json", json_text(content))
        return target
