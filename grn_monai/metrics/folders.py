"""Score a folder of label volumes against a cohort's truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES, LUMBAR_MUSCLE, NUM_CLASSES
from grn_monai.metrics.evaluation import LayerEvaluation
from grn_monai.metrics.muscles import MuscleEvaluation
from grn_monai.metrics.overlap import PLANE_AXES

__all__ = ["FolderEvaluation", "evaluate_folders", "find_prediction"]


@dataclass
class FolderEvaluation:
    """Outcome of `evaluate_folders`.

    Attributes:
        summary: as `LayerEvaluation.summary`, or of a muscle cohort `MuscleEvaluation.summary`.
        scans: names of the scans that were scored.
        failures: scan name to one line that says what was wrong.
    """

    summary: dict[str, Any]
    scans: list[str]
    failures: dict[str, str] = field(default_factory=dict)


def find_prediction(folder: Path, image: str | PathLike[str], suffix: str = "_seg") -> Path:
    """The label volume of a scan: `STEM_seg.nii.gz`, `STEM.nii.gz`, or either in a folder `STEM` as MONAI saves.

    Args:
        folder: folder of the predictions.
        image: the scan's image file; STEM is its name without the volume extension.
        suffix: what follows STEM in the file name.

    Returns:
        The path of the file.

    Raises:
        InputError: if there is none.
    """
    from grn_monai.data.volume import EXTENSIONS, scan_name

    stem = scan_name(image)
    for base in (folder, folder / stem):
        for name in (stem + suffix, stem):
            for extension in EXTENSIONS:
                if (base / f"{name}{extension}").is_file():
                    return base / f"{name}{extension}"
    raise InputError(
        folder,
        f"no label volume of scan {stem}",
        f"{stem}{suffix}.nii.gz or {stem}.nii.gz",
        "Segment that scan too, or give the folder that holds its labels.",
    )


def _has_layers(labels: Mapping[str, str]) -> bool:
    """Whether a cohort's label values mean what the six layers' do (no label but the background: as ever, layers)."""

    def plain(name: str | None) -> str | None:
        return None if name is None else name.strip().lower().replace("_", " ")

    return all(int(value) == 0 or plain(LAYER_NAMES.get(int(value))) == plain(name) for value, name in labels.items())


Score = Callable[[dict[str, Any], Path], None]
"""Scores an item of the cohort with its label volume."""


def _layer_scores(evaluation: LayerEvaluation, kind: str, slices: bool, orient: Callable[[Any], Any]) -> Score:
    from grn_monai.data.names import item_names
    from grn_monai.data.pairs import open_scan

    def score(item: dict[str, Any], path: Path) -> None:
        truth = open_scan(item["label"], orient, labels=NUM_CLASSES)
        predictions: dict[str, Any] = {kind: truth.labels(path)}
        if slices:
            predictions["slice"] = dict.fromkeys(PLANE_AXES, predictions[kind])
        subject, scan = item_names(item)
        evaluation.add(subject, scan, truth.values, predictions, truth.spacing_mm)

    return score


def _muscle_scores(evaluation: MuscleEvaluation, num_classes: int, one_class: bool) -> Score:
    from grn_monai.data.names import item_names
    from grn_monai.data.pairs import open_scan

    def score(item: dict[str, Any], path: Path) -> None:
        truth = open_scan(item["label"], labels=num_classes)
        pred, true = truth.labels(path, num_classes), truth.values
        if one_class:
            pred, true = pred > 0, true > 0
        subject, scan = item_names(item)
        evaluation.add(subject, scan, pred, true, truth.spacing_mm, voxel_ml=truth.voxel_ml)

    return score


def _refuse_options(file: Path, what: str, given: Mapping[str, Any]) -> None:
    """Raise for options that this cohort's labels have no use for."""
    names = [name for name, value in given.items() if value]
    if names:
        raise InputError(file, f"{what}, with {', '.join(names)}", "options for these labels", "Leave them out.")


