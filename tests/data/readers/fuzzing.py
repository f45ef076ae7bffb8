"""Damages one small valid file of each format in dozens of ways, and counts how reading it ends.

:func:`count_outcomes` is for tests and for the table of ``benchmarks/``. Each format is read in a child process of
limited memory with an alarm per case, so that a crash or a hang of a native library is seen and belongs to its case.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from grn_monai.errors import InputError
from tests.data.readers.fuzz_targets import SHAPE, TARGETS, Target

__all__ = ["ENDS", "TARGETS", "Outcome", "count_outcomes", "run_cases"]

ENDS = ("refused", "valid", "other error", "crash", "too slow")
"""InputError naming the file; a volume; any other exception; death by a signal; more than `SECONDS`."""

SECONDS = 10
MEMORY = 4 * 2**30
"""Address space that a child may take beyond what its libraries hold."""


@dataclass(frozen=True)
class Outcome:
    """How one case ended; `detail` is the message or the traceback."""

    target: str
    case: str
    end: str
    seconds: float
    detail: str


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def _huge_claims(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The file with a length of its grid replaced by a huge one, wherever and however it is written."""
    # A dict: one pattern may stand for several types.
    patterns: dict[bytes, bytes] = {}
    for length in (*SHAPE, int(np.prod(SHAPE))):
        for code, huge in (("h", 2**15 - 1), ("i", 2**31 - 1), ("q", 2**40), ("d", 1e12), ("f", 1e12)):
            for order in "<>":
                if length < 2**15 or code != "h":
                    patterns[struct.pack(order + code, length)] = struct.pack(order + code, huge)
        patterns[str(length).encode()] = b"9" * 9
    for pattern, claim in patterns.items():
        at, found = -1, 0
        while found < 4 and (at := data.find(pattern, at + 1)) >= 0:
            found += 1
            yield f"claim at {at}", data[:at] + claim + data[at + len(pattern) :]


def _cases(data: bytes, others: dict[str, bytes], marker: Path, rng: random.Random, effort: float) -> Iterator[Any]:
    """Names and contents of damaged files."""
    size, count = len(data), lambda n: max(2, round(n * effort))
    yield "empty", b""
    for at in sorted({*(2**k for k in range(0, size.bit_length() - 1, 2)), size - 1, size - 8}):
        yield f"cut to {at}", data[:at]
    for at in (rng.randrange(size) for _ in range(count(10))):
        yield f"cut to {at}", data[:at]
    for k in range(count(60)):
        at = rng.randrange(min(size, 1024 if k % 2 else size))
        yield f"bit at {at}", data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    for k in range(count(20)):
        damaged = bytearray(data)
        for _ in range(rng.choice((4, 16, 64))):
            damaged[rng.randrange(min(size, 1024 if k % 2 else size))] = rng.randrange(256)
        yield f"bytes, try {k}", bytes(damaged)
    for k in range(count(20)):
        at, width = rng.randrange(min(size, 1024 if k % 2 else size)), rng.choice((2, 4, 8))
        yield f"run at {at}", data[:at] + rng.choice((b"\0", b"\xff", b"\x7f")) * width + data[at + width :]
    for at in (rng.randrange(size) for _ in range(count(6))):
        yield f"lost at {at}", data[:at] + data[at + rng.choice((1, 7, 100)) :]
        yield f"added at {at}", data[:at] + rng.randbytes(rng.choice((1, 7, 100))) + data[at:]
    claims = list(_huge_claims(data))
    yield from rng.sample(claims, min(len(claims), count(30)))
    for name, content in others.items():
        yield f"in truth {name}", content
    yield "in truth text", b"subject,scan\n1,2\n" * 40
    yield "in truth noise", rng.randbytes(4096)
    yield "in truth a pickle", pickle.dumps(_Evil(marker))
    yield "in truth zeros", bytes(4096)


