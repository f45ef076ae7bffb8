"""Backends of inference on the CPU: start-up and seconds of a scan, and how far each is from eager torch.

    python -m benchmarks.backends --run runs/demo --out benchmarks/results/backends.json

One scan of 128 × 128 × 256 voxels through TwoPlaneInferer (both planes, fused), with S(G(x)) and with the U-Net, in
slices of 256 × 256 and of 128 × 128. The scans are timed in one process, all backends in turn, with the same number of
threads. Start-up is that of a process of its own: from the loaded network to the first batch, with the imports,
export and compilation that the backend needs, less the time of a later batch. The networks and the scan (stretched to
the shape) are those of the demo, since only a trained network tells how many labels a backend changes. So
that it ends within ten minutes, slices of 256 × 256 are measured only with what decides on the default, and the
compiler with S(G(x)) in slices of 128 × 128 only.
"""

from __future__ import annotations

import argparse
import copy
import functools
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.nets import UNet
from torch import nn

from benchmarks._common import finish, interleaved, median_ratio, parser
from grn_monai.data import read_volume, scan_list
from grn_monai.inferers import BACKENDS, TwoPlaneInferer, backends
from grn_monai.networks import EnhancedSegmentor, ResNetGenerator
from grn_monai.transforms import PLANES, DepthLast, ScaleEcho

KINDS = (
    "eager", "channels_last", "torchscript", "compiled", "onnxruntime", "openvino", "eager_bf16", "openvino_bf16",
)  # fmt: skip
CASES = {"sge_256": 256, "sge_128": 128, "unet_256": 256, "unet_128": 128}
IN_ALL = ("eager", "onnxruntime", "openvino")
EXACT = 1e-4
"""How far a probability may be from eager torch's in float32."""


class ChannelsLast(nn.Module):
    """The network with all weights and the slices in this layout (G's weights are in it anyway)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of slices ``(N, 1, H, W)``."""
        logits: torch.Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits


def network(case: str, run: Path) -> nn.Module:
    """A trained network of the demo."""
    model: nn.Module = UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2))
    if case.startswith("sge"):
        model = EnhancedSegmentor(ResNetGenerator(base_channels=20), model)
    folder = run / ("grn_plus" if case.startswith("sge") else "unet")
    model.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True)["model"])
    return model.eval()


def load_scan(run: Path, shape: tuple[int, int, int]) -> torch.Tensor:
    """The first test scan, (1, 1, X, Y, Z) in [-1, 1], stretched to the shape."""
    item = scan_list(str(run / "cohort"), "test")[0]
    image: Any = ScaleEcho()(DepthLast()(read_volume(item["image"])))
    image = image.as_tensor()
    return F.interpolate(image[None], shape, mode="trilinear")


