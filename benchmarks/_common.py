"""Parts that the benchmarks share: interleaved medians, threads, JSON out."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from grn_monai.handlers import provenance


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    p.add_argument("--out", type=Path, default=None, help="write the result to this JSON file")
    return p


def interleaved(steps: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of each step, all steps in turn in every round, so that a busy spell of the machine hits all of them."""
    for step in steps.values():
        for _ in range(warmup):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return times


def median_ratio(times: Mapping[str, list[float]], name: str, baseline: str) -> float:
    """Median over the rounds of the ratio of two steps of the same round."""
    return statistics.median(a / b for a, b in zip(times[name], times[baseline], strict=True))


def peak_rss_gib() -> float:
    """Peak resident memory of this process in GiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent held when it forked
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def finish(result: dict[str, Any], out: Path | None) -> None:
    """Print the result as JSON, with provenance, and write it to ``out``."""
    result = {**result, "provenance": provenance(), "threads": torch.get_num_threads()}
    text = json.dumps(result, indent=2)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