def _run_cases(name: str, valid: Path, work: Path, effort: float, first: int, progress: Path) -> None:
    """Reads the cases from number `first` on, one JSON line each; runs in the child."""
    target, rng = TARGETS[name], random.Random(zlib.crc32(name.encode()))
    originals = {folder.name: sorted(folder.iterdir()) for folder in sorted(valid.iterdir())}
    slug = _slug(name)
    order = json.loads((valid.parent / "order.json").read_text())
    files = [valid / slug / file for file in order[slug]]
    others = {s: paths[0].read_bytes() for s, paths in originals.items() if s != slug and paths[0].suffix != ".json"}
    marker = valid.parent / "marker"
    names = {_slug(key): key for key in TARGETS}
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Path("/proc/self/statm").open() as statm:
        held = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    with progress.open("a", buffering=1) as log:
        cases = _cases(files[0].read_bytes(), {names[s]: c for s, c in others.items()}, marker, rng, effort)
        for number, (case, content) in enumerate([("untouched", files[0].read_bytes()), *cases]):
            if number < first:
                continue
            log.write(json.dumps([number, case]) + "\n")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            for file in files[1:]:
                shutil.copy(file, work)
            (work / files[0].name).write_bytes(content)
            log.write(json.dumps(asdict(_read_one(name, case, target, [work / f.name for f in files], marker))) + "\n")


def _read_one(name: str, case: str, target: Target, paths: list[Path], marker: Path) -> Outcome:
    start = time.perf_counter()
    signal.alarm(SECONDS)  # not caught: it ends the child, and the parent takes note
    try:
        voxels = np.asarray(target.read(paths))
        voxels.sum()  # every voxel is there
        end, detail = "valid", str(voxels.shape)
    except InputError as error:
        named = str(paths[0].parent) in error.where
        end, detail = ("refused" if named else "other error"), str(error)
    except BaseException:
        end, detail = "other error", traceback.format_exc()
    signal.alarm(0)
    if marker.exists():
        end, detail = "other error", "a pickle was loaded"
        marker.unlink()
    return Outcome(name, case, end, time.perf_counter() - start, detail)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _make(valid: Path) -> None:
    order = {}
    for name, target in TARGETS.items():
        folder = valid / _slug(name)
        folder.mkdir(parents=True)
        order[folder.name] = [path.name for path in target.make(folder)]
    (valid.parent / "order.json").write_text(json.dumps(order))


def _forked(action: Callable[[], None], log: Path) -> int:
    """Runs it in a forked child, whose output goes to `log`, and returns how the child ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        with log.open("ab") as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        action()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _main(folder: Path, effort: float, names: Sequence[str]) -> None:
    """Forks a child per format from a process that has imported the libraries but not yet started their threads."""
    import itk

    # itk loads its parts on first use: seconds that every child would spend again.
    assert itk.imread
    assert itk.Image
    assert itk.ImageFileReader
    log = folder / "log.txt"
    if _forked(lambda: _make(folder / "valid"), log):
        raise RuntimeError(log.read_text())
    for name in names:
        progress, first = folder / f"{_slug(name)}.jsonl", 0
        while True:
            action = partial(_run_cases, name, folder / "valid", folder / "work", effort, first, progress)
            status = _forked(action, log)
            if status == 0:
                break
            if not os.WIFSIGNALED(status):
                raise RuntimeError(log.read_text()[-4000:])
            number, case = json.loads(progress.read_text().splitlines()[-1])
            died = os.WTERMSIG(status)
            end = "too slow" if died == signal.SIGALRM else "crash"
            outcome = Outcome(name, case, end, float(SECONDS), f"signal {died}")
            with progress.open("a") as lines:
                lines.write(json.dumps(asdict(outcome)) + "\n")
            first = number + 1


def run_cases(
    folder: Path, effort: float = 1.0, names: Sequence[str] = (), script: Path | None = None
) -> list[Outcome]:
    """Reads all damaged files and tells how each ended.

    Args:
        folder: an empty folder to work in.
        effort: share of the about 200 cases per format whose place is drawn; the draws are the same in every run.
        names: formats, keys of :data:`TARGETS`; all if left out.
        script: run in place of this module, by the test of the harness.
    """
    chosen = list(names or TARGETS)
    root = Path(__file__).parents[3]
    program = ["-m", "tests.data.readers.fuzzing"] if script is None else [str(script)]
    command = [sys.executable, *program, str(folder), str(effort), *chosen]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
    }
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    lines = [json.loads(line) for name in chosen for line in (folder / f"{_slug(name)}.jsonl").open()]
    return [Outcome(**line) for line in lines if isinstance(line, dict)]


def count_outcomes(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Format to (end to number of cases), the table of a benchmark; the untouched file is not counted."""
    counts = Counter((o.target, o.end) for o in outcomes if o.case != "untouched")
    return {name: {end: counts[name, end] for end in ENDS} for name in dict.fromkeys(o.target for o in outcomes)}


if __name__ == "__main__":
    _main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
