"""Scores of whole scans, collected while an evaluator runs."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.engines.utils import IterationEvents

from grn_monai.metrics import LayerEvaluation
from grn_monai.transforms import OrderedLayers

__all__ = ["LayerEvaluationHandler"]


class LayerEvaluationHandler:
    """Score raw slices, fused and decoded predictions of every scan and write the tables.

    Attach it to a ``ScanEvaluator`` over a ``ScanDataset``, with ``TwoPlaneInferer(return_planes=True)`` as inferer.
    Image and label have to be in the scan frame (depth last). The decoded labels are put into the output as
    ``decoded`` for the postprocessing that saves them.

    Args:
        output_dir: folder of ``metrics.json``, ``scans.csv`` and ``slices.csv``.
        surface_distances: also HD95 and ASD, which take most of the time.
        seed: seed of the bootstrap.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        surface_distances: bool = True,
        seed: int = 0,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.evaluation = LayerEvaluation(surface_distances=surface_distances, seed=seed)
        self.decode = OrderedLayers()

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.evaluation.reset())
        # Before the postprocessing, which moves the predictions to the geometry of the file.
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _score(self, engine: Engine) -> None:
        output, batch = engine.state.output, engine.state.batch
        image = output["image"]
        # Indexing a batched MetaTensor changes the meta that it shares with the others, so plain tensors here.
        volumes = {k: v.as_tensor() for k, v in output.items()}
        decoded = []
        for i, fused in enumerate(volumes["pred"]):
            decoded.append(self.decode(fused))
            self.evaluation.add(
                subject=str(batch["subject"][i]),
                scan=str(batch["scan"][i]),
                truth=_labels(volumes["label"][i, 0]),
                predictions={
                    "slice": {plane: _labels(volumes[plane][i].argmax(0)) for plane in ("sagittal", "transverse")},
                    "volume": _labels(fused.argmax(0)),
                    "decoded": _labels(decoded[-1][0]),
                },
                spacing=affine_to_spacing(image.affine[i]).tolist(),
            )
        output["decoded"] = MetaTensor(torch.stack(decoded)).copy_meta_from(output["pred"])

    def _write(self, engine: Engine) -> None:
        if self.evaluation.scans:
            self.evaluation.write(self.output_dir)


def _labels(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.uint8).cpu()
