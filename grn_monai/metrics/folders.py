"""Score a folder of label volumes against a cohort's truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.labels import NUM_CLASSES
from grn_monai.metrics.evaluation import LayerEvaluation
from grn_monai.metrics.overlap import PLANE_AXES

__all__ = ["FolderEvaluation", "evaluate_folders", "find_prediction"]


@dataclass
class FolderEvaluation:
    """Outcome of `evaluate_folders`.

    Attributes:
        summary: as `LayerEvaluation.summary`.
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


def _score_item(
    evaluation: LayerEvaluation,
    item: dict[str, Any],
    path: Path,
    kind: str,
    slices: bool,
    orient: Callable[[Any], Any],
) -> None:
    from grn_monai.data.names import item_names
    from grn_monai.data.pairs import open_scan

    truth = open_scan(item["label"], orient, labels=NUM_CLASSES)
    predictions: dict[str, Any] = {kind: truth.labels(path)}
    if slices:
        predictions["slice"] = dict.fromkeys(PLANE_AXES, predictions[kind])
    subject, scan = item_names(item)
    evaluation.add(subject, scan, truth.values, predictions, truth.spacing_mm)


def evaluate_folders(
    cohort: str | PathLike[str],
    predictions_dir: str | PathLike[str],
    out_dir: str | PathLike[str],
    section: str = "test",
    kind: str = "decoded",
    slices: bool = False,
    suffix: str = "_seg",
    seed: int = 0,
    depth_axis: int | str = 2,
    depth_reversed: bool = False,
    progress: Callable[[Iterable[dict[str, Any]]], Iterable[dict[str, Any]]] | None = None,
) -> FolderEvaluation:
    """Score the label volumes of a folder against the truth of a cohort's section, and write the result files.

    A scan that cannot be scored is listed with its reason, and the others go on.

    Args:
        cohort: cohort folder or its JSON file (also one that `python -m data_prep split` wrote).
        predictions_dir: folder of label volumes, see `find_prediction`.
        out_dir: gets `metrics.json`, `scans.csv` and `slices.csv`.
        section: "training", "validation" or "test".
        kind: what the volumes are, "decoded" (after the ordered-layer decode) or "volume" (argmax); only names
            the rows.
        slices: also score every slice of both planes of the volumes, as the papers score slices.
        suffix: what follows the scan's name in the file names.
        seed: seed of the bootstrap.
        depth_axis: where depth runs in the files, see `grn_monai.transforms.DepthLast`.
        depth_reversed: whether depth decreases along that axis.
        progress: wraps the list of items, for a progress bar.

    Returns:
        The summary, the scans scored and the failures.

    Raises:
        InputError: for a missing folder, a faulty cohort, or when no scan at all could be scored.
    """
    from grn_monai.data.cohort import datalist
    from grn_monai.data.names import check_file_names
    from grn_monai.transforms import DepthLast

    folder = Path(predictions_dir)
    if not folder.is_dir():
        raise InputError(folder, "no folder", "a folder of label volumes", "Give the folder that inference wrote.")
    if kind not in ("volume", "decoded"):
        raise InputError("kind", repr(kind), "'volume' or 'decoded'", "Choose one of the two.")
    file = Path(cohort)
    dataset_dir, split = (file, "dataset.json") if file.is_dir() else (file.parent, file.name)
    items = datalist(dataset_dir, section, split)
    check_file_names(items)  # two scans would be scored against one prediction
    orient = DepthLast(depth_axis, depth_reversed)
    # The planes of one label volume are that volume again.
    evaluation = LayerEvaluation(plane_volumes=False, seed=seed)
    result = FolderEvaluation({}, [])
    for item in progress(items) if progress else items:
        scan = str(item["scan"])
        try:
            if "label" not in item:
                raise InputError(item["image"], "no label in the cohort", "a true label volume", "Add one.")
            path = find_prediction(folder, item["image"], suffix)
            _score_item(evaluation, item, path, kind, slices, orient)
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
