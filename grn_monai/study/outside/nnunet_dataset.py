"""Write the scans of a study's run in the layout of nnU-Net v2."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from grn_monai.data import check_same_geometry, datalist, read_header, read_volume, scan_name
from grn_monai.data.cohort import load_cohort
from grn_monai.data.names import check_file_names
from grn_monai.files import replacing, write_whole

__all__ = ["DATASET", "IMAGES", "export_dataset"]

DATASET = "Dataset001_Study"
"""Each run has nnU-Net folders of its own, so one identifier serves all."""

IMAGES = {"test": "imagesTs", "validation": "imagesVal"}
"""Section of the cohort to the folder of its scans that are predicted. The second is no name of nnU-Net's."""


def _save(path: Path, volume: Any, dtype: type) -> None:
    """Write a (1, X, Y, Z) volume as NIfTI with its affine (RAS, mm), unless the file is there."""
    if path.is_file():  # files appear whole, so an earlier start has written this one
        return
    image = nib.Nifti1Image(np.asarray(volume[0], dtype=dtype), np.asarray(volume.affine, dtype=np.float64))
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)


def _save_image(folder: Path, item: dict[str, Any]) -> str:
    """Write an item's image as nnU-Net's channel 0, and return the name of the case."""
    name = scan_name(item["image"])
    _save(folder / f"{name}_0000.nii.gz", read_volume(item["image"]), np.float32)
    return name


def export_dataset(
    cohort: str | PathLike[str],
    raw_dir: str | PathLike[str],
    fraction: float = 1.0,
    seed: int = 0,
    sections: tuple[Literal["test", "validation"], ...] = ("test",),
    depth_axis: int | str = 2,
) -> Path:
    """Write a cohort's labelled, validation and test scans as a dataset of nnU-Net v2.

    The labelled scans are those of the bundles' runs of the same fraction and seed. Together with the validation
    scans they make ``imagesTr`` and ``labelsTr``; ``splits_final.json`` keeps the two apart as fold 0, so nnU-Net
    trains on the labelled ones alone. Unlabelled scans are left out. Volumes are copied as plain 3D NIfTI, since
    nnU-Net reads less than `read_volume` does; grids stay as they are. The channel is named after the cohort's
    modality, by which nnU-Net chooses the normalisation: z-score for "US".

    Args:
        cohort: cohort folder or its JSON file.
        raw_dir: nnU-Net's ``nnUNet_raw``.
        fraction: share of the training images that keeps its labels, in (0, 1].
        seed: chooses the subjects that keep them.
        sections: sections whose scans are to be predicted.
        depth_axis: see `grn_monai.data.datalist`.

    Returns:
        The folder of the dataset. Its ``dataset.json`` is written last.

    Raises:
        InputError: anything `datalist` or `read_volume` refuses; a label off its image's grid; file names that clash.
    """
    file = Path(cohort)
    dataset_dir, split = (file, "dataset.json") if file.is_dir() else (file.parent, file.name)
    about, _ = load_cohort(file)
    labelled = datalist(dataset_dir, "training", split, fraction, seed, "subject", depth_axis)
    validation = datalist(dataset_dir, "validation", split)
    predicted = {section: datalist(dataset_dir, section, split) for section in sections}
    check_file_names([*labelled, *validation, *(item for s in sections if s != "validation" for item in predicted[s])])

    folder = Path(raw_dir) / DATASET
    fold: dict[str, list[str]] = {"train": [], "val": []}
    for part, items in (("train", labelled), ("val", validation)):
        for item in items:
            fold[part].append(_save_image(folder / "imagesTr", item))
            label = read_volume(item["label"], kind="label", num_classes=len(about["labels"]))
            check_same_geometry(read_header(item["image"]), label, item["image"], item["label"])
            _save(folder / "labelsTr" / f"{fold[part][-1]}.nii.gz", label, np.uint8)
    for section, items in predicted.items():
        for item in items:
            _save_image(folder / IMAGES[section], item)

    write_whole(folder / "splits_final.json", json.dumps([fold], indent=2) + "\n")
    write_whole(folder / "dataset.json", json.dumps(_about(about, len(labelled) + len(validation)), indent=2) + "\n")
    return folder


def _about(cohort: dict[str, Any], count: int) -> dict[str, Any]:
    """The content of nnU-Net's ``dataset.json``."""
    modality = cohort.get("modality")
    names = {int(value): name for value, name in cohort["labels"].items()}
    labels = {"background": 0, **{names[value]: value for value in sorted(names) if value > 0}}
    return {
        "channel_names": {"0": str(modality["0"]) if isinstance(modality, dict) and "0" in modality else "US"},
        "labels": labels,
        "numTraining": count,
        "file_ending": ".nii.gz",
        # It takes any affine; the default refuses those whose axes are not quite at right angles.
        "overwrite_image_reader_writer": "NibabelIO",
    }
