"""A handler for the tests with several processes: it notes which process opens files of the run for writing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ignite.engine import Engine, Events

WRITE_FLAGS = 0o3  # O_WRONLY and O_RDWR


class NoteWrites:
    """Write the names of files that this process opens for writing under the run's folder to ``FOLDER/RANK.txt``."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.names: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Watch from the start of the training to its end."""
        run = str(self.folder.parent / "run")

        def hook(event: str, args: tuple[Any, ...]) -> None:
            if event == "open" and str(args[0]).startswith(run) and (args[2] or 0) & WRITE_FLAGS:
                self.names.append(str(args[0]))
            elif event == "os.rename" and str(args[1]).startswith(run):
                self.names.append(str(args[1]))

        sys.addaudithook(hook)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the list."""
        (self.folder / f"{dist.get_rank()}.txt").write_text("".join(f"{name}\n" for name in self.names))
