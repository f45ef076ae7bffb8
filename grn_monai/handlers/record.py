"""What a run leaves behind: its scalars by epoch, and everything needed to repeat it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from grn_monai.files import replacing, write_whole

__all__ = ["HistoryHandler", "RunRecord", "log_epoch", "provenance", "scalars", "sha256"]

PACKAGES = ("grn-monai", "monai", "torch", "pytorch-ignite", "numpy", "scipy", "nibabel", "SimpleITK", "itk")


def on_host(values: Sequence[torch.Tensor]) -> list[float]:
    """0-d tensors as floats, in one copy from their device."""
    if not values:
        return []
    return torch.stack([v.detach().to(values[0].device, torch.float64) for v in values]).tolist()


def scalars(output: Any) -> dict[str, float]:
    """All 0-d values of an engine's output (a dict, or the decollated list of dicts) as a flat dict of floats.

    Use it as ``output_transform`` of ``StatsHandler`` and ``TensorBoardStatsHandler``. An output without names gives
    none. Tensors are copied from their device at once: a copy each would wait for a GPU each time.
    """
    first = output[0] if isinstance(output, list) and output else output
    if not isinstance(first, Mapping):
        return {}
    values = {str(k): float(v) for k, v in first.items() if isinstance(v, float | int)}
    tensors = {str(k): v for k, v in first.items() if isinstance(v, torch.Tensor) and v.ndim == 0}
    return values | dict(zip(tensors, on_host(list(tensors.values())), strict=True))


def log_epoch(engine: Engine) -> None:
    """Log one line an epoch with the scalars of the last iteration; ``epoch_print_logger`` of ``StatsHandler``."""
    values = {**scalars(engine.state.output), **engine.state.metrics}
    text = "  ".join(f"{k} {v:.4f}" for k, v in values.items() if isinstance(v, float))
    engine.logger.info("epoch %d/%d  %s", engine.state.epoch, engine.state.max_epochs, text)


class HistoryHandler:
    """Write one row of scalars an epoch to a CSV file.

    Columns: ``epoch``, ``iteration``, ``seconds`` (training time of the epoch, without validation), the mean over the
    epoch of every scalar of the trainer's output (``loss`` as ``train_loss``), and the validator's metrics.

    Args:
        path: the CSV file. In a resumed run the rows of the epochs that are kept stay.
        evaluator: the validator; attach this handler after the one that validates.
    """

    def __init__(self, path: str | os.PathLike[str], evaluator: Engine | None = None) -> None:
        self.path = Path(path)
        self.evaluator = evaluator
        self.rows: list[dict[str, Any]] | None = None
        self._sums: dict[str, Any] = {}
        self._count = 0
        self._start = 0.0
        self._seconds = 0.0

    def attach(self, engine: Engine) -> None:
        """Register on the trainer."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)

    def _started(self, engine: Engine) -> None:
        self.rows = None

    def _epoch_started(self, engine: Engine) -> None:
        if self.rows is None:
            # Not at STARTED: a resumed run gets its epoch there, perhaps from a handler attached after this one.
            self.rows = []
            if engine.state.epoch > 1 and self.path.is_file():
                with open(self.path, newline="") as file:
                    self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < engine.state.epoch]
        self._sums, self._count, self._start = {}, 0, time.perf_counter()

    def _iteration(self, engine: Engine) -> None:
        first = engine.state.output[0] if isinstance(engine.state.output, list) else engine.state.output
        for key, value in first.items():
            if isinstance(value, torch.Tensor) and value.ndim == 0:
                # Kept on the device: a float() here would wait for a GPU at every iteration.
                value = value.detach().double()
            elif not isinstance(value, float):  # decollation turns 0-d tensors into floats
                continue
            self._sums[str(key)] = self._sums.get(str(key), 0.0) + value
        self._count += 1
        self._seconds = time.perf_counter() - self._start

    def _epoch_completed(self, engine: Engine) -> None:
        row: dict[str, Any] = {
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            "seconds": round(self._seconds, 3),
        }
        row |= {("train_loss" if k == "loss" else k): float(v) / self._count for k, v in self._sums.items()}
        if self.evaluator is not None and self.evaluator.state.epoch == engine.state.epoch:  # validated now
            row |= {k: float(v) for k, v in self.evaluator.state.metrics.items()}
        rows = self.rows = [*(self.rows or []), row]
        if engine.state.rank == 0:
            names = list(dict.fromkeys(key for r in rows for key in r))
            with replacing(self.path) as temporary, open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(rows)


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 digest of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_state() -> dict[str, Any] | None:
    def git(*args: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "changed_files": len(git("status", "--porcelain").splitlines()),
        }
    except (OSError, subprocess.CalledProcessError):
        return None  # an installed package has no repository


