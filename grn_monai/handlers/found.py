"""A table of what was found in each scan, in which a scan without any of it has a row of its own."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from grn_monai.data.volume import voxel_ml
from grn_monai.files import write_whole

__all__ = ["NOTHING", "FoundHandler"]

NOTHING = "nothing found"


class FoundHandler:
    """Write ``found.csv``: for each scan whether anything was found, and the volume of each structure in ml.

    ``grn_monai.transforms.found.ReportMissingd`` says it in the log, this in a table, so that an empty label volume is
    never taken for a result. Attach it to an evaluator that decollates; after the postprocessing the prediction has to
    be a label volume ``(1, X, Y, Z)`` with the affine of its scan.

    Args:
        output_dir: folder of the table.
        labels: label value to name, with 0 for background.
        pred_key: key of the predicted labels.
    """

    def __init__(self, output_dir: str | os.PathLike[str], labels: Mapping[Any, str], pred_key: str = "pred") -> None:
        self.path = Path(output_dir) / "found.csv"
        self.labels = {int(value): name for value, name in labels.items() if int(value) != 0}
        self.pred_key = pred_key
        self.rows: list[dict[str, str]] = []

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        # After the postprocessing, which runs at this event too; not for a scan that failed.
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._note)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _note(self, engine: Engine) -> None:
        for output, item in zip(engine.state.output, engine.state.batch, strict=True):
            pred = output[self.pred_key]
            size_ml = voxel_ml(pred.affine.cpu())
            counts = np.bincount(np.asarray(pred.as_tensor().cpu()).ravel().astype(np.int64), minlength=256)
            some = any(counts[value] for value in self.labels)
            row = {"subject": str(item["subject"]), "scan": str(item["scan"]), "status": "found" if some else NOTHING}
            volumes = {f"{name} (ml)": f"{counts[value] * size_ml:.6g}" for value, name in self.labels.items()}
            self.rows.append(row | volumes)

    def _write(self, engine: Engine) -> None:
        if self.rows:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            write_whole(self.path, text.getvalue())
