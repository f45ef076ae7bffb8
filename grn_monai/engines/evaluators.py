"""Evaluators: validation of both prediction modes, and inference that survives a bad scan."""

from __future__ import annotations

import sys
from typing import Any

import torch
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from grn_monai.errors import find_input_error

from ._common import JointKeys

__all__ = ["SGEEvaluator", "ScanEvaluator"]


class SGEEvaluator(SupervisedEvaluator):
    """Validate S(x) and S(G(x)) in one pass over the data.

    ``engine.state.output`` holds ``pred`` (logits of S(x), ``(B, classes, H, W)``) and ``pred_sge`` (logits of
    S(G(x))), so that each prediction mode can have its metric and its best checkpoint.

    Args:
        network: an ``EnhancedSegmentor`` (or a module with its method ``both``).
        others: as in ``monai.engines.SupervisedEvaluator``; ``amp`` works on the CPU too. The networks are called
            directly: ``inferer`` is not used.
    """

    def _iteration(self, engine: SGEEvaluator, batchdata: dict[str, torch.Tensor]) -> dict:
        if batchdata is None:
            raise ValueError("Must provide batch data for current iteration.")
        batch = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        inputs, targets = batch[:2]
        engine.state.output = {Keys.IMAGE: inputs, Keys.LABEL: targets}
        with (
            engine.mode(engine.network),
            torch.autocast(engine.state.device.type, enabled=engine.amp, **engine.amp_kwargs),
        ):
            raw, sge = engine.network.both(inputs)
        engine.state.output[Keys.PRED], engine.state.output[JointKeys.PRED_SGE] = raw.float(), sge.float()
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output


class ScanEvaluator(SupervisedEvaluator):
    """Run a network over whole scans, going on past those that fail.

    A scan that ``ScanDataset`` could not load, or that fails later with an ``InputError`` (an unwritable
    output, say), is put in ``failures``; the other scans are handled. At the end the failures are listed on
    standard error and ``run`` raises ``SystemExit(1)``, so that a script sees that something is missing.
    """

    failures: list[str]

    def run(self, global_epoch: int = 1) -> None:
        """Handle every scan.

        Raises:
            SystemExit: code 1, when at least one scan failed.
        """
        self.failures = []
        super().run(global_epoch)
        if self.failures:
            total = self.state.epoch_length
            print(f"{len(self.failures)} of {total} scans failed:", file=sys.stderr)
            for failure in self.failures:
                print(f"  - {failure}", file=sys.stderr)
            raise SystemExit(1)

    def _iteration(self, engine: ScanEvaluator, batchdata: dict[str, Any]) -> dict:
        if "failure" in batchdata:
            engine.failures.extend(batchdata["failure"])
            return {}
        try:
            return self._predict(engine, batchdata)
        except Exception as error:
            # SaveImaged and other transforms wrap what they raise.
            cause = find_input_error(error)
            if cause is None:
                raise
            engine.failures.append(str(cause))
            return {}

    def _predict(self, engine: ScanEvaluator, batchdata: dict[str, Any]) -> dict:
        batch = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        inputs, targets, args, kwargs = batch if len(batch) == 4 else (*batch, (), {})
        output = engine.state.output = {Keys.IMAGE: inputs}
        if targets is not None:
            output[Keys.LABEL] = targets
        with (
            engine.mode(engine.network),
            torch.autocast(engine.state.device.type, enabled=engine.amp, **engine.amp_kwargs),
        ):
            prediction = engine.inferer(inputs, engine.network, *args, **kwargs)
        # An inferer may give several volumes by name, as MONAI Label's inference task expects too.
        output.update(prediction if isinstance(prediction, dict) else {Keys.PRED: prediction})
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output
