"""Scores of muscle segmentations, collected while an evaluator runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.engines.utils import IterationEvents

from grn_monai.data.volume import voxel_ml
from grn_monai.errors import InputError
from grn_monai.metrics import MuscleEvaluation

__all__ = ["MuscleEvaluationHandler"]


class MuscleEvaluationHandler:
    """Score the label volumes that an evaluator's postprocessing leaves, and write the tables.

    Attach it to an evaluator that decollates (MONAI's default). After the postprocessing, prediction and truth of each
    scan have to be label volumes ``(1, X, Y, Z)`` on one grid with an affine: the scan's own geometry, so that volumes
    and distances are those of the scan.

    Args:
        output_dir: folder of ``metrics.json`` and ``muscles.csv``.
        labels: label value to name, such as ``grn_monai.labels.CT_MUSCLES``.
        surface_distances: also HD95 and ASD, which take most of the time.
        seed: seed of the bootstrap.
        pred_key: key of the predicted labels.
        label_key: key of the true labels, in the output or else in the batch.

    Raises:
        ValueError: ``labels`` names no muscle, or two alike.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        labels: Mapping[Any, str],
        surface_distances: bool = True,
        seed: int = 0,
        pred_key: str = "pred",
        label_key: str = "label",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.evaluation = MuscleEvaluation(labels, surface_distances=surface_distances, seed=seed)
        self.pred_key, self.label_key = pred_key, label_key

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.evaluation.reset())
        # Handlers are attached after the postprocessing, which runs at this event too. Not at the end of the
        # iteration: ScanEvaluator goes on past a scan that fails here.
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _score(self, engine: Engine) -> None:
        if not isinstance(engine.state.output, list):
            msg = "MuscleEvaluationHandler needs decollated outputs: leave `decollate` of the evaluator true"
            raise TypeError(msg)
        for output, item in zip(engine.state.output, engine.state.batch, strict=True):
            scan = str(item["scan"])
            pred = output[self.pred_key]
            truth = output[self.label_key] if self.label_key in output else item[self.label_key]
            try:
                spacing, size_ml = _grid(truth, pred)
                self.evaluation.add(str(item["subject"]), scan, _labels(pred), _labels(truth), spacing, size_ml)
            except ValueError as error:
                raise InputError(
                    f"scan {scan}",
                    f"labels that cannot be scored: {error}",
                    f"labels 0 to {max(self.evaluation.labels)} of the config's label set, on one grid",
                    "Correct the truth, or choose the label set of the cohort.",
                ) from error

    def _write(self, engine: Engine) -> None:
        if self.evaluation.scans:
            self.evaluation.write(self.output_dir)


def _labels(x: Any) -> Any:
    """A plain CPU array or tensor; the numbers stay as they are."""
    return x.detach().as_subclass(torch.Tensor).cpu() if isinstance(x, torch.Tensor) else np.asarray(x)


def _grid(*volumes: Any) -> tuple[list[float], float]:
    """Voxel size in mm and volume of a voxel in ml of the first volume that has an affine."""
    for volume in volumes:
        if isinstance(volume, MetaTensor):
            return [float(step) for step in affine_to_spacing(volume.affine)], voxel_ml(volume.affine.cpu())
    raise ValueError("neither prediction nor truth has an affine, so voxel sizes are unknown")
