"""Handlers that make a training repeatable and stop it in time."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.handlers import EarlyStopHandler

__all__ = ["EarlyStop", "SeedEpochs"]


class SeedEpochs:
    """Seed every random generator at the start of each epoch from the seed and the epoch's number.

    An epoch's data order, augmentation and noise are then a function of ``(seed, epoch)`` alone, so that a run
    resumed after epoch n repeats what the uninterrupted run did in epoch n + 1.

    Args:
        seed: the run's seed.
        dataset: a dataset whose random MONAI transforms run in this process (``num_workers=0``).
    """

    def __init__(self, seed: int, dataset: Any = None) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed for the epoch that starts."""
        # Consecutive integers would make epoch 1 of seed 1 equal epoch 2 of seed 0.
        rank = getattr(engine.state, "rank", 0)
        seed = int(np.random.SeedSequence([self.seed, engine.state.epoch, rank]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # third-party transforms may use it
        torch.manual_seed(seed)
        if self.dataset is not None:
            set_rnd(self.dataset, seed=seed)


class EarlyStop(EarlyStopHandler):
    """Stop a training when a validation metric has not fallen for some epochs.

    Attach it to the trainer, after the handler that validates (MONAI's sits on the validator and needs the trainer
    set later, a circle in a config). Its counter can be saved and restored.

    Args:
        evaluator: the validator.
        metric: name in ``evaluator.state.metrics``; lower is better.
        patience: epochs without improvement after which training stops.
        min_delta: smaller improvements do not count.
    """

    def __init__(self, evaluator: Engine, metric: str, patience: int = 5, min_delta: float = 0.0) -> None:
        self.evaluator = evaluator
        super().__init__(
            patience=patience,
            score_function=lambda _: -float(evaluator.state.metrics[metric]),
            min_delta=min_delta,
        )

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        self.set_trainer(engine)
        super().attach(engine)

    def __call__(self, engine: Engine) -> None:
        """Count the epoch, if it was validated."""
        if self.evaluator.state.epoch == engine.state.epoch:
            super().__call__(engine)

    @property
    def stopped(self) -> bool:
        """Whether the patience is used up."""
        return self._handler is not None and self._handler.counter >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Counter and best score."""
        return dict(self._handler.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._handler.load_state_dict(state_dict)
