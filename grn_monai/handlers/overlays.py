"""Pictures of an evaluation, drawn while it runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.engines.utils import IterationEvents
from monai.transforms import Orientation

from grn_monai.data.volume import scan_name

__all__ = ["MuscleOverlayHandler"]


class MuscleOverlayHandler:
    """Write ``overlays/NAME.png`` for the first scans, and ``curves.png`` of the training.

    NAME is that of the scan's image file, as of its segmentation; the name of the scan where the picture knows no file.

    Attach it to an evaluator that decollates, whose postprocessing leaves label volumes in the scan's own geometry.

    Args:
        output_dir: folder of the pictures.
        history: ``history.csv`` of the training; without such a file there are no curves.
        slices: see `grn_monai.report.muscle_overlay.chosen_slices`.
        max_scans: scans that are drawn; 0 for none.
        picture_key: key of the grey volume ``(1, X, Y, Z)``, −1 to 1, on the scan's voxels in any order.
        pred_key: key of the predicted labels.
        label_key: key of the true labels, in the output or else in the batch.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        history: str | os.PathLike[str] | None = None,
        slices: int | Sequence[int] = 3,
        max_scans: int = 8,
        picture_key: str = "picture",
        pred_key: str = "pred",
        label_key: str = "label",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.history = None if history is None else Path(history)
        self.slices, self.max_scans = slices, int(max_scans)
        self.picture_key, self.pred_key, self.label_key = picture_key, pred_key, label_key
        self.turn = Orientation(axcodes="RAS", labels=None)
        self.drawn = 0

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        # After the postprocessing, which runs at this event too; not for a scan that failed.
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._draw)

    def _start(self, engine: Engine) -> None:
        self.drawn = 0
        if self.history is not None and self.history.is_file():
            from grn_monai.report.muscle_overlay import write_curves  # matplotlib is not for every handler

            write_curves(self.history, self.output_dir / "curves.png")

    def _draw(self, engine: Engine) -> None:
        from grn_monai.report.muscle_overlay import write_overlays

        for output, item in zip(engine.state.output, engine.state.batch, strict=True):
            if self.drawn >= self.max_scans:
                return
            truth = output[self.label_key] if self.label_key in output else item[self.label_key]
            picture = self._turned(item[self.picture_key])
            volumes = [np.asarray(self._turned(x).as_tensor()[0]).astype(int) for x in (truth, output[self.pred_key])]
            write_overlays(
                self.output_dir / "overlays" / f"{_name(item['scan'], picture)}.png",
                np.asarray(picture.as_tensor()[0]),
                volumes[0],
                volumes[1],
                affine_to_spacing(picture.affine).tolist(),
                self.slices,
                f"{item['scan']} (subject {item['subject']})",
            )
            self.drawn += 1

    def _turned(self, volume: Any) -> MetaTensor:
        found: MetaTensor = self.turn(volume.detach().cpu())
        return found


def _name(scan: Any, picture: MetaTensor) -> str:
    # Scans of two subjects may have one name ("T2"); their files do not (`ScanDataset`).
    file = picture.meta.get("filename_or_obj")
    return scan_name(file) if file else str(scan).replace(os.sep, "_")
