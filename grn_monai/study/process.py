"""A command as a child process with its log, and why it failed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import grn_monai
from grn_monai.study.commands import Command

__all__ = ["Child", "reason"]

_ERROR = re.compile(r"\s*([\w.]*(?:Error|Exception|Interrupt|Exit)\b.*|error: .*|\S+: error: .*)")


def reason(log: str, code: int) -> str:
    """Why a command failed: the line of an `InputError`, else its last error, else its last line.

    Args:
        log: what it printed.
        code: its exit code; below 0, the signal that ended it.
    """
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (" (most likely for want of memory)" if name == "SIGKILL" else "")
    lines = [part.strip() for line in log.splitlines() for part in line.split("\r") if part.strip()]
    errors = [line for line in lines if _ERROR.fullmatch(line)]
    own = [line for line in errors if line.startswith("error: ")]
    return (own or errors or lines or [f"exit {code} without a word"])[-1].removeprefix("error: ")[:1000]


class Child:
    """A running command, in a process group of its own.

    Args:
        command: what to run.
        log: file to which its output is added.
        threads: threads of each process.
        keep: file descriptors that it inherits.
    """

    def __init__(self, command: Command, log: Path, threads: int, keep: tuple[int, ...] = ()) -> None:
        root = str(Path(grn_monai.__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        # A progress bar adds a line to a log each time; `setdefault` leaves the user's word.
        environment = {"TQDM_MININTERVAL": "30", **os.environ, "PYTHONPATH": path}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "ab") as file:
            file.write(f"$ {command}\n".encode())
            file.flush()
            self._begin = file.tell()
            self.process = subprocess.Popen(
                command.line,
                cwd=command.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the runner alone, which then ends its children in order
                pass_fds=keep,
            )

    def code(self) -> int | None:
        """Exit code, None while it runs."""
        return self.process.poll()

    def error(self) -> str:
        """Why it failed."""
        with open(self.log, "rb") as file:
            file.seek(self._begin)
            return reason(file.read().decode(errors="replace"), self.process.returncode)

    def stop(self, patience: float = 10.0) -> None:
        """End it with its own children: politely, and after some seconds for certain."""
        end = time.monotonic() + patience
        self._signal(signal.SIGTERM)
        while self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        self._signal(signal.SIGKILL)  # also what a group leader that has ended left behind
        self.process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended by itself
            os.killpg(self.process.pid, number)
