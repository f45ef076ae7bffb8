"""Starts MONAI Label on an app that was laid out."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError

__all__ = ["check_port", "serve"]

EXTENSIONS = ("*.nii.gz", "*.nii", "*.mha", "*.mhd", "*.nrrd")

MEND_INSTALL = "Run `make label`, or install the packages of requirements-label.txt into an environment of their own."


def check_port(host: str, port: int) -> None:
    """Sees that a server can listen there.

    Raises:
        InputError: it cannot, such as when another server does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            found = f"an address that cannot be listened on ({error.strerror})"
            raise InputError(f"{host}:{port}", found, "a free port", "Give another --port.") from error


def serve(app: Path, studies: str, host: str, port: int, conf: dict[str, str], modality: str | None = None) -> None:
    """Runs MONAI Label's server until it is stopped; then stops what it has running in the background.

    Args:
        app: folder of the app.
        studies: folder of scans, or URL of a DICOMweb server.
        host: address to listen on; MONAI Label has no login unless it is set up, so loopback is the safe choice.
        port: port; see `check_port`.
        conf: the app's configuration.
        modality: DICOM modality of the series to offer, of a DICOMweb server.

    Raises:
        InputError: MONAI Label is not installed.
    """
    # Read by MONAI Label when it is imported. No network beyond the studies is ever needed.
    os.environ.setdefault("MONAI_LABEL_DATASTORE_FILE_EXT", json.dumps(EXTENSIONS))
    os.environ.setdefault("MONAI_LABEL_TRACKING_ENABLED", "false")
    os.environ.setdefault("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(app.resolve() / "dicom"))
    if modality is not None:
        os.environ["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"] = json.dumps({"Modality": modality})
    try:
        from monailabel.app import app as application
        from monailabel.main import Main
        from monailabel.utils.async_tasks.task import AsyncTask
        from monailabel.utils.async_tasks.utils import background_executors, processes
    except ImportError as error:
        found = f"no MONAI Label ({error})"
        raise InputError(sys.executable, found, "an environment with monailabel", MEND_INSTALL) from error
    _guard(application, host, port)
    main = Main()
    args = ["start_server", "--app", str(app), "--studies", studies, "--host", host, "--port", str(port)]
    for key, value in conf.items():
        args += ["--conf", key, value]
    # uvicorn ends by itself and then raises the signal again, which would end this process before the clean-up below.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_announce, args=(host, port), daemon=True).start()
    try:
        main.action_start_server(main.args_parser().parse_args(args))
    finally:
        # MONAI Label would wait for them, and for those that wait for these, to end by themselves.
        for method, executor in background_executors.items():
            executor.shutdown(wait=False, cancel_futures=True)
            while processes(method):
                AsyncTask.stop(method)


def _guard(application: Any, host: str, port: int) -> None:
    """What every route of the server gets: one line for bad input, and no answers to other sites' pages.

    A page in a browser on this machine can send requests to a server on it; only the answer is kept from the page.
    """
    from fastapi.responses import JSONResponse, PlainTextResponse
    from monailabel.config import settings
    from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

    def told(request: Any, error: Any) -> Any:
        missing = isinstance(error, ImageNotFoundException | LabelNotFoundException)
        return JSONResponse({"detail": str(getattr(error, "msg", error))}, 404 if missing else 422)

    for kind in (InputError, MONAILabelException):
        application.add_exception_handler(kind, told)
    names = {host, "127.0.0.1", "localhost"}
    allowed = {str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS}
    allowed |= {f"http://{name}:{port}" for name in names}

    @application.middleware("http")
    async def own_pages_only(request: Any, call_next: Any) -> Any:
        origin = request.headers.get("origin")
        if origin is not None and origin not in allowed and host in ("127.0.0.1", "localhost", "::1"):
            return PlainTextResponse(f"Requests of pages of {origin} are not answered.", 403)
        return await call_next(request)


def _announce(host: str, port: int) -> None:
    """Prints the address once the server answers."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # never by way of a proxy
    models = "its bundles"
    while True:
        try:
            with ask(f"http://{'127.0.0.1' if name != host else host}:{port}/info/", timeout=60) as answer:
                models = ", ".join(json.load(answer)["models"])
            break
        except urllib.error.HTTPError:  # it wants a login
            break
        except OSError:
            time.sleep(0.5)
    url = f"http://{name}:{port}"
    print(f"\nMONAI Label serves {models}\n  3D Slicer: module MONAI Label, server {url}\n  stop: Ctrl-C\n", flush=True)
