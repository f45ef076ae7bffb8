"""A learning rate that falls when a validation metric stops to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events
from torch.optim.lr_scheduler import ReduceLROnPlateau

__all__ = ["PlateauSchedule"]

logger = logging.getLogger(__name__)


class PlateauSchedule:
    """Step ``ReduceLROnPlateau`` schedules with a metric of the validator, after the epochs that were validated.

    Attach it to the validator. MONAI's ``LrScheduleHandler`` steps after every epoch of the trainer, so that with
    ``val_interval`` above 1 an old value would count as a validation without improvement; and a resumed run would
    begin the count anew. Give it to ``ResumeHandler`` too.

    Args:
        schedulers: one for each optimizer.
        metric: name in the validator's ``state.metrics``.
    """

    def __init__(self, schedulers: Sequence[ReduceLROnPlateau], metric: str) -> None:
        self.schedulers, self.metric = list(schedulers), metric

    def attach(self, engine: Engine) -> None:
        """Register on the validator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Step, and log a rate that fell."""
        for scheduler in self.schedulers:
            before = [group["lr"] for group in scheduler.optimizer.param_groups]
            scheduler.step(float(engine.state.metrics[self.metric]))
            after = [group["lr"] for group in scheduler.optimizer.param_groups]
            if after != before:
                rates = ", ".join(f"{rate:.3g}" for rate in after)
                logger.info("epoch %d: learning rate %s from here on", engine.state.epoch, rates)

    def state_dict(self) -> dict[str, Any]:
        """The state of each schedule."""
        return {str(i): scheduler.state_dict() for i, scheduler in enumerate(self.schedulers)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for i, scheduler in enumerate(self.schedulers):
            scheduler.load_state_dict(state_dict[str(i)])