def provenance() -> dict[str, Any]:
    """Versions, git state, Python, platform and threads of this process, as JSON-ready values."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "versions": versions,
        "git": _git_state(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def calling_parser() -> ConfigParser | None:
    """The config parser that is building the caller, if one is: a bundle's config cannot name itself."""
    frame = sys._getframe(1)
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), ConfigParser):
            return frame.f_locals["self"]
        frame = frame.f_back  # type: ignore[assignment]
    return None


class RunRecord:
    """Write ``run.json``: configuration, seed, versions, git state, command line, times and how the run ended.

    Built from a bundle's config, it keeps the whole config after overlays and overrides (``config``) and the values
    that its expressions came to (``resolved``). Where those name a checkpoint that was used (``ckpt_path``), its digest
    is kept too (``ckpt_sha256``): the path alone does not say which weights lay there.

    Args:
        path: the JSON file.
        seed: the run's seed.
        config: the configuration, where no bundle builds this handler.
    """

    def __init__(
        self, path: str | os.PathLike[str], seed: int | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.path = Path(path)
        self.record: dict[str, Any] = {"seed": seed, "config": config}
        self._parser = calling_parser() if config is None else None

    def attach(self, engine: Engine) -> None:
        """Register on the trainer or evaluator."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.COMPLETED, self._completed)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._raised)

    def _started(self, engine: Engine) -> None:
        self._start = time.time()
        self.record |= provenance()
        if engine.state.epoch and self.path.is_file():  # resumed: what the parts before did is not lost
            before = json.loads(self.path.read_text())
            keep = ("started", "first_epoch", "status", "seconds", "epochs", "iterations", "command")
            self.record["earlier"] = [*before.pop("earlier", []), {k: before.get(k) for k in keep}]
        if self._parser is not None:
            self.record["config"] = self._parser.get()
            self.record["resolved"] = {
                k: v
                for k, v in self._parser.ref_resolver.resolved_content.items()
                if isinstance(v, str | int | float | bool | None)
            }
            used = self.record["resolved"].get("ckpt_path")
            if isinstance(used, str) and Path(used).is_file():
                self.record["ckpt_sha256"] = sha256(used)
        self.record |= {
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "first_epoch": engine.state.epoch + 1,
            "status": "running",
        }
        dataset = getattr(getattr(engine, "data_loader", None), "dataset", None)
        both = getattr(dataset, "labelled", dataset), getattr(dataset, "unlabelled", None)
        for name, stream in zip(("scans", "unlabelled_scans"), both, strict=True):
            if (data := getattr(stream, "data", None)) is not None:
                self.record[name] = [str(item.get("scan", item.get("image"))) for item in data]
        self._write(engine)

    def _completed(self, engine: Engine) -> None:
        failures = getattr(engine, "failures", [])
        if failures:
            self.record["failures"] = list(failures)
        self._end(engine, f"{len(failures)} scans failed" if failures else "completed")

    def _raised(self, engine: Engine, error: BaseException) -> None:
        # ignite calls the handlers of this event instead of raising, so raise again.
        self._end(engine, f"failed: {type(error).__name__}: {error}")
        raise error

    def _end(self, engine: Engine, status: str) -> None:
        self.record |= {
            "status": status,
            "seconds": round(time.time() - self._start, 1),
            "epochs": engine.state.epoch,
            "iterations": engine.state.iteration,
        }
        self._write(engine)

    def _write(self, engine: Engine) -> None:
        if engine.state.rank == 0:
            write_whole(self.path, json.dumps(self.record, indent=2, default=str) + "\n")
