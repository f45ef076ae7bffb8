"""Servers that are stopped in the middle of things, and started again on the same folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

import psutil

from grn_monai.monailabel.layout import find_runs, lay_out
from tests.monailabel.conftest import BUNDLES, SERVED
from tests.monailabel.server import START_SECONDS, Server, grn_server, wait_for

UNET = SERVED[2]
BEGUN = "Infer Request (final)"
"""What the server logs when it has a request in hand."""


def start(out: Path, runs: Path, cohort: Path) -> Server:
    return grn_server(out, BUNDLES, runs, str(cohort), "--conf", "models", UNET).wait()


def group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def children(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_stop_in_the_middle_of_a_request(how: int, label_cohort: Path, label_runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "label"
    server = start(out, label_runs, label_cohort)
    client = server.client()
    scan = client.next_sample("first", {})
    label = label_cohort / "labels" / f"{scan['id']}.nii.gz"
    client.save_label(scan["id"], str(label), "final", {})
    expected = np.asarray(nib.load(client.infer(UNET, scan["id"], {})[0]).dataobj)
    asked = threading.Thread(target=lambda: _quietly(client.infer, UNET, scan["id"], {}))
    before = server.text().count(BEGUN)
    asked.start()
    wait_for(lambda: server.text().count(BEGUN) > before, step=0.01)
    begin = time.monotonic()
    server.stop(how)
    assert time.monotonic() - begin < 30
    asked.join(60)
    datastore = json.loads((out / "studies" / "datastore_v2.json").read_text())
    assert "final" in datastore["objects"][scan["id"]]["labels"]
    assert (out / "studies" / "labels" / "final" / label.name).read_bytes() == label.read_bytes()
    again = start(out, label_runs, label_cohort)
    try:
        assert again.client().info()["datastore"]["completed"] == 3
        answer = np.asarray(nib.load(again.client().infer(UNET, scan["id"], {})[0]).dataobj)
        np.testing.assert_array_equal(answer, expected)
    finally:
        again.stop()


def _quietly(call: Callable[..., object], *args: object) -> None:
    with contextlib.suppress(Exception):  # the server went away: any error of the client will do
        call(*args)


def test_a_stopped_server_takes_its_training_with_it(label_cohort: Path, label_runs: Path, tmp_path: Path) -> None:
    server = start(tmp_path / "label", label_runs, label_cohort)
    server.client().train_start(UNET, {"max_epochs": 5000, "device": "cpu"})
    with urllib.request.urlopen(
        urllib.request.Request(f"{server.url}/train/{UNET}?enqueue=true", b"{}", {"Content-Type": "application/json"})
    ) as answer:
        assert answer.status == 200, "a second waits for the first"
    history = tmp_path / "label" / "app" / "model" / UNET / "history.csv"
    wait_for(history.is_file)
    left = children(server)
    assert left
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(60)
    time.sleep(1)
    assert [p for p in psutil.process_iter() if group(p) == server.process.pid] == [], (
        "nothing goes on, nothing new starts"
    )
    assert not any(p.is_running() for p in left)


def test_a_taken_port_and_missing_weights_end_on_one_line(label_cohort: Path, label_runs: Path, tmp_path: Path) -> None:
    server = start(tmp_path / "label", label_runs, label_cohort)
    try:
        port = server.url.rsplit(":", 1)[1]
        second = grn_server(tmp_path / "two", BUNDLES, label_runs, str(label_cohort), "--port", port)
        assert second.process.wait(START_SECONDS) == 2
        last = second.text().splitlines()[-1]
        assert last.startswith(f"grn-monai: 127.0.0.1:{port}: found an address that cannot be listened on")
    finally:
        server.stop()
    third = grn_server(tmp_path / "three", BUNDLES, tmp_path / "no_runs", str(label_cohort))
    assert third.process.wait(START_SECONDS) == 2
    assert "no training of it was found" in third.text().splitlines()[-1]
    app = lay_out(
        tmp_path / "four", sorted(BUNDLES.iterdir()), find_runs(label_runs, [BUNDLES / UNET]), "http://x/y"
    ).app
    os.unlink(app / "model" / UNET / "models" / "model.pt")
    fourth = grn_server(tmp_path / "four", BUNDLES, tmp_path / "no_runs", str(label_cohort))
    assert fourth.process.wait(START_SECONDS) == 2
