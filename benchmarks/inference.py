"""Inference of one 128 × 128 × 256 scan with SGE, from the file to the label file.

    python -m benchmarks.inference --out benchmarks/results/inference.json

Compared in one process, in turn: `plain` (both planes in eager mode, batches of 4, float32, results gathered in lists,
argmax of the mean, written with nibabel) against the bundle's chain in float32, in float32 with the quality numbers
that it writes by default (`quality`: a pass of S(x) more), and in bfloat16 without, for G of width 20 and 12. Peak
memory of each case is that of a process of its own. Weights are random: the time does not depend on them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import UNet
from monai.transforms import Compose, Invertd, SaveImaged

from benchmarks._common import finish, interleaved, median_ratio, parser, peak_rss_gib
from grn_monai.data import AtomicNibabelWriter
from grn_monai.inferers import TwoPlaneInferer
from grn_monai.networks import EnhancedSegmentor, ResNetGenerator
from grn_monai.transforms import (
    ArgmaxLabelsd,
    DepthLastd,
    LoadScand,
    OrderedLayersd,
    SaveQualityd,
    ScaleEchod,
    ScanQualityd,
)

CASES = ("plain_20", "float32_20", "quality_20", "bf16_20", "plain_12", "float32_12", "quality_12", "bf16_12")


def write_scan(path: Path, shape: tuple[int, int, int]) -> None:
    """A smooth random 8-bit volume: the time does not depend on what it shows."""
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 256, shape, dtype=np.uint8)
    nib.save(nib.Nifti1Image(volume, np.diag([0.2, 0.2, 0.15, 1])), path)


def network(base_channels: int) -> EnhancedSegmentor:
    """S(G(x)) as the bundle builds it."""
    torch.manual_seed(0)
    return EnhancedSegmentor(
        ResNetGenerator(base_channels=base_channels), UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2))
    ).eval()


def plain(scan: Path, out: Path, model: EnhancedSegmentor) -> dict[str, float]:
    """The baseline: what a first script would do."""
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    start = time.perf_counter()
    image = nib.load(scan)
    volume = torch.from_numpy(np.asanyarray(image.dataobj).astype(np.float32)) / 127.5 - 1
    fused = torch.zeros(7, *volume.shape)
    with torch.inference_mode():
        for axis in (0, 1):
            slices = volume.movedim(axis, 0)[:, None].transpose(2, 3)  # N, 1, depth, lateral
            outputs = []
            for part in slices.split(4):
                logits = model(F.interpolate(part, (256, 256), mode="bilinear"))
                outputs.append(F.interpolate(logits.softmax(1), part.shape[2:], mode="bilinear"))
            fused += torch.cat(outputs).transpose(2, 3).movedim(0, 1).movedim(1, axis + 1) / 2
    nib.save(nib.Nifti1Image(fused.argmax(0).numpy().astype(np.uint8), image.affine), out / "plain.nii.gz")
    return {"all": time.perf_counter() - start}


def chain(scan: Path, out: Path, model: EnhancedSegmentor, kind: str, batch_size: int) -> dict[str, float]:
    """The bundle's chain; seconds of each part."""
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    pre = Compose([LoadScand("image"), DepthLastd("image"), ScaleEchod("image")])
    quality = kind == "quality"
    decode: Any = OrderedLayersd("pred")
    if quality:
        decode = Compose([ArgmaxLabelsd("pred"), decode, ScanQualityd("pred")])
    post = Compose(
        [
            Invertd("pred", pre, orig_keys="image", nearest_interp=True),
            SaveImaged(
                "pred", output_dir=out, output_postfix="seg", output_ext=".nii.gz", output_dtype=np.uint8,
                separate_folder=False, resample=False, print_log=False, writer=AtomicNibabelWriter,
            ),
            *([SaveQualityd("quality", output_dir=out)] if quality else []),
        ]
    )  # fmt: skip
    inferer: Any = TwoPlaneInferer(batch_size=batch_size, amp=kind == "bf16", return_agreement=quality)
    item: Any = pre({"image": scan})
    mark()
    with torch.inference_mode():
        result = inferer(item["image"][None], model)
        item |= {key: value[0] for key, value in (result if quality else {"pred": result}).items()}
    mark()
    item = decode(item)
    mark()
    post(item)
    mark()
    names = ("load", "networks_and_fusion", "decode", "write")
    parts = {n: b - a for n, a, b in zip(names, marks[:-1], marks[1:], strict=True)}
    return {"all": marks[-1] - marks[0], **parts}


def case(name: str, folder: Path, batch_size: int) -> Callable[[], dict[str, float]]:
    """A case by its name."""
    kind, base = name.rsplit("_", 1)
    model = network(int(base))
    scan = folder / "scan.nii.gz"
    if kind == "plain":
        return lambda: plain(scan, folder, model)
    return lambda: chain(scan, folder, model, kind, batch_size)


def compiled(base: int, batch_size: int) -> dict[str, float]:
    """Seconds to compile, and of the 256 slices after, beside eager mode, float32."""
    eager, fast = network(base), network(base)
    fast.generator.compile()
    fast.segmentor.compile()
    x = torch.rand(batch_size, 1, 256, 256) * 2 - 1
    with torch.inference_mode():
        start = time.perf_counter()
        fast(x)
        first = time.perf_counter() - start
        times = interleaved({"eager": lambda: eager(x), "compiled": lambda: fast(x)}, 9)
    batches = 256 / batch_size
    return {
        "first_call_seconds": first,
        **{f"{k}_256_slices": statistics.median(v) * batches for k, v in times.items()},
    }


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument("--shape", type=int, nargs=3, default=(128, 128, 256), metavar=("X", "Y", "Z"))
    p.add_argument("--rounds", type=int, default=5, help="rounds of all cases (default 5)")
    p.add_argument("--batch-size", type=int, default=8, help="slices in a batch of the chain (default 8)")
    p.add_argument("--compile", action="store_true", help="also time the compiled networks")
    p.add_argument("--only", choices=CASES, help="run one case once and print its peak memory")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scan(folder / "scan.nii.gz", tuple(args.shape))
        if args.only:
            run = case(args.only, folder, args.batch_size)
            before = peak_rss_gib()
            run()
            print(json.dumps({"peak_gib": peak_rss_gib(), "before_gib": before}))
            return
        parts: dict[str, list[dict[str, float]]] = {n: [] for n in CASES}
        runs = {n: case(n, folder, args.batch_size) for n in CASES}
        steps = {n: (lambda n=n: parts[n].append(runs[n]())) for n in CASES}
        times = interleaved(steps, args.rounds, warmup=1)
        memory = {}
        for n in CASES:
            command = [sys.executable, "-m", "benchmarks.inference", "--only", n, "--threads", str(args.threads)]
            shape = ["--shape", *map(str, args.shape), "--batch-size", str(args.batch_size)]
            done = subprocess.run([*command, *shape], capture_output=True, text=True, check=True)
            memory[n] = json.loads(done.stdout.strip().splitlines()[-1])
    result: dict[str, Any] = {
        "benchmark": "inference",
        "shape": list(args.shape),
        "rounds": args.rounds,
        "batch_size": args.batch_size,
        "seconds": {n: statistics.median(t) for n, t in times.items()},
        "ratio_to_plain": {n: median_ratio(times, n, f"plain_{n.rsplit('_', 1)[1]}") for n in CASES},
        "parts_seconds": {n: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for n, rows in parts.items()},
        "memory": memory,
    }
    if args.compile:
        result["compiled"] = {str(b): compiled(b, args.batch_size) for b in (20, 12)}
    finish(result, args.out)


if __name__ == "__main__":
    main()
