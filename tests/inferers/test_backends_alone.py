"""Backends in a process of their own: what they do to the machine around them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from tests.inferers.test_backends import GRAPHS, ROOT

pytestmark = pytest.mark.graphs


@pytest.mark.parametrize("backend", GRAPHS)
def test_no_thread_is_bound_to_a_core(backend: str) -> None:
    """In a process of its own with two threads; OpenVINO left to itself binds the one that asks and those it makes."""
    if not Path("/proc/self/task").is_dir() or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs Linux and two cores")
    code = f"""
import os, torch
from grn_monai.inferers import TwoPlaneInferer
torch.set_num_threads(2)
before = os.sched_getaffinity(0)
network = torch.nn.Conv2d(1, 7, 3, padding=1)
TwoPlaneInferer(size=(64, 64), backend={backend!r})(torch.rand(1, 1, 4, 4, 8), network)
print([t for t in os.listdir("/proc/self/task") if os.sched_getaffinity(int(t)) != before])
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("backend", GRAPHS)
def test_nothing_is_written_and_nobody_is_told(backend: str, tmp_path: Path) -> None:
    """In a process of its own. Left to themselves, openvino reports its import to a server, and onnxruntime its use,
    with an identifier that it writes into the user's cache folder. Connections are watched for Python code only;
    onnxruntime reports from C++, of which the identifier's file is the sign that is looked for."""
    code = f"""
import socket, sys
def no(*args, **kwargs):
    raise AssertionError("a connection")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = no
import torch
from grn_monai.inferers import TwoPlaneInferer
TwoPlaneInferer(size=(16, 16), backend={backend!r})(torch.rand(1, 1, 4, 4, 8), torch.nn.Conv2d(1, 7, 3, padding=1))
assert {backend!r} in sys.modules
assert "openvino_telemetry" not in sys.modules
"""
    for name in ("home", "tmp", "work"):
        (tmp_path / name).mkdir()
    env = {**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
    env |= {"MPLCONFIGDIR": matplotlib.get_cachedir()}  # MONAI imports it, and it would list the fonts anew
    for name in ("XDG_CACHE_HOME", "CI", "ORT_DISABLE_TELEMETRY", "PYTEST_CURRENT_TEST"):
        env.pop(name, None)  # a test run is no user's run for telemetry
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "work", env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
