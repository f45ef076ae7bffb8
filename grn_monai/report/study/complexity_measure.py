"""Measure what a study's methods cost: parameters, FLOPs, time and memory of training steps and of inference.

All cases are measured in one process and in turn, round by round, so that a busy spell of the machine hits all of them;
times are medians after a warm-up, with the device synchronised before the clock is read.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grn_monai.networks.count import count_flops, count_parameters
from grn_monai.report.study.complexity_cases import (
    Case,
    TrainingStep,
    inference_network,
    training_step,
    write_cohort,
)

__all__ = ["interleaved_seconds", "measure", "step_memory", "tensor_bytes", "used_parameters"]


def _synchronise(device: str) -> None:
    kind = torch.device(device).type
    if kind != "cpu":
        getattr(torch, kind).synchronize()


def interleaved_seconds(
    steps: Mapping[str, Callable[[], Any]], rounds: int, warmup: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each step in each round, all steps in turn in every round.

    Args:
        steps: name to step.
        rounds: measured calls of each step.
        warmup: calls of each step before them.
        device: waited for before and after each call.

    Returns:
        Name to `rounds` times.
    """
    for step in steps.values():
        for _ in range(warmup):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            _synchronise(device)
            start = time.perf_counter()
            step()
            _synchronise(device)
            times[name].append(time.perf_counter() - start)
    return times


def tensor_bytes(tensors: Iterable[Any]) -> int:
    """Bytes of the tensors' storages, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if torch.is_tensor(t)}
    return sum(storages.values())


def _growth_on_cpu(run: Callable[[], Any]) -> int:
    """Highest sum of the bytes that torch's CPU allocator gave out, less those given back, while `run` runs."""
    with torch.autograd.profiler.profile(use_kineto=True, profile_memory=True) as profiler:
        run()
    events = [e for e in profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def step_memory(step: TrainingStep, device: str) -> dict[str, int] | None:
    """Memory of one training step, in bytes; call it after a first step, when the optimizers have their state.

    Args:
        step: the step; one more is made.
        device: where it runs, CPU or CUDA.

    Returns:
        `held`: parameters, buffers and optimizer states, which stay between steps; `step`: what tensors take on top of
        that at the peak (activations, gradients, images on the device); `peak`: the sum. Work space that libraries take
        without torch's allocator is not in it. None for another device.
    """
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        return None
    for optimizer in step.optimizers:
        optimizer.zero_grad(set_to_none=True)
    for network in step.networks:
        network.zero_grad(set_to_none=True)
    states = [value for o in step.optimizers for state in o.state.values() for value in state.values()]
    parts = [t for network in step.networks for t in (*network.parameters(), *network.buffers())]
    held = tensor_bytes([*parts, *states])
    if kind == "cpu":
        growth = _growth_on_cpu(step.run)
    else:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step.run()
        torch.cuda.synchronize(device)
        growth = torch.cuda.max_memory_allocated(device) - before
    return {"held": held, "step": growth, "peak": held + growth}


def used_parameters(network: nn.Module, image: torch.Tensor) -> int:
    """Parameters that take part in the prediction from an image: heads and generators that it does not need are not."""
    network.zero_grad(set_to_none=True)
    out = network(image)
    (out if torch.is_tensor(out) else out[0]).sum().backward()
    used = sum(p.numel() for p in network.parameters() if p.grad is not None)
    network.zero_grad(set_to_none=True)
    return used


def _trained_parameters(step: TrainingStep) -> int:
    groups = [g["params"] for optimizer in step.optimizers for g in optimizer.param_groups]
    return sum({id(p): p.numel() for group in groups for p in group}.values())


def _inference(network: nn.Module, images: torch.Tensor) -> Callable[[], Any]:
    def run() -> Any:
        with torch.inference_mode():
            return network(images)

    return run


def _summary(times: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"seconds": statistics.median(ordered), "fastest": ordered[0], "slowest": ordered[-1]}


def measure(
    cases: Sequence[Case],
    bundles: Path,
    size: int = 256,
    batch: int = 4,
    rounds: int = 15,
    warmup: int = 3,
    device: str = "cpu",
    progress: Callable[[str], Any] = lambda line: None,
) -> dict[str, Any]:
    """Measure all cases in this process.

    Args:
        cases: methods of a study.
        bundles: folder of the bundles.
        size: side of the images in pixels.
        batch: images in a batch, labelled ones in training.
        rounds: measured rounds of all cases.
        warmup: calls of each before them.
        device: such as `cpu` or `cuda`.
        progress: told what is being done.

    Returns:
        `size`, `batch`, `rounds`, `device` and `cases`: for each method its key, title, bundle, overlays, options,
        group and printed name; `train` with `seconds` (median), `fastest`, `slowest`, `images` (labelled,
        unlabelled), `precision`, `parameters` (of the optimizers) and `memory` (see `step_memory`); `inference` by
        mode with the seconds of a batch, `parameters` that take part and `flops` an image. A case that cannot be built
        has an `error` instead.
    """
    rows: list[dict[str, Any]] = []
    steps: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        cohort = write_cohort(Path(folder))
        images = torch.rand(batch, 1, size, size, device=device) * 2 - 1
        for case in cases:
            progress(f"{case.key}: built, counted, memory measured")
            row: dict[str, Any] = {
                "key": case.key,
                "title": case.title,
                "bundle": case.bundle,
                "overlays": list(case.overlays),
                "options": dict(case.options),
                "group": case.group,
                "printed": case.printed,
            }
            rows.append(row)
            try:
                train = training_step(case, bundles, cohort, size, batch, device)
                networks = {mode: inference_network(case, mode, bundles, device) for mode in case.modes}
                train.run()
            except (
                Exception
            ) as error:  # a package that is not installed, a config that does not build: the rest goes on
                row["error"] = " ".join(str(_root(error)).split())[:300] or type(error).__name__
                progress(f"{case.key}: left out, {row['error']}")
                continue
            row["train"] = {
                "images": list(train.images),
                "precision": train.precision,
                "parameters": _trained_parameters(train),
                "memory": step_memory(train, device),
            }
            row["inference"] = {
                mode: {
                    "parameters": used_parameters(network, images[:1]),
                    "stored_parameters": count_parameters(network),
                    "flops": count_flops(network, (1, 1, size, size)),
                }
                for mode, network in networks.items()
            }
            steps[f"{case.key}/train"] = train.run
            steps |= {f"{case.key}/{mode}": _inference(network, images) for mode, network in networks.items()}
        progress(f"{len(steps)} steps in turn, {rounds} rounds")
        times = interleaved_seconds(steps, rounds, warmup, device)
    for row in rows:
        for name, part in (("train", row.get("train")), *(row.get("inference") or {}).items()):
            if part is not None:
                part |= _summary(times[f"{row['key']}/{name}"])
    return {"size": size, "batch": batch, "rounds": rounds, "device": device, "cases": rows}


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
