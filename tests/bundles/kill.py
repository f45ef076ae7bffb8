"""A handler for the tests of resuming: it ends the process as `kill -9` does."""

from __future__ import annotations

import os
import signal
from typing import Any

from ignite.engine import Engine, Events


class KillAt:
    """Send SIGKILL to this process once the given iteration is completed."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED(once=self.iteration), self)

    def __call__(self, engine: Any) -> None:
        """End here, with nothing flushed, closed or saved."""
        os.kill(os.getpid(), signal.SIGKILL)


class BreakAt:
    """Make a weight of the segmentor NaN before the given iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.ITERATION_STARTED(once=self.iteration), self)

    def __call__(self, engine: Any) -> None:
        """Break it."""
        next(engine.network.parameters()).data.view(-1)[0] = float("nan")
