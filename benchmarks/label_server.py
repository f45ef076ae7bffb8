"""Latency, memory and endurance of the MONAI Label server, asked over HTTP as 3D Slicer asks it.

    make setup-label
    .venv-label/bin/python -m benchmarks.label_server --out benchmarks/results/label_server.json

A bundle of the default settings (slices of 256 × 256, G of width 20, quality numbers on) is trained for one epoch on
one tiny scan, since weights do not change the time, and served for scans of 128 × 128 × 256 voxels. First requests
are those of a server just started; each start gives one. Then several clients ask at once for some minutes: every
answer has to be, to the last voxel, the one that the scan got alone.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import torch

from benchmarks._common import finish, parser

ROOT = Path(__file__).parents[1]
SHAPE = ("128", "128", "256")
MODEL = "us_layers_grn_plus"
CASES: tuple[dict[str, Any], ...] = ({}, {"sge": False}, {"ordered": False})


def sh(*command: str, cwd: Path = ROOT) -> None:
    """Run a command quietly; its output is shown if it fails."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def prepare(work: Path, scans: int) -> None:
    """Scans to serve, and a model of the default settings."""
    few = ["--subjects", "2", "--scans", "2", "--split", "1", "1", "0", "--split-scans", "1", "1", "0"]
    sh("data_prep", "simulate", "--out", str(work / "tiny"), "--shape", "16", "16", "64", *few)
    n = str(scans)
    many = ["--subjects", n, "--scans", n, "--split", n, "0", "0", "--split-scans", n, "0", "0"]
    sh("data_prep", "simulate", "--out", str(work / "scans"), "--shape", *SHAPE, *many)
    train = ["monai.bundle", "run", "training", "--config_file", "configs/train.yaml", "--epochs", "1"]
    options = ["--dataset_dir", str(work / "tiny"), "--output_dir", str(work / "runs" / MODEL)]
    sh(*train, *options, cwd=ROOT / "bundles" / MODEL)


class Server:
    """`grn-monai label` as a process."""

    def __init__(self, work: Path, threads: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "grn_monai.cli", "label", "--bundles", str(ROOT / "bundles")]
        command += ["--runs", str(work / "runs"), "--studies", str(work / "scans" / "images")]
        command += ["--out", str(work / "label"), "--port", str(self.port)]
        # Scoring in the background would be timed too; it is a pass over each scan, as a request is.
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
        start = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=ROOT
        )
        while True:
            if self.process.poll() is not None:
                raise SystemExit("the server ended at its start")
            try:
                self.client().info()
                break
            except Exception:  # not yet
                time.sleep(0.1)
        self.seconds_to_start = time.perf_counter() - start

    def client(self) -> Any:
        from monailabel.client import MONAILabelClient

        return MONAILabelClient(f"http://127.0.0.1:{self.port}", tmpdir=tempfile.mkdtemp())

    def memory_gib(self) -> dict[str, float]:
        """Resident memory now and at its highest."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        return {"now": psutil.Process(self.process.pid).memory_info().rss / 2**30, "peak": peak / 2**20}

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def digest(path: str) -> str:
    """Voxels and geometry of an answer."""
    image = nib.load(path)
    voxels = np.asarray(image.dataobj)
    return hashlib.sha256(voxels.tobytes() + repr(voxels.dtype).encode() + image.affine.tobytes()).hexdigest()


def asked(client: Any, scan: str, options: dict[str, Any]) -> tuple[float, str]:
    """Seconds from the request to the label on disk, and the digest of the label."""
    start = time.perf_counter()
    file, _ = client.infer(MODEL, scan, dict(options))
    seconds = time.perf_counter() - start
    result = digest(file)
    os.unlink(file)
    return seconds, result


def endurance(server: Server, scans: list[str], clients: int, minutes: float) -> dict[str, Any]:
    """Requests of several clients at once; each answer is compared with that of the scan alone."""
    cases = list(itertools.product(scans, CASES))
    alone = {(scan, str(options)): asked(server.client(), scan, options)[1] for scan, options in cases}
    end = time.perf_counter() + 60 * minutes
    times: list[float] = []
    wrong, lost = [], []

    def work(number: int) -> None:
        client = server.client()
        for scan, options in itertools.islice(itertools.cycle(cases), number, None):
            if time.perf_counter() > end:
                return
            try:
                seconds, answer = asked(client, scan, options)
            except Exception as error:
                lost.append(f"{scan} {options}: {type(error).__name__}: {error}")
                continue
            times.append(seconds)
            if answer != alone[scan, str(options)]:
                wrong.append(f"{scan} {options}")

    begin = time.perf_counter()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    return {
        "clients": clients,
        "seconds": seconds,
        "requests": len(times) + len(lost),
        "wrong": len(wrong),
        "lost": len(lost),
        "faults": [*wrong, *lost][:10],
        "per_minute": 60 * len(times) / seconds,
        "latency_median": statistics.median(times),
        "latency_max": max(times),
        "memory_gib": server.memory_gib(),
    }


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument("--minutes", type=float, default=5, help="of several clients at once (default 5)")
    p.add_argument("--clients", type=int, default=4)
    p.add_argument("--starts", type=int, default=3, help="servers started, for the first request (default 3)")
    p.add_argument("--requests", type=int, default=9, help="later requests (default 9)")
    p.add_argument("--scans", type=int, default=4, help="different scans (default 4)")
    options = p.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work, options.scans)
        scans = sorted(p.name.removesuffix(".nii.gz") for p in (work / "scans" / "images").glob("*.nii.gz"))
        first: list[float] = []
        starts: list[float] = []
        for _ in range(options.starts):
            server = Server(work, options.threads)
            starts.append(server.seconds_to_start)
            idle = server.memory_gib()
            first.append(asked(server.client(), scans[0], {})[0])
            if len(starts) < options.starts:
                server.stop()
        try:
            client = server.client()
            later = [asked(client, scans[i % len(scans)], {})[0] for i in range(options.requests)]
            without = [asked(client, scans[i % len(scans)], {"sge": False})[0] for i in range(options.requests)]
            memory = server.memory_gib()
            many = endurance(server, scans, options.clients, options.minutes)
        finally:
            server.stop()
    result = {
        "benchmark": "label_server",
        "shape": [int(n) for n in SHAPE],
        "slice_size": [256, 256],
        "start_seconds": statistics.median(starts),
        "first_request_seconds": statistics.median(first),
        "first_request_each": first,
        "later_request_seconds": statistics.median(later),
        "later_request_without_sge_seconds": statistics.median(without),
        "memory_gib": {"started": idle["now"], "after_requests": memory["now"], "peak": memory["peak"]},
        "endurance": many,
    }
    finish(result, options.out)


if __name__ == "__main__":
    main()