def caller(
    kind: str, model: nn.Module, size: int, batch_size: int, planes: Sequence[str] = PLANES
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The inference of volumes by a backend, ready to be called."""
    if kind == "channels_last":
        model = ChannelsLast(model)
    if kind == "torchscript":
        model = torch.jit.freeze(torch.jit.script(model))
    name = kind.removesuffix("_bf16")
    backend = name if name in BACKENDS else "torch"
    inferer: Any = TwoPlaneInferer(planes, (size, size), batch_size, backend=backend, amp=name != kind)

    def call(volume: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            result: torch.Tensor = inferer(volume, model)
            return result

    return call


def start_up(kind: str, case: str, args: argparse.Namespace, cache: str) -> float:
    """Seconds of the first batch less those of a later one, in a process that has imported torch and the networks."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    torch.set_num_threads(args.threads)
    batch = load_scan(args.run, tuple(args.shape))[:, :, : args.batch_size].contiguous()
    model = network(case, args.run)
    times = []
    start = time.perf_counter()
    call = caller(kind, model, CASES[case], args.batch_size, planes=("sagittal",))
    for _ in range(5):
        call(batch)
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    return max(0.0, times[0] - statistics.median(times[2:]))


def start_ups(kind: str, case: str, args: argparse.Namespace) -> dict[str, float]:
    """`start_up`, the lower of two processes; of the compiler without and with what it keeps on disk."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["grn_monai.inferers", "monai.networks.nets"])
    found = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                found.append(pool.submit(start_up, kind, case, args, cache).result())
    if kind == "compiled":
        return {"start_up": found[0], "start_up_again": found[1]}
    return {"start_up": min(found)}


def default_kinds(case: str) -> list[str]:
    """What is measured unless ``--kinds`` says otherwise."""
    kinds = KINDS if CASES[case] == 128 else IN_ALL
    return [kind for kind in kinds if kind != "compiled" or case == "sge_128"]


def measure(case: str, args: argparse.Namespace) -> dict[str, Any]:
    """All backends on one network and slice size."""
    scan, model = load_scan(args.run, tuple(args.shape)), network(case, args.run)
    kinds = args.kinds or default_kinds(case)
    calls = {kind: caller(kind, model, CASES[case], args.batch_size) for kind in kinds}
    reference = calls["eager"](scan)
    labels = reference.argmax(1)
    result: dict[str, Any] = {}
    for kind, call in calls.items():
        found = call(scan)  # which is the warm-up too
        difference = float((found - reference).abs().max())
        result[kind] = {
            "max_difference": difference,
            "exact": difference <= EXACT,
            "different_labels": int((found.argmax(1) != labels).sum()),
        }
        print(f"{case} {kind}: compared", file=sys.stderr)
    del found, reference, labels
    steps = {kind: functools.partial(call, scan) for kind, call in calls.items()}
    times = interleaved(steps, args.rounds, warmup=0)
    for kind, entry in result.items():
        entry["seconds"] = statistics.median(times[kind])
        entry["over_eager"] = median_ratio(times, kind, "eager")
        entry |= start_ups(kind, case, args)
        print(f"{case} {kind}: {entry['seconds']:.2f} s, start-up {entry['start_up']:.2f} s", file=sys.stderr)
    for entry in result.values():
        entry["pays_from_scan"] = pays_from(entry, result["eager"])
    return result


def digest(run: Path) -> dict[str, float]:
    """What a look at all weights costs, which every call of a backend other than torch takes."""
    model = network("sge_256", run)
    times = interleaved({"digest": lambda: backends._digest(model)}, 20)["digest"]
    return {"weights": sum(w.numel() for w in model.parameters()), "seconds": statistics.median(times)}


def pays_from(entry: dict[str, Any], eager: dict[str, Any]) -> int | None:
    """The number of scans from which a backend has taken less time than eager torch, start-ups included."""
    saved = eager["seconds"] - entry["seconds"]
    dearer = entry["start_up"] - eager["start_up"]
    return max(1, math.floor(dearer / saved) + 1) if saved > 0 else None


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument("--run", type=Path, default=Path("runs/demo"), help="a finished `make demo` (default runs/demo)")
    p.add_argument("--shape", type=int, nargs=3, default=(128, 128, 256), metavar=("X", "Y", "Z"))
    p.add_argument("--rounds", type=int, default=3, help="rounds of all backends (default 3)")
    p.add_argument("--batch-size", type=int, default=8, help="slices in a batch (default 8)")
    p.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    p.add_argument("--kinds", nargs="+", choices=KINDS, help="in all cases; eager has to be among them")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {
        "benchmark": "backends",
        "shape": list(args.shape),
        "rounds": args.rounds,
        "batch_size": args.batch_size,
        "exact": EXACT,
        "processor_has_bfloat16": processor_has_bfloat16(),
        "digest": digest(args.run),
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino")},
        "cases": {case: measure(case, args) for case in args.cases},
    }
    finish(result, args.out)


def processor_has_bfloat16() -> bool | None:
    """Whether the processor computes with bfloat16; None where it cannot be told."""
    info = Path("/proc/cpuinfo")
    return any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16")) if info.is_file() else None


if __name__ == "__main__":
    main()
