"""Training of one bundle in MONAI Label, on the labels that were saved there."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from monailabel.tasks.train.bundle import BundleTrainTask

from grn_monai.data.cohort import section_items
from grn_monai.data.names import item_names
from grn_monai.data.volume import scan_name
from grn_monai.errors import InputError, count_scans, listed
from grn_monai.files import file_stamps, write_whole
from grn_monai.monailabel.layout import RECORD
from grn_monai.monailabel.requests import device_of, number, refuse_expressions, whole_number
from grn_monai.options import flag

__all__ = ["LayersTrainTask", "split_subjects"]

logger = logging.getLogger(__name__)

HANDLER = "grn_monai.monailabel.start.TrainingStart"
MODEL = "model.pt"
SEEN = "trained_on.json"
"""In a bundle of the app: scans that its weights learned from before the last training, which has its own record."""


def split_subjects(
    items: list[dict[str, Any]], share: float, seen: Collection[str] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shares labelled scans out to training and validation, by whole subjects.

    Who validates goes by a hash of the subject's name, so that it hardly changes when labels are added: new subjects
    take their places among the others, which keep their order.

    Args:
        items: the scans, each with its ``subject``.
        share: part of the subjects that validate, above 0 and below 1; at least one of each kind.
        seen: subjects that the weights to start from have learned from; they validate only where others are too few.

    Raises:
        InputError: there are fewer than two subjects, or the share is out of range.
    """
    if not 0 < share < 1:
        mend = "Send 0.2, or -1 to validate on the cohort's own validation section."
        raise InputError("val_split", f"{share:g}", "a share above 0 and below 1", mend)
    names = {item["subject"] for item in items}
    if len(names) < 2:
        found = f"labels of {len(names)} subject{'' if len(names) == 1 else 's'}"
        mend = "Save a label of another subject, or send val_split -1 to validate on the cohort's validation section."
        raise InputError("training", found, "labels of two subjects or more: some train, some validate", mend)
    order = sorted(names, key=lambda name: (name in seen, hashlib.sha256(name.encode()).hexdigest()))
    held_out = set(order[: min(max(1, round(share * len(order))), len(order) - 1)])
    train = [item for item in items if item["subject"] not in held_out]
    return train, [item for item in items if item["subject"] in held_out]


