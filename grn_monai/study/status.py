"""What the runner itself writes into a run's folder: `status.json`, and the lock that keeps others out."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.files import write_whole

__all__ = ["STATES", "Lock", "now", "read_json", "read_status", "write_status"]

STATES = ("waiting", "running", "done", "failed")
LOCK_FILE = ".lock"


def now() -> str:
    """The time as ISO 8601 with the zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file, empty where there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_status(folder: Path) -> dict[str, Any]:
    """The status of a run, `waiting` where there is none."""
    status = read_json(folder / "status.json")
    return status if status.get("state") in STATES else {"state": "waiting"}


def write_status(
    folder: Path,
    state: str,
    stage: str | None,
    error: str | None = None,
    started: str | None = None,
    seconds: float = 0.0,
    cohort: str | None = None,
) -> None:
    """Write the status of a run, whole.

    Args:
        folder: of the run.
        state: one of `STATES`.
        stage: `training`, or section and mode of an evaluation.
        error: why it failed or stopped.
        started: when this call took it up.
        seconds: that the run took so far, in all calls.
        cohort: digest of the cohort that it is trained on.
    """
    ended = None if state == "running" else now()
    content: dict[str, Any] = {"state": state, "stage": stage, "error": error, "started": started, "ended": ended}
    content |= {"seconds": round(seconds, 1), "cohort": cohort}
    write_whole(folder / "status.json", json.dumps(content, indent=2) + "\n")


class Lock:
    """A lock on a folder that ends with the processes that hold it, whichever way they end.

    It belongs to the open file, so a training that is handed `fd` keeps it when the runner is killed: no other
    runner then starts a second training beside it.

    Args:
        file: the file to lock; it is made, and stays.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.fd = -1

    def acquire(self) -> bool:
        """Take the lock if nobody has it.

        Raises:
            InputError: the folder cannot be written to, or its file system has no locks.
        """
        fd = -1
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            if isinstance(error, BlockingIOError):
                return False
            found = f"a place where no file can be locked ({error.strerror})"
            mend = "Give the study another `output` (a network drive may have to be mounted with locks)."
            raise InputError(self.file.parent, found, "a folder you may write to, with locks", mend) from error
        self.fd = fd
        return True

    def release(self) -> None:
        """Give it back; a child that still runs keeps it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def is_held(self) -> bool:
        """Whether another process has it now, as far as can be told.

        It needs no right to write, and the shared lock of the moment is in the way of nobody else who looks.
        """
        try:
            fd = os.open(self.file, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks: nobody can have it
            return False
        finally:
            os.close(fd)
        return False
