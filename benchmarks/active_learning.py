"""Dice after annotating 1, 2, 4 and 8 scans that disagreement, entropy or chance chose: a simulation.

    python -m benchmarks.active_learning --cohort COHORT --work WORK --out benchmarks/results/active_learning.json

The pool are the cohort's training scans; an annotation is the scan's own label. The seed chooses the first scan, the
order of chance, the first weights and the order of images; all strategies of a seed share them. At each size GRN+ is
trained anew through its bundle, on the scans annotated so far and for the same number of iterations, and predicts the
test section and what is left of the pool with S(G(x)); the scores of the latter choose the next scans. Stages that are
finished are not repeated, and the result is written anew after each one.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.networks.utils import copy_model_state

from benchmarks._active import correlations, summary
from benchmarks.methods import ROOT, call, spread
from grn_monai.active import SOURCES, disagreement_score, mean_entropy, rank
from grn_monai.data import SliceDataset, datalist
from grn_monai.files import write_whole
from grn_monai.handlers import provenance
from grn_monai.inferers import TwoPlaneInferer
from grn_monai.metrics import dice_per_label, dice_per_slice
from grn_monai.metrics.files import json_text
from grn_monai.transforms import ArgmaxLabelsd, DepthLastd, LoadScand, OrderedLayersd, ScaleEchod, ScanQualityd
from grn_monai.transforms.quality import argmax_labels
from grn_monai.transforms.slices import PLANES

BUNDLE = "us_layers_grn_plus"
STRATEGIES = ("disagreement", "entropy", "random", "planes", "sge")
MAIN = STRATEGIES[:3]
SIZES = (1, 2, 4, 8)
BATCH = 4
VALIDATIONS = 2
"""Validations of each training, from which the checkpoint is chosen; as many at each size."""


@dataclass(frozen=True)
class Stage:
    """One training on annotated scans, with its predictions."""

    seed: int
    strategy: str
    labelled: tuple[str, ...]
    work: Path

    @property
    def folder(self) -> Path:
        """Where all of it is kept; the first scan is the same for all strategies."""
        name = "start" if len(self.labelled) == SIZES[0] else self.strategy
        return self.work / f"seed_{self.seed}" / name / f"scans_{len(self.labelled)}"


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What decides a stage beside its scans."""
    keys = ("iterations", "size", "base_channels", "learning_rate")
    return {"bundle": BUNDLE, "batch": BATCH, "validations": VALIDATIONS, **{k: getattr(args, k) for k in keys}}


