"""What every simulation does to its folder: claim it, and make what is missing in one or several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.files import make_folder

__all__ = ["COHORT_FILE", "RECORD_FILE", "SECTIONS", "check_workers", "claim_folder", "run_jobs"]

RECORD_FILE = "simulation.json"
"""Settings and drawn parameters of a simulated cohort; also what a continued run is checked against."""

# Spelt out, as `grn_monai.data` would bring torch, which no simulation needs; a test reads the file back.
COHORT_FILE = "dataset.json"
SECTIONS = ("training", "validation", "test", "unlabeled")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def check_workers(workers: int) -> None:
    """Raise unless there is at least one process."""
    if workers < 1:
        raise InputError("--workers", str(workers), "at least 1", "Give the number of processes.")


def claim_folder(out: Path, now: dict[str, Any]) -> None:
    """Make a folder for a simulation, or see that it was begun with the same settings.

    Args:
        out: the folder.
        now: the settings as recorded under "settings" in the folder's `RECORD_FILE`.

    Raises:
        InputError: the folder cannot be written to, holds other files, or was begun with other settings.
    """
    if out.exists() and not out.is_dir():
        raise InputError(out, "a file", "a folder", "Give --out another name.")
    record = out / RECORD_FILE
    if not record.is_file():
        if out.is_dir() and any(entry.name[0] != "." for entry in out.iterdir()):
            raise InputError(
                out,
                f"a folder with other content and no {RECORD_FILE}",
                "a new or empty folder, or a simulated cohort to go on with",
                "Choose another folder.",
            )
        make_folder(out)
        return
    try:
        before = json.loads(record.read_text(encoding="utf-8"))["settings"]
        differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        mend = "Choose another folder, or delete this one."
        raise InputError(record, "no readable settings", "the record of a simulation", mend) from error
    if differing:
        raise InputError(
            out,
            "a cohort begun with " + ", ".join(f"{key} {before.get(key)}" for key in differing),
            ", ".join(f"{key} {now.get(key)}" for key in differing),
            "Repeat the earlier options to go on with it, or choose another folder.",
        )
    make_folder(out)


def run_jobs(out: Path, job: Callable[..., None], todo: Sequence[tuple[Any, ...]], workers: int) -> Iterator[None]:
    """Call a function once for each tuple of arguments and yield once for each that is finished.

    Args:
        out: the folder, for messages.
        job: a function of a module; with several workers it runs in other processes.
        todo: its arguments.
        workers: processes.

    Raises:
        InputError: a worker was killed.
    """
    if workers == 1 or len(todo) < 2:
        for arguments in todo:
            job(*arguments)
            yield
        return
    # Fresh processes, since a fork would inherit whatever threads the caller has started. Ctrl-C is left to
    # the parent: the scans under way are finished and no worker prints a traceback.
    context = multiprocessing.get_context("spawn")
    with (
        _single_threaded_children(),
        ProcessPoolExecutor(
            min(workers, len(todo)), context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
        ) as pool,
    ):
        futures = [pool.submit(job, *arguments) for arguments in todo]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BrokenProcessPool as error:
            raise InputError(
                out,
                "a worker that was killed, most likely for want of memory",
                f"about 0.5 GB for each of {workers} workers",
                "Run the same command with fewer --workers; finished scans are kept.",
            ) from error
        finally:
            # After an error or Ctrl-C, do not start what is still waiting. Waiting here matters: leaving the
            # `with` block calls shutdown again, which would take the cancelling back.
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let each child's BLAS use one thread: the processes already fill the cores."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
