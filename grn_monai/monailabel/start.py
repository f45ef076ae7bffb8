"""How a training in MONAI Label begins: from which weights, with which bar to pass, and with what was there kept."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from grn_monai.errors import InputError
from grn_monai.files import replacing
from grn_monai.handlers import BestCheckpointSaver, load_model

__all__ = ["START", "TrainingStart", "previous_name"]

logger = logging.getLogger(__name__)

START = "start.pt"
"""Copy of the weights that a training started from, where it started from one of the copies that it replaces."""


def previous_name(name: str) -> str:
    """Name of the copy of a checkpoint: ``previous.pt`` for ``model.pt``, ``previous_raw.pt`` for ``model_raw.pt``."""
    return f"previous{name.removeprefix('model')}" if name.startswith("model") else f"previous_{name}"


class TrainingStart:
    """Load the weights to start from, find out how good they are, and copy what the training may replace.

    Without it the first epoch of a training would replace the best model, however bad it is. Here each checkpoint is
    replaced only by weights that validate better than those that the training started from, and better than its own.
    Attach it to the trainer after the handlers that restore its state.

    Weights have to be of a training with the same options (such as the slice size) as those savers write.

    Args:
        path: the weights to start from, all of them; None: the network as it is, with no bar to pass.
        network: the network to fill.
        evaluator: the validator; it is run once for the start and once for each other checkpoint.
        handlers: those of the validator; the `BestCheckpointSaver` among them get the bar.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None,
        network: torch.nn.Module,
        evaluator: Any,
        handlers: Sequence[Any],
    ) -> None:
        self.path = None if path is None else Path(path)
        self.network, self.evaluator = network, evaluator
        self.savers = [handler for handler in handlers if isinstance(handler, BestCheckpointSaver)]
        self.options = {name: value for saver in self.savers for name, value in saver.options.items()}

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load, validate and copy.

        Raises:
            InputError: the weights do not fit, or a copy cannot be written. No file has changed then.
        """
        if self.path is not None:
            self._load(self.path, engine)
            self._set_bars(self.path, engine)
        if engine.state.rank == 0:
            self._copy()

    def _load(self, path: Path, engine: Engine) -> None:
        load_model(path, self.network, map_location=engine.state.device, options=self.options)

    def _set_bars(self, start: Path, engine: Engine) -> None:
        bars = self._validate(start)
        others = [saver for saver in self.savers if saver.path.is_file() and saver.path.resolve() != start.resolve()]
        for saver in others:
            try:
                self._load(saver.path, engine)
            except InputError as error:
                logger.warning("%s will be replaced: %s", saver.path.name, error)
                continue
            own = self._validate(saver.path)[saver.path]
            bars[saver.path] = min((bars[saver.path], own), key=lambda value: math.inf if math.isnan(value) else value)
        if others:
            self._load(start, engine)
        for saver in self.savers:
            bar = bars[saver.path]
            saver.best, saver.best_epoch = None if math.isnan(bar) else bar, 0
            logger.info("%s is replaced by weights with a %s below %.4f", saver.path.name, saver.metric, bar)

    def _validate(self, path: Path) -> dict[Path, float]:
        """What each checkpoint is chosen by, of the weights that are loaded now."""
        logger.info("validating %s, as it was before the training", path.name)
        for saver in self.savers:
            saver.best = -math.inf  # nothing is better: nothing is saved
        self.evaluator.run(1)
        self.evaluator.state.epoch = 0  # no epoch of the training: other handlers ask whether one was validated
        return {saver.path: float(self.evaluator.state.metrics[saver.metric]) for saver in self.savers}

    def _copy(self) -> None:
        copies = {saver.path: saver.path.with_name(previous_name(saver.path.name)) for saver in self.savers}
        start = self.path
        if start is not None and start.resolve() in {copy.resolve() for copy in copies.values()}:
            _copy_whole(start, start.with_name(START))
        for path, copy in copies.items():
            if path.is_file():
                _copy_whole(path, copy)


def _copy_whole(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