def evaluate_folders(
    cohort: str | PathLike[str],
    predictions_dir: str | PathLike[str],
    out_dir: str | PathLike[str],
    section: str = "test",
    kind: str | None = None,
    slices: bool = False,
    suffix: str = "_seg",
    seed: int = 0,
    depth_axis: int | str | None = None,
    depth_reversed: bool = False,
    one_class: bool = False,
    progress: Callable[[Iterable[dict[str, Any]]], Iterable[dict[str, Any]]] | None = None,
) -> FolderEvaluation:
    """Score the label volumes of a folder against the truth of a cohort's section, and write the result files.

    The `labels` of the cohort's file choose the evaluation: `LayerEvaluation` for the six layers, `MuscleEvaluation`
    for any others, on the voxels as they lie in the files. A scan that cannot be scored is listed with its reason,
    and the others go on.

    Args:
        cohort: cohort folder or its JSON file (also one that `python -m data_prep split` wrote).
        predictions_dir: folder of label volumes, see `find_prediction`.
        out_dir: gets `metrics.json` and, of layers, `scans.csv` and `slices.csv`, of muscles `muscles.csv`.
        section: "training", "validation" or "test".
        kind: of layers, what the volumes are, "decoded" (after the ordered-layer decode; default) or "volume"
            (argmax); only names the rows.
        slices: of layers, also score every slice of both planes of the volumes, as the papers score slices.
        suffix: what follows the scan's name in the file names.
        seed: seed of the bootstrap.
        depth_axis: of layers, where depth runs in the files (default 2), see `grn_monai.transforms.DepthLast`.
        depth_reversed: of layers, whether depth decreases along that axis.
        one_class: of muscles, take every label of truth and prediction as one, "lumbar muscle".
        progress: wraps the list of items, for a progress bar.

    Returns:
        The summary, the scans scored and the failures.

    Raises:
        InputError: for a missing folder, a faulty cohort, an option that its labels have no use for, or when no scan
            at all could be scored.
    """
    from grn_monai.data.cohort import datalist, load_cohort
    from grn_monai.data.names import check_file_names

    folder = Path(predictions_dir)
    if not folder.is_dir():
        raise InputError(folder, "no folder", "a folder of label volumes", "Give the folder that inference wrote.")
    if kind not in (None, "volume", "decoded"):
        raise InputError("kind", repr(kind), "'volume' or 'decoded'", "Choose one of the two.")
    file = Path(cohort)
    dataset_dir, split = (file, "dataset.json") if file.is_dir() else (file.parent, file.name)
    items = datalist(dataset_dir, section, split)
    check_file_names(items)  # two scans would be scored against one prediction
    labels = load_cohort(file)[0]["labels"]
    evaluation: LayerEvaluation | MuscleEvaluation
    if _has_layers(labels):
        from grn_monai.transforms import DepthLast

        _refuse_options(file, "the six layers", {"one_class": one_class})
        orient = DepthLast(2 if depth_axis is None else depth_axis, depth_reversed)
        # The planes of one label volume are that volume again.
        evaluation = LayerEvaluation(plane_volumes=False, seed=seed)
        score = _layer_scores(evaluation, kind or "decoded", slices, orient)
    else:
        given = {"kind": kind, "slices": slices, "depth_axis": depth_axis is not None, "depth_reversed": depth_reversed}
        _refuse_options(file, "labels that are not the six layers", given)
        try:
            evaluation = MuscleEvaluation(LUMBAR_MUSCLE if one_class else labels, seed=seed)
        except ValueError as error:
            raise InputError(
                file, f"labels that cannot be scored ({error})", "names that differ", "Mend it."
            ) from error
        score = _muscle_scores(evaluation, 1 + max(map(int, labels)), one_class)
    result = FolderEvaluation({}, [])
    for item in progress(items) if progress else items:
        scan = str(item["scan"])
        try:
            if "label" not in item:
                raise InputError(item["image"], "no label in the cohort", "a true label volume", "Add one.")
            path = find_prediction(folder, item["image"], suffix)
            score(item, path)
        except (ValueError, OSError) as error:  # InputError is a ValueError
            result.failures[scan] = str(error)
        else:
            result.scans.append(scan)
    if not result.scans:
        first = next(iter(result.failures.values()))
        raise InputError(
            folder,
            f"no scan that could be scored ({len(result.failures)} tried)",
            "label volumes of the cohort's scans",
            f"The first failure: {first}",
        )
    evaluation.write(out_dir)
    result.summary = evaluation.summary()
    return result
