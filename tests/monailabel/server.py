"""A real MONAI Label server as a process, for the tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bundles.conftest import ROOT

START_SECONDS = 240


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Server:
    """Starts a command that serves on a port, and stops it. All that it starts is one process group."""

    def __init__(self, command: list[str], port: int, log: Path, **environment: str) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, env={**variables, **environment}, start_new_session=True
            )

    def wait(self) -> Server:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self.process.poll() is None, self.text()[-3000:]
            try:
                with urllib.request.urlopen(f"{self.url}/info/", timeout=30):
                    return self
            except OSError:
                time.sleep(0.3)
        raise TimeoutError(self.text()[-3000:])

    def client(self) -> Any:
        from monailabel.client import MONAILabelClient

        # A folder of its own: with the default, client and server of one machine share names in /tmp.
        return MONAILabelClient(self.url, tmpdir=tempfile.mkdtemp(dir=self.log.parent))

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, how: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Sends the signal to the server alone; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # whatever it left behind
        return code


def grn_server(out: Path, bundles: Path, runs: Path, studies: str, *more: str, **environment: str) -> Server:
    """`grn-monai label`."""
    port = free_port()
    options = ["--bundles", str(bundles), "--runs", str(runs), "--studies", studies, "--out", str(out)]
    command = [sys.executable, "-m", "grn_monai.cli", "label", *options, "--port", str(port), *more]
    return Server(command, port, out.with_name(f"{out.name}.log"), **environment)


def wait_for(done: Callable[[], Any], seconds: float = 120, step: float = 0.2) -> Any:
    """The first true answer of a question asked again and again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := done():
            return answer
        time.sleep(step)
    raise TimeoutError(f"not within {seconds} s")


def task(url: str, name: str) -> dict[str, Any] | None:
    """The last background task of a kind (train, scoring, batch/infer), or None."""
    try:
        with urllib.request.urlopen(f"{url}/{name}/", timeout=60) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def finished(url: str, name: str, seconds: float = 180) -> dict[str, Any]:
    """The last background task of a kind, once it has ended."""

    def ended() -> dict[str, Any] | None:
        state = task(url, name)
        return state if state and state["status"] not in ("SUBMITTED", "RUNNING") else None

    return dict(wait_for(ended, seconds))
