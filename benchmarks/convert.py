"""Conversion of a 256 × 256 × 512 volume of each format, against reading it with the format's library alone.

    python -m benchmarks.convert --out benchmarks/results/convert.json

For each format: `library` (voxels in memory by the library that knows the format, nothing checked or reordered),
`reader` (this project's reader) and `convert` (one scan of `python -m data_prep convert`: read, B-mode, written as
.nii.gz). Each runs in a process of its own, in turn; seconds are medians over the rounds, memory is the peak above
what the process held after its imports. Imports are not counted.
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

import numpy as np
import numpy.typing as npt

from benchmarks._common import finish, parser, peak_rss_gib
from data_prep.convert.one import Job, convert_scan
from data_prep.convert.plan import Request, plan_conversion
from data_prep.convert.read import read_image
from data_prep.convert.source import ReadOptions

FORMATS = (
    "nifti", "mha", "nrrd", "mat_v5", "mat_v73", "uff", "raw", "slices", "us_multi_frame", "us_enhanced", "ct_series",
)  # fmt: skip
TASKS = ("library", "reader", "convert")
SHAPE = (256, 256, 512)
SPACING = (0.2, 0.2, 0.15)
_OPTIONS: dict[str, ReadOptions] = {
    "mat_v5": ReadOptions(spacing=SPACING, data="linear"),
    "mat_v73": ReadOptions(spacing=SPACING, data="linear"),
    "uff": ReadOptions(data="iq"),
    "slices": ReadOptions(spacing=SPACING),
    "us_multi_frame": ReadOptions(frame_spacing=0.2),
}


def volume() -> npt.NDArray[np.uint8]:
    """Speckle, which hardly compresses: uint8 (X, Y, Z)."""
    envelope = np.random.default_rng(0).rayleigh(40, SHAPE).astype(np.float32)
    return envelope.clip(0, 255).astype(np.uint8)


def _write(kind: str, folder: Path) -> Path:
    """Write the volume in a format, and return the file or folder to convert."""
    from benchmarks import _formats

    return getattr(_formats, f"write_{kind}")(folder, volume(), SPACING)


def _library(kind: str, path: Path) -> Callable[[], Any]:
    """What reads the file with the format's own library, imported already."""
    from benchmarks import _formats

    return getattr(_formats, f"load_{kind}")(path)


def child(task: str, kind: str, path: Path) -> dict[str, float]:
    """One task in this process."""
    if task == "library":
        work = _library(kind, path)
    else:
        layout = "slice-pairs" if kind == "slices" else "auto"
        request = Request(path, path.parent / "out", layout, options=_OPTIONS.get(kind, ReadOptions()))
        [source] = plan_conversion(request).sources

        def work() -> Any:
            if task == "reader":
                return read_image(source)
            with tempfile.TemporaryDirectory() as out:
                return convert_scan(Job(source, Path(out, "i.nii.gz"), Path(out, "l.nii.gz")))

    before = peak_rss_gib()
    start = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - start
    del kept
    return {"seconds": seconds, "peak_gib": peak_rss_gib() - before}


def main() -> None:
    """Measure every format."""
    p = parser(__doc__)
    p.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--child", nargs=3, metavar=("TASK", "KIND", "PATH"), help="used by the benchmark itself")
    args = p.parse_args()
    if args.child:
        print(json.dumps(child(args.child[0], args.child[1], Path(args.child[2]))))
        return
    result: dict[str, Any] = {"shape": SHAPE, "rounds": args.rounds, "formats": {}}
    for kind in args.formats:
        with tempfile.TemporaryDirectory() as folder:
            path = _write(kind, Path(folder))
            files = [path] if path.is_file() else list(path.iterdir())
            entry: dict[str, Any] = {"mib_on_disk": sum(file.stat().st_size for file in files) / 2**20}
            runs: dict[str, list[dict[str, float]]] = {task: [] for task in TASKS}
            for _ in range(args.rounds):
                for task in TASKS:
                    runs[task].append(_measure(task, kind, path))
        for task, found in runs.items():
            entry[task] = {key: statistics.median(run[key] for run in found) for key in ("seconds", "peak_gib")}
        for task in ("reader", "convert"):
            entry[task]["times_library"] = statistics.median(
                a["seconds"] / b["seconds"] for a, b in zip(runs[task], runs["library"], strict=True)
            )
        result["formats"][kind] = entry
        print(kind, json.dumps(entry), file=sys.stderr)
    finish(result, args.out)


def _measure(task: str, kind: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.convert", "--child", task, kind, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{kind}, {task}: {done.stderr[-2000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


if __name__ == "__main__":
    main()
