"""Run a function in processes of its own, each with a limit of memory and time, so that none can take the batch down.

A damaged file can make a C library crash, loop or ask for terabytes; in a process of its own that is one failed scan.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from grn_monai.errors import InputError, find_input_error

__all__ = ["Limits", "Outcome", "run_isolated"]

T = TypeVar("T")
_PRELOADED = ["data_prep.convert.one"]


@dataclass(frozen=True)
class Limits:
    """What one scan may take: memory in GiB beyond the program's own, and seconds."""

    memory_gib: float = 8.0
    seconds: float = 600.0


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """How a job ended: its `result`, or why there is none (`problem`, one line)."""

    job: T
    result: Any = None
    problem: str | None = None


def _limit_memory(gib: float) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    with contextlib.suppress(OSError, ValueError):
        own = _data_bytes()
        resource.setrlimit(resource.RLIMIT_DATA, (own + int(gib * 2**30),) * 2)


def _data_bytes() -> int:
    """Bytes of writable memory that the process has already."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmData"))
    return int(line.split()[1]) * 1024


def _child(function: Callable[[T], Any], job: T, limits: Limits, channel: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _limit_memory(limits.memory_gib)
    try:
        result, problem = function(job), None
    except MemoryError:
        result, problem = None, _too_much(limits)
    except Exception as error:
        cause = find_input_error(error)
        result, problem = None, str(cause) if cause else f"an unexpected {type(error).__name__}: {error}"
    channel.send((result, problem))
    channel.close()


def _too_much(limits: Limits) -> str:
    return f"more memory needed than the {limits.memory_gib:g} GiB allowed; raise --memory if the scan is that large"


def run_isolated(
    function: Callable[[T], Any], jobs: Sequence[T], workers: int = 1, limits: Limits | None = None
) -> Iterator[Outcome[T]]:
    """Run ``function(job)`` for every job, each in its own process, and yield the outcomes as they come.

    Args:
        function: importable; its result has to be picklable.
        jobs: picklable.
        workers: processes at a time.
        limits: of one job.

    Yields:
        An outcome for every job. A job that crashes, takes too long or too much memory has a `problem` and disturbs no
        other. If the caller stops early, running processes are ended.

    Raises:
        InputError: fewer than one worker.
    """
    if workers < 1:
        raise InputError("--workers", str(workers), "at least 1", "Give the number of processes.")
    limits = limits or Limits()
    # A fork server imports everything once; each scan then costs a fork. Where there is none, a fresh process.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(_PRELOADED)
    waiting = list(reversed(jobs))
    running: dict[Connection, tuple[Any, T, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(function, job, limits, sender), daemon=True)
                process.start()
                sender.close()  # so that the end of the process is the end of the pipe
                running[receiver] = (process, job, time.monotonic() + limits.seconds)
            first_deadline = min(deadline for _, _, deadline in running.values())
            ready = wait(list(running), timeout=max(0.0, first_deadline - time.monotonic()))
            late = [channel for channel, (_, _, deadline) in running.items() if time.monotonic() >= deadline]
            for channel in [c for c in running if c in ready or c in late]:
                process, job, _ = running.pop(channel)
                yield _outcome(channel, process, job, limits, channel in ready)
    finally:
        for process, _, _ in running.values():
            process.kill()
            process.join()


def _outcome(channel: Connection, process: Any, job: T, limits: Limits, ready: bool) -> Outcome[T]:
    try:
        if not ready:
            process.kill()
            return Outcome(job, problem=f"not finished after {limits.seconds:g} s; raise --timeout if it is that large")
        result, problem = channel.recv()
        return Outcome(job, result, problem)
    except EOFError:  # it ended without a word
        process.join()
        code = process.exitcode
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        if name == "SIGKILL":
            return Outcome(job, problem=_too_much(limits))
        return Outcome(job, problem=f"a crash of the library that reads it ({name}); the file is most likely damaged")
    finally:
        channel.close()
        process.join()