def train(stage: Stage, items: Mapping[str, Mapping[str, Any]], args: argparse.Namespace) -> None:
    """The bundle's training with the annotated scans in `train#dataset#data`, as MONAI Label sets them."""
    data = [dict(items[name]) for name in stage.labelled]
    steps = -(-len(SliceDataset(data, size=(args.size, args.size), cache_dir=args.work / "cache")) // BATCH)
    epochs = max(round(args.iterations / steps), 1)
    overlay = stage.folder / "data.json"
    write_whole(overlay, json_text({"train#dataset#data": data}))
    options = {
        "dataset_dir": args.cohort,
        "output_dir": stage.folder / "run",
        "cache_dir": args.work / "cache",
        "slice_size": f"[{args.size},{args.size}]",
        "base_channels": args.base_channels,
        "learning_rate": args.learning_rate,
        "batch_size": BATCH,
        "seed": stage.seed,
        "epochs": epochs,
        "patience": epochs,
        "val_interval": max(epochs // VALIDATIONS, 1),
        "device": "cpu",
    }
    pairs = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    files = f"['configs/train.yaml','{overlay}']"
    line = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", files, *pairs]
    call(line, BUNDLE, stage.folder / "train.txt", args.threads)


def network(stage: Stage, args: argparse.Namespace) -> torch.nn.Module:
    """The bundle's network with the best weights at S(G(x))."""
    parser = ConfigParser()
    parser.read_config(ROOT / "bundles" / BUNDLE / "configs" / "train.yaml")
    parser["base_channels"] = args.base_channels
    module: torch.nn.Module = parser.get_parsed_content("network_def")
    weights = torch.load(stage.folder / "run" / "models" / "model.pt", weights_only=True, map_location="cpu")["model"]
    _, changed, unchanged = copy_model_state(module, weights)
    if unchanged or not changed:
        raise RuntimeError(f"{stage.folder}: {len(unchanged)} weights are not in the checkpoint")
    return module.eval()


def predict(module: torch.nn.Module, item: Mapping[str, Any], args: argparse.Namespace) -> dict[str, float | None]:
    """Scores that need no truth, and the Dice, of one scan: S(G(x)) in both planes, fused and decoded."""
    keys = ("image", "label")
    scan: Any = {key: item[key] for key in keys}
    for transform in (LoadScand(keys), DepthLastd(keys), ScaleEchod("image")):
        scan = transform(scan)
    truth = scan["label"].as_tensor()[0].numpy().astype(np.uint8)
    inferer = TwoPlaneInferer(size=(args.size, args.size), return_planes=True, return_agreement=True)
    found = inferer(scan["image"].as_tensor()[None], module)
    assert isinstance(found, dict)
    scan = {key: value[0] for key, value in found.items()}
    slices = [dice_per_slice(argmax_labels(scan[p]).numpy(), truth, p).mean(1) for p in PLANES]
    entropy = mean_entropy(scan["pred"])
    for transform in (ArgmaxLabelsd("pred"), OrderedLayersd("pred"), ScanQualityd("pred")):
        scan = transform(scan)
    quality = scan["quality"]
    return {
        "disagreement": disagreement_score(quality),
        "planes": disagreement_score(quality, SOURCES[:1]),
        "sge": disagreement_score(quality, SOURCES[1:]),
        "entropy": entropy,
        "planes_percent": quality["plane_disagreement"]["disagreement_percent"],
        "sge_percent": quality["sge_disagreement"]["disagreement_percent"],
        "slice": float(np.concatenate(slices).mean()),
        "decoded": float(dice_per_label(scan["pred"][0].numpy(), truth).mean()),
    }


def work(stage: Stage, args: argparse.Namespace) -> dict[str, Any]:
    """Train and predict, where it is not done yet; what the stage found.

    Raises:
        RuntimeError: the folder holds a stage of other settings.
    """
    file = stage.folder / "stage.json"
    own = {"seed": stage.seed, "labelled": list(stage.labelled), "cohort": str(args.cohort), **settings(args)}
    if file.is_file():
        content: dict[str, Any] = json.loads(file.read_text())
        if other := [f"{k} {content.get(k)!r}, now {v!r}" for k, v in own.items() if content.get(k) != v]:
            raise RuntimeError(f"{file} is of other settings ({'; '.join(other)}): give another --work")
        return content
    start = time.time()
    pool = {item["scan"]: item for item in datalist(args.cohort, "training")}
    train(stage, pool, args)
    trained = time.time()
    module = network(stage, args)
    tested = {item["scan"]: predict(module, item, args) for item in datalist(args.cohort, "test")}
    left = {name: predict(module, item, args) for name, item in pool.items() if name not in stage.labelled}
    record = json.loads((stage.folder / "run" / "run.json").read_text())
    content = {
        **own,
        "test": {kind: statistics.fmean(float(s[kind] or 0) for s in tested.values()) for kind in ("slice", "decoded")},
        "test_scans": tested,
        "left": left,
        "iterations_done": record["iterations"],
        "seconds": {"training": trained - start, "predictions": time.time() - trained},
        "commit": (record.get("git") or {}).get("commit"),
    }
    write_whole(file, json_text(content))
    (stage.folder / "run" / "checkpoint.pt").unlink(missing_ok=True)
    return content


def choose(strategy: str, left: Mapping[str, Mapping[str, Any]], count: int, order: Sequence[str]) -> tuple[str, ...]:
    """The scans to annotate next.

    Args:
        strategy: of `STRATEGIES`.
        left: scan to its scores, of those without annotation.
        count: how many.
        order: all scans of the pool in the order of chance.
    """
    if strategy == "random":
        return tuple(name for name in order if name in left)[:count]
    return tuple(rank({name: scores[strategy] for name, scores in left.items()})[:count])


def simulate(args: argparse.Namespace) -> None:
    """All stages, seed by seed and size by size, so that what is done so far can be compared."""
    pool = sorted(item["scan"] for item in datalist(args.cohort, "training"))
    done: list[dict[str, Any]] = []
    start = time.time()
    for seed in args.seeds:
        order = [pool[i] for i in np.random.default_rng(seed).permutation(len(pool))]
        chains = {s: Stage(seed, s, tuple(order[: SIZES[0]]), args.work) for s in args.strategies}
        for size in SIZES:
            for strategy, stage in chains.items():
                if size > SIZES[0]:
                    left = work(stage, args)["left"]
                    more = choose(strategy, left, size - len(stage.labelled), order)
                    stage = chains[strategy] = Stage(seed, strategy, stage.labelled + more, args.work)
                found = work(stage, args)
                done.append({"strategy": strategy, "scans": size, **found})
                minutes = (time.time() - start) / 60
                dice = ", ".join(f"{kind} {value:.3f}" for kind, value in found["test"].items())
                print(f"seed {seed} {strategy} {size} scans: {dice} ({minutes:.1f} min)", flush=True)
                write(done, args)


def write(done: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    """Write the result so far."""
    drop = ("cohort", *settings(args))
    cohort = json.loads((args.cohort / "dataset.json").read_text())
    result = {
        "benchmark": "active_learning",
        "settings": {**settings(args), "seeds": args.seeds, "strategies": args.strategies, "sizes": list(SIZES)},
        "cohort": {section: len(cohort.get(section, [])) for section in ("training", "validation", "test")},
        "simulated": bool(cohort.get("simulated", (args.cohort / "simulation.json").is_file())),
        "summary": summary(done),
        "correlations": correlations(done),
        "seconds": {part: spread([stage["seconds"][part] for stage in done]) for part in ("training", "predictions")},
        "provenance": provenance(),
        "threads": args.threads,
    }
    stages = [{k: _rounded(v) for k, v in stage.items() if k not in drop} for stage in done]
    lines = ",\n".join(f"    {json.dumps(stage)}" for stage in stages)  # one a line: there are thousands of numbers
    write_whole(
        args.out, f'{json_text(result).rstrip().removesuffix("}").rstrip()},\n  "stages": [\n{lines}\n  ]\n}}\n'
    )


def _rounded(value: Any) -> Any:
    """Numbers of nested dicts to five decimals, NaN to None."""
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value


def main() -> int:
    """Run the simulation."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cohort", type=Path, required=True, help="cohort folder with training, validation and test")
    p.add_argument("--work", type=Path, required=True, help="folder of the runs")
    p.add_argument("--out", type=Path, required=True, help="JSON file of the result")
    p.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(MAIN), metavar="STRATEGY",
                   help=f"{', '.join(STRATEGIES)} (default: the first three)")  # fmt: skip
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default 0 1 2")
    p.add_argument("--iterations", type=int, default=768, help="of each training (default 768)")
    p.add_argument("--size", type=int, default=96, help="side of the slices (default 96)")
    p.add_argument("--base-channels", type=int, default=12, help="width of G (default 12)")
    p.add_argument("--learning-rate", type=float, default=0.0005, help="default 0.0005")
    p.add_argument("--threads", type=int, default=1, help="threads (default 1)")
    args = p.parse_args()
    args.cohort, args.work = args.cohort.resolve(), args.work.resolve()
    torch.set_num_threads(args.threads)
    simulate(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
