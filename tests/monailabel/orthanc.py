"""A real DICOM server for tests: Orthanc with its DICOMweb plugin, on a free loopback port, in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.monailabel.server import free_port

__all__ = ["Orthanc", "missing_orthanc", "running_orthanc"]

_PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")
_SECONDS_TO_START = 30


def _program() -> str | None:
    return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")


def _plugin() -> str | None:
    return next((path for path in _PLUGINS if Path(path).exists()), None)


def missing_orthanc() -> str:
    """Why Orthanc cannot be started here, or ""."""
    lacking = [name for name, there in (("orthanc", _program()), ("orthanc-dicomweb", _plugin())) if not there]
    return f"not installed: {', '.join(lacking)} (Debian's packages)" if lacking else ""


class Orthanc:
    """One server: its storage outlives a stop, so that it can be started again.

    Args:
        folder: for configuration, storage and log; made if missing.
        user: name and password that it asks for; default: none.
    """

    def __init__(self, folder: Path, user: tuple[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "Name": "grn-monai tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": self.port,
            "HttpDescribeErrors": True,
            "KeepAlive": False,  # or it waits for its clients where it is to stop
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": user is not None,
            "RegisteredUsers": dict([user]) if user else {},
            "SslEnabled": False,
            "Plugins": [_plugin()],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))

    @property
    def url(self) -> str:
        """Root of its DICOMweb service."""
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def rest(self, path: str, method: str = "GET") -> Any:
        """Answer of its own REST interface."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def clear(self) -> None:
        """Removes all patients."""
        for patient in self.rest("/patients"):
            self.rest(f"/patients/{patient}", "DELETE")

    def start(self) -> None:
        """Starts it and waits until its HTTP server answers."""
        program = _program()
        assert program
        assert self.process is None
        with (self.folder / "orthanc.log").open("ab") as log:
            command = [program, str(self.folder / "orthanc.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)
        end = time.monotonic() + _SECONDS_TO_START
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError("Orthanc did not start:\n" + (self.folder / "orthanc.log").read_text()[-2000:])
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/system", timeout=1):
                return True
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False

    def stop(self) -> None:
        """Stops it; its storage stays."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None


@contextlib.contextmanager
def running_orthanc(folder: Path, user: tuple[str, str] | None = None) -> Iterator[Orthanc]:
    """An Orthanc that runs as long as the block."""
    server = Orthanc(folder, user)
    server.start()
    try:
        yield server
    finally:
        server.stop()
