"""Time of a training step and of one volume, from file to label file, of the CT and the MR bundle.

    python -m benchmarks.muscle_times --out benchmarks/results/muscle_times.json

Networks, losses, optimizers and inference chains are those of the bundles' configs, with their published sizes. The
baselines, in the same process and in turn: of a training step `loop`, a bare loop of the same network (forward, loss,
backward, optimizer); of a volume `network`, the same forward passes without reading, resampling, deciding or writing.
Weights are random: the time does not depend on them. The CT volume is simulated at 512 × 512 × 40, the MR at
320 × 320 × 40.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer

from benchmarks._common import finish, interleaved, median_ratio, parser, peak_rss_gib
from grn_monai.engines import JointTrainer

ROOT = Path(__file__).parents[1]
BUNDLES = {"ct": "ct_lumbar_muscle", "mri": "mri_paraspinal_muscle"}
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ct": ("ct", ()),
    "ct_grn_plus": ("ct", ("grn_plus",)),
    "mri_2d": ("mri", ()),
    "mri_grn_plus": ("mri", ("grn_plus",)),
    "mri_3d": ("mri", ("three_d",)),
}
VOLUMES = {
    "ct": ["--shape", "512", "512", "40", "--spacing", "0.7", "0.7", "5"],
    "mri": ["--shape", "320", "320", "40", "--spacing", "0.7", "0.7", "5", "--spacing-jitter", "0"],
}


def config(modality: str, names: tuple[str, ...], options: dict[str, Any]) -> ConfigParser:
    """A bundle's configs, one over the other."""
    files = [str(ROOT / "bundles" / BUNDLES[modality] / "configs" / f"{name}.yaml") for name in names]
    read = ConfigParser(ConfigParser.load_config_files(files))
    for key, value in {"device": "cpu", **options}.items():
        read[key] = value
    return read


def steps(case: str) -> tuple[dict[str, Callable[[], Any]], list[int]]:
    """The bundle's step and the bare loop of a case, and the shape of its batch."""
    modality, overlays = CASES[case]
    read = config(modality, ("train", *overlays), {})
    size = read.get_parsed_content("slice_size" if modality == "ct" else "patch_size")
    batch_size = read.get_parsed_content("batch_size")
    classes = read.get_parsed_content("out_channels") if modality == "ct" else 7
    shape = (batch_size, 1, *size)
    batch = {"image": torch.rand(shape) * 2 - 1, "label": torch.randint(0, max(2, classes), shape)}
    loss, optimizer = read.get_parsed_content("loss"), read.get_parsed_content("optimizer")
    network = read.get_parsed_content("segmentor" if "grn_plus" in overlays else "network")
    options: dict[str, Any] = {"decollate": False, "optim_set_to_none": True}
    if "grn_plus" in overlays:
        joint = (read.get_parsed_content("generator"), read.get_parsed_content("joint_optimizer"))
        trainer: Any = JointTrainer("cpu", 1, [batch], network, optimizer, loss, *joint, **options)
    else:
        trainer = SupervisedTrainer("cpu", 1, [batch], network, optimizer, loss, **options)
    network.train()

    def loop() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(batch["image"]), batch["label"]).backward()
        optimizer.step()

    return {case: lambda: trainer._iteration(trainer, batch), f"{case}_loop": loop}, list(shape)


def train_times(case: str, rounds: int) -> dict[str, Any]:
    """Seconds of a step and its ratio to the loop's."""
    cases, shape = steps(case)
    times = interleaved(cases, rounds, warmup=1)
    return {
        "batch": shape,
        "seconds": statistics.median(times[case]),
        "loop_seconds": statistics.median(times[f"{case}_loop"]),
        "ratio_to_loop": median_ratio(times, case, f"{case}_loop"),
    }


def scan_of(modality: str, folder: Path) -> Path:
    """A cohort of one simulated scan."""
    out = folder / modality
    line = [sys.executable, "-m", "data_prep", "simulate", "--modality", modality, "--out", str(out),
            "--split", "1", "0", "1", *VOLUMES[modality]]  # fmt: skip
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    return out


def inference_times(case: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of one volume from file to label file, and of its forward passes alone."""
    modality, overlays = CASES[case]
    names = ("inference", *("sge" if name == "grn_plus" else name for name in overlays))
    weights = folder / f"{case}.pt"
    options = {"dataset_dir": str(folder / modality), "output_dir": str(folder / f"{case}_out")}
    with contextlib.chdir(ROOT / "bundles" / BUNDLES[modality]):
        read = config(modality, names, {**options, "ckpt_path": str(weights)})
        network = read.get_parsed_content("network")
        torch.save({"model": network.state_dict()}, weights)
        Path(options["output_dir"]).mkdir()
        evaluator = read.get_parsed_content("evaluator")
        seen: list[torch.Size] = []
        hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
        before = peak_rss_gib()
        evaluator.run()
        hook.remove()
        peak = peak_rss_gib()
        windows = [torch.rand(shape) for shape in seen]

        def passes() -> None:
            network.eval()
            with torch.inference_mode():
                for window in windows:
                    network(window)

        times = interleaved({"volume": evaluator.run, "network": passes}, rounds, warmup=0)
    return {
        "shape": VOLUMES[modality][1:4],
        "windows": sum(shape[0] for shape in seen),
        "window": list(seen[0][2:]) if seen else [],
        "seconds": statistics.median(times["volume"]),
        "network_seconds": statistics.median(times["network"]),
        "ratio_to_network": median_ratio(times, "volume", "network"),
        "peak_gib": peak,
        "before_gib": before,
    }


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument("--rounds", type=int, default=5, help="rounds of all cases (default 5)")
    p.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    result: dict[str, Any] = {"benchmark": "muscle_times", "rounds": args.rounds, "training_step": {}, "volume": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for modality in dict.fromkeys(CASES[case][0] for case in args.cases):
            scan_of(modality, folder)
        for case in args.cases:
            result["volume"][case] = inference_times(case, folder, args.rounds)
            result["training_step"][case] = train_times(case, args.rounds)
    finish(result, args.out)


if __name__ == "__main__":
    main()
