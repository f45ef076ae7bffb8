"""Training of one bundle in MONAI Label, on the labels that were saved there."""

from __future__ import annotations

import csv
import logging
import random
import shutil
from pathlib import Path
from typing import Any

from monailabel.tasks.train.bundle import BundleTrainTask

from grn_monai.data.cohort import section_items
from grn_monai.data.volume import scan_name
from grn_monai.errors import InputError
from grn_monai.files import replacing

__all__ = ["LayersTrainTask", "split_subjects"]

logger = logging.getLogger(__name__)

PREVIOUS = "previous.pt"
"""The weights before the last training, beside ``model.pt``."""


def split_subjects(items: list[dict[str, Any]], share: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shares labelled scans out to training and validation, by whole subjects.

    Args:
        items: the scans, each with its ``subject``.
        share: part of the subjects that validate, above 0 and below 1; at least one of each kind.

    Raises:
        InputError: there are fewer than two subjects, or the share is out of range.
    """
    if not 0 < share < 1:
        mend = "Send 0.2, or -1 to validate on the cohort's own validation section."
        raise InputError("val_split", f"{share:g}", "a share above 0 and below 1", mend)
    names = sorted({item["subject"] for item in items})
    if len(names) < 2:
        found = f"labels of {len(names)} subject{'' if len(names) == 1 else 's'}"
        mend = "Save a label of another subject, or send val_split -1 to validate on the cohort's validation section."
        raise InputError("training", found, "labels of two subjects or more: some train, some validate", mend)
    random.Random(0).shuffle(names)  # always the same, so that results of two trainings can be compared
    held_out = set(names[: min(max(1, round(share * len(names))), len(names) - 1)])
    train = [item for item in items if item["subject"] not in held_out]
    return train, [item for item in items if item["subject"] in held_out]


class LayersTrainTask(BundleTrainTask):
    """MONAI Label's bundle training, on labels of whole subjects.

    * Training and validation share no subject. Too few subjects, and ``val_split: 0``, which would save no weights
      and call it done, are refused.
    * Weights to start from have to fit to the last one. Those of before stay as ``models/previous.pt``.
    * A bundle that learns from scans without labels (``train#dataset#unlabelled``) gets those of the datastore.
    * It starts at epoch 0 each time: the checkpoint of an earlier training with other labels is not gone on from.

    Args:
        path: folder of the bundle.
        conf: the app's configuration (``--conf``).
        subjects: scan to subject, where that is known.
    """

    def __init__(self, path: str, conf: dict[str, str], subjects: dict[str, str] | None = None) -> None:
        super().__init__(path, conf, load_strict=True)
        self.subjects = subjects or {}
        self._unlabelled: list[dict[str, str]] = []
        self._epochs = 0

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Trains; see MONAI Label's ``BundleTrainTask``.

        Raises:
            InputError: too few labels, a label that does not fit its image, weights that do not fit.
        """
        self._epochs = int(request.get("max_epochs", 50))
        if self.bundle_config.get("train#dataset#unlabelled") is not None:
            images = [datastore.get_image_uri(i) for i in sorted(datastore.get_unlabeled_images())]
            self._unlabelled = [{"image": image} for image in images]
            if not images:
                mend = "Leave some scans without a label, or train another bundle."
                raise InputError("training", "no scan without a label", "unlabelled scans to learn from", mend)
        result: dict[str, Any] = super().__call__({"pretrained": True, **request}, datastore)
        return result

    def _fetch_datalist(self, request: dict[str, Any], datastore: Any) -> list[dict[str, Any]]:
        """Scans with saved labels, with their names and subjects."""
        items = super()._fetch_datalist(request, datastore)
        names = [scan_name(item["image"]) for item in items]
        return [
            {**item, "scan": name, "subject": self.subjects.get(name, name)}
            for item, name in zip(items, names, strict=True)
        ]

    def _partition_datalist(
        self, datalist: list[dict[str, Any]], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Training and validation items; None for the bundle's own validation data (``val_split: -1``)."""
        share = float(request.get("val_split", 0.2))
        if not datalist:
            raise InputError("training", "no saved label", "labels with the tag final", "Submit a label first.")
        if share < 0:
            folder, split = (self.bundle_config.get_parsed_content(key) for key in ("dataset_dir", "split"))
            section_items(Path(folder) / split, "validation")  # refuses a cohort without any
            return datalist, None
        train, validation = split_subjects(datalist, share)
        logger.info("%d scans train, %d validate", len(train), len(validation))
        return train, validation

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[dict[str, Any]]) -> None:
        """Has the training start from the bundle's weights, all of them."""
        file = Path(model_pytorch)
        if pretrained and file.is_file():
            # At the end: overlays name handlers by their place.
            loader = {"_target_": "grn_monai.handlers.ModelLoader", "path": str(file), "network": "@network"}
            train_handlers.append({**loader, "options": {"slice_size": "@slice_size"}})
            if file.name == "model.pt":
                with replacing(file.with_name(PREVIOUS)) as temporary:
                    shutil.copyfile(file, temporary)

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides |= {"epochs": self._epochs, "resume": False}
        if self._unlabelled:
            overrides["train#dataset#unlabelled"] = self._unlabelled
        return overrides

    def stats(self) -> dict[str, Any]:
        """Epochs of the last training and its validation losses, for the client's info."""
        try:
            with open(Path(self.bundle_path) / "history.csv", newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError:
            return {}
        losses = {key: rows[-1][key] for key in rows[-1] if key.startswith("val_")} if rows else {}
        return {"epoch": len(rows), **losses}
