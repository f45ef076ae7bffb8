"""Thickness error in mm of raw (argmax) and decoded labels on a cohort whose truth is known.

    python -m benchmarks.measurements --cohort COHORT --predictions raw=RUN/argmax decoded=RUN/predictions \
        --out benchmarks/results/measurements.json

Each folder holds label volumes as NAME_seg.nii.gz (bundle inference with `--ordered false` writes the raw ones). For
every layer: bias, mean absolute error and SD of the scan's mean thickness against the truth, and the mean absolute
error of single A-lines; along the A-line and along the surface normal. Differences are prediction − truth over scans;
intervals resample subjects. A scan's mean is over the A-lines on which the layer was found, as a user reads it; single
A-lines count a layer that was not found as 0 mm. A-lines on which the field of view cuts the true layer are left
out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._common import finish, parser
from grn_monai.commands.common import add_depth
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES, LAYERS, NUM_CLASSES
from grn_monai.measure import thickness_map
from grn_monai.measure.layers import cut_lines
from grn_monai.measure.normal import normal_thickness_map
from grn_monai.measure.sources import open_source
from grn_monai.metrics.folders import find_prediction
from grn_monai.metrics.statistics import cluster_bootstrap_ci

MEASURES = ("a_line", "normal")
Row = dict[str, float]


def errors_of_scan(
    prediction: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], spacing: Sequence[float], label: int
) -> Row:
    """Errors of one layer of one scan in mm; NaN where the layer is not in the truth or was not found."""
    seen = ~cut_lines(truth, label, LAYERS)
    volumes = (prediction, truth)
    along = [np.where(seen, thickness_map(labels, label, spacing[2]), np.nan) for labels in volumes]
    across = [normal_thickness_map(labels, label, spacing, seen=seen) for labels in volumes]
    row: Row = {"truth": float("nan")}
    for name, (found, true) in zip(MEASURES, (along, across), strict=True):
        means = []
        for values in (found, true):
            kept = values[np.isfinite(values) & (values > 0)]
            means.append(float(kept.mean()) if kept.size else float("nan"))
        row[f"{name}_error"] = means[0] - means[1]
        row["truth" if name == "a_line" else "truth_normal"] = means[1]
    in_view = np.isfinite(along[1])
    row["a_line_each"] = float(np.abs(along[0] - along[1])[in_view].mean()) if in_view.any() else float("nan")
    both = np.isfinite(across[0]) & np.isfinite(across[1])
    row["normal_each"] = float(np.abs(across[0] - across[1])[both].mean()) if both.any() else float("nan")
    return row


def summarise(rows: Sequence[Row], subjects: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Bias, MAE and SD over scans of each measure, with intervals over subjects."""
    truths = [row["truth"] for row in rows if np.isfinite(row["truth"])]
    out: dict[str, Any] = {"truth_mm": float(np.mean(truths)) if truths else None}
    for name in MEASURES:
        error = np.array([row[f"{name}_error"] for row in rows])
        each = np.array([row[f"{name}_each"] for row in rows])
        known = int(np.isfinite(error).sum())
        if not known:
            out[name] = {"n": 0}
            continue
        out[name] = {
            "n": known,
            "bias_mm": float(np.nanmean(error)),
            "bias_ci": cluster_bootstrap_ci(error, subjects, seed=seed),
            "mae_mm": float(np.nanmean(np.abs(error))),
            "mae_ci": cluster_bootstrap_ci(np.abs(error), subjects, seed=seed),
            "sd_mm": float(np.nanstd(error, ddof=1)) if known > 1 else None,
            "each_a_line_mae_mm": float(np.nanmean(each)) if np.isfinite(each).any() else None,
        }
    return out


def compare(
    cohort: Path, folders: Mapping[str, Path], section: str, depth_axis: int | str, depth_reversed: bool
) -> dict[str, Any]:
    """Errors of all scans; volumes are read one scan at a time."""
    from grn_monai.data.names import item_names
    from grn_monai.data.pairs import open_scan
    from grn_monai.transforms import DepthLast

    source = open_source(cohort, section)
    orient = DepthLast(depth_axis, depth_reversed)
    rows: dict[str, dict[int, list[Row]]] = {name: {label: [] for label in LAYERS} for name in folders}
    subjects: list[str] = []
    failures: dict[str, str] = {}
    for item in source.items:
        subject, scan = item_names(item)
        try:
            truth = open_scan(item["label"], orient, labels=NUM_CLASSES)
            found = {name: truth.labels(find_prediction(folder, item["image"])) for name, folder in folders.items()}
        except (KeyError, ValueError, OSError) as error:
            failures[scan] = str(error)
            continue
        subjects.append(subject)
        for name, labels in found.items():
            for label in LAYERS:
                rows[name][label].append(errors_of_scan(labels, truth.values, truth.spacing_mm, label))
    if not subjects:
        raise InputError(cohort, "no scan with truth and predictions", "at least one", f"Failures: {failures}")
    layers = {
        name: {LAYER_NAMES[label]: summarise(group, subjects) for label, group in by_label.items()}
        for name, by_label in rows.items()
    }
    return {
        "benchmark": "measurements",
        "simulated": source.simulated,
        "section": section,
        "scans": len(subjects),
        "subjects": len(set(subjects)),
        "layers": layers,
        "mean_above_muscle": {name: _over_layers(by_layer) for name, by_layer in layers.items()},
        "failures": failures,
    }


def _over_layers(by_layer: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Mean over the layers above the muscle, which the field of view cuts nearly everywhere."""
    out = {}
    above = [by_layer[LAYER_NAMES[label]] for label in LAYERS[:-1]]
    for measure in MEASURES:
        known = [layer[measure] for layer in above if layer[measure]["n"]]
        keys = ("mae_mm", "each_a_line_mae_mm")
        out[measure] = {key: float(np.mean([part[key] for part in known])) for key in keys} if known else {}
    return out


def _folder(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not name=folder of an existing folder")
    return name, Path(path)


def main() -> None:
    """Run the comparison."""
    p = parser(__doc__)
    p.add_argument("--cohort", type=Path, required=True, help="cohort folder or JSON file with true labels")
    p.add_argument("--predictions", type=_folder, nargs="+", required=True, metavar="NAME=FOLDER")
    p.add_argument("--section", default="test", help="section of the cohort (default test)")
    add_depth(p)
    args = p.parse_args()
    start = time.perf_counter()
    depth_axis = 2 if args.depth_axis is None else args.depth_axis
    result = compare(args.cohort, dict(args.predictions), args.section, depth_axis, bool(args.depth_reversed))
    finish({**result, "seconds": time.perf_counter() - start}, args.out)


if __name__ == "__main__":
    main()