class LayersTrainTask(BundleTrainTask):
    """MONAI Label's bundle training, on labels of whole subjects.

    * Training and validation share no subject, also not by way of the scans without labels. Too few subjects, and
      ``val_split: 0``, which would save no weights and call it done, are refused.
    * Weights to start from have to be there and to fit to the last one. ``model.pt`` is replaced only by weights that
      validate better than those; what was there before stays as ``previous.pt``
      (see `grn_monai.monailabel.start.TrainingStart`).
    * A bundle that learns from scans without labels (``train#dataset#unlabelled``) gets those of the datastore.
    * It starts at epoch 0 each time: the checkpoint of an earlier training with other labels is not gone on from.
    * It trains on one device. MONAI Label would start ``torchrun`` and not notice that it failed.

    Args:
        path: folder of the bundle.
        conf: the app's configuration (``--conf``).
        subjects: scan to subject, where that is known.
    """

    def __init__(self, path: str, conf: dict[str, str], subjects: dict[str, str] | None = None) -> None:
        super().__init__(path, conf, load_strict=True)
        self.subjects = subjects or {}
        self._datastore: Any = None
        self._held_out: set[str] = set()
        self._epochs = 0
        self._validating = ""

    def __call__(self, request: dict[str, Any], datastore: Any) -> dict[str, Any]:
        """Trains; see MONAI Label's ``BundleTrainTask``.

        Raises:
            InputError: an option is at fault, too few labels, a label that does not fit its image, weights that do not
                fit.
        """
        checked = self._checked(request)
        self._datastore, self._held_out, self._epochs = datastore, set(), checked["max_epochs"]
        model = Path(self.bundle_path) / "models" / MODEL
        before = file_stamps(model) if model.is_file() else None
        result: dict[str, Any] = super().__call__(checked, datastore)
        if before is not None and model.is_file() and file_stamps(model) == before:
            told = f"No epoch validated better than the weights before: {MODEL} stays as it was."
        else:
            told = f"{MODEL} has the best weights of this training."
        logger.info("%s Validated on %s.", told, self._validating)  # clients see the last lines of the log
        return result

    def config(self) -> dict[str, Any]:
        """Options that clients show, with their defaults."""
        options: dict[str, Any] = super().config()
        without = ("multi_gpu", "gpus", "tracking", "tracking_uri", "tracking_experiment_name", "run_id")
        files = sorted(options["model_filename"], key=lambda name: (name != MODEL, name))  # the first is preselected
        return {**{key: value for key, value in options.items() if key not in without}, "model_filename": files}

    def _checked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The request with every option that MONAI Label reads as what it means.

        Raises:
            InputError: naming the option.
        """
        refuse_expressions(request)
        try:
            pretrained = flag(request.get("pretrained", True))
        except InputError as error:
            raise InputError("pretrained", error.found[:60], error.expected, error.mend) from error
        tracking = request.get("tracking")
        tracking = tracking[0] if isinstance(tracking, list | tuple) and tracking else tracking
        if tracking and str(tracking).lower() != "none":
            mend = "Send None; histories are in history.csv and tensorboard/ of the bundle."
            raise InputError("tracking", repr(tracking)[:60], "None", mend)
        if torch.cuda.device_count() > 1 and request.get("multi_gpu", True):
            logger.info("One GPU trains: MONAI Label would not notice that several failed")
        checked = {
            **request,
            "device": device_of(request.get("device")),
            "gpus": "all",
            "max_epochs": whole_number("max_epochs", request.get("max_epochs", 50), 1),
            "multi_gpu": False,
            "force_multi_gpu": False,
            "model_filename": self._start_name(request.get("model_filename"), pretrained),
            "pretrained": pretrained,
            "run_id": "run",  # Slicer sends "", and others would not train
            "tracking": "",
            "val_split": number("val_split", request.get("val_split", 0.2)),
        }
        for name in ("tracking_uri", "tracking_experiment_name", "tracking_run_name"):
            checked.pop(name, None)
        return checked

    def _start_name(self, name: Any, pretrained: bool) -> str:
        """Which of the bundle's checkpoints to start from; MONAI Label's list of them stands for the default."""
        folder = Path(self.bundle_path) / "models"
        if name is None or name in ("", "auto") or isinstance(name, list | tuple):
            if not pretrained or (folder / MODEL).is_file():
                return MODEL
            name = MODEL
        known = sorted(file.name for file in folder.glob("*.pt"))
        if name not in known:
            mend = "Choose one of them, or send pretrained false to start anew."
            raise InputError("model_filename", repr(name)[:60], f"auto or one of {listed(known) or 'none'}", mend)
        return str(name)

    def _subject(self, scan: str) -> str:
        return self.subjects.get(scan, scan)

    def _fetch_datalist(self, request: dict[str, Any], datastore: Any) -> list[dict[str, Any]]:
        """Scans with saved labels, with their names and subjects."""
        items = []
        for item in datastore.datalist():
            name = scan_name(item["image"])
            subject = str(item.get("subject") or self._subject(name))  # an archive knows its patients
            items.append({"image": item["image"], "label": item["label"], "scan": name, "subject": subject})
        return items

    def _seen_scans(self) -> set[str]:
        """Scans that the bundle's weights learned from, by the records of the trainings that are still there."""
        folder = Path(self.bundle_path)
        records = [folder / "run.json", folder / SEEN]
        run = _read_json(folder / RECORD).get("run")
        if isinstance(run, str):
            records.append(Path(run) / "run.json")
        return {str(scan) for record in records for scan in _read_json(record).get("scans", [])}

    def _partition_datalist(
        self, datalist: list[dict[str, Any]], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """Training and validation items; None for the bundle's own validation data (``val_split: -1``)."""
        share = float(request.get("val_split", 0.2))
        if not datalist:
            raise InputError("training", "no saved label", "labels with the tag final", "Submit a label first.")
        if share < 0:
            folder, split = (self.bundle_config.get_parsed_content(key) for key in ("dataset_dir", "split"))
            section = section_items(Path(folder) / split, "validation")  # refuses a cohort without any
            self._held_out = {item_names(item)[0] for item in section}
            train = [item for item in datalist if item["subject"] not in self._held_out]
            if not train:
                found = "labels of subjects of the cohort's validation section alone"
                raise InputError(
                    "training", found, "labels of others to train on", "Submit a label of another subject."
                )
            self._validating = "the cohort's validation section"
            logger.info("%s to train on; %s validates", count_scans(len(train)), self._validating)
            return train, None
        seen_scans = self._seen_scans() if request.get("pretrained", True) else set()
        seen = {self._subject(scan) for scan in seen_scans}
        seen |= {item["subject"] for item in datalist if item["scan"] in seen_scans}
        train, validation = split_subjects(datalist, share, seen)
        self._held_out = {item["subject"] for item in validation}
        known = sorted(self._held_out & seen)
        told = f"the weights to start from have learned from {listed(known)}" if known else "new to the weights"
        self._validating = f"{listed(sorted(self._held_out))} ({told})"
        logger.info("%d scans train, %d validate, of %s", len(train), len(validation), self._validating)
        return train, validation

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[dict[str, Any]]) -> None:
        """Has the training start from the bundle's weights, all of them, and keep them if it replaces them."""
        start = {
            "_target_": HANDLER,
            "path": model_pytorch if pretrained else None,
            "network": "@network",
            "evaluator": "@validate#evaluator",
            "handlers": "@validate#handlers",
        }
        # The list is the bundle's own and stays for the next training. At the end: overlays name handlers by place.
        train_handlers[:] = [*(h for h in train_handlers if h.get("_target_") != HANDLER), start]

    def _unlabelled(self) -> list[dict[str, str]]:
        """The datastore's scans without labels, but for those of subjects that validate."""
        known = getattr(self._datastore, "subject_of", None)  # an archive's
        images = sorted(self._datastore.get_unlabeled_images())
        used = [i for i in images if str((known(i) if known else "") or self._subject(i)) not in self._held_out]
        if not used:
            found = f"no scan without a label{' of a subject that does not validate' if images else ''}"
            mend = "Leave some scans without a label, or train another bundle."
            raise InputError("training", found, "unlabelled scans to learn from", mend)
        logger.info("%d scans without labels train, of %d", len(used), len(images))
        return [{"image": self._datastore.get_image_uri(image)} for image in used]

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        overrides |= {"epochs": self._epochs, "resume": False}
        if self.bundle_config.get("train#dataset#unlabelled") is not None:
            overrides["train#dataset#unlabelled"] = self._unlabelled()
        return overrides

    def run_single_gpu(self, request: dict[str, Any], overrides: dict[str, Any]) -> None:
        """Trains; what the weights learned from until now is noted first, as the run's record is replaced."""
        write_whole(Path(self.bundle_path) / SEEN, json.dumps({"scans": sorted(self._seen_scans())}, indent=1))
        super().run_single_gpu(request, overrides)

    def stats(self) -> dict[str, Any]:
        """Epochs of the last training and its validation losses, for the client's info."""
        try:
            with open(Path(self.bundle_path) / "history.csv", newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError:
            return {}
        losses = {key: rows[-1][key] for key in rows[-1] if key.startswith("val_")} if rows else {}
        return {"epoch": len(rows), **losses}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
