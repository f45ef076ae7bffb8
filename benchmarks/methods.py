"""Dice of U-Net, GRN+, GRN-SEL and GRN-SSL with few labels, over several seeds, each run through its bundle.

    python -m benchmarks.methods --cohort COHORT --work runs/methods --out benchmarks/results/methods.json

The seed chooses the labelled subjects, the first weights and the order of images; all methods of a seed share them.
Runs that are finished are not repeated, a run that was cut goes on, and the result is written anew after each one.
A run that fails is recorded with its error, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grn_monai.data import datalist
from grn_monai.files import write_whole
from grn_monai.handlers import provenance
from grn_monai.study.commands import bundle_command

ROOT = Path(__file__).parents[1]
KINDS = ("slice", "volume", "decoded")


@dataclass(frozen=True)
class Method:
    """A bundle, its overlays for training and its options."""

    bundle: str
    overlays: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)

    @property
    def modes(self) -> tuple[str, ...]:
        """What can be predicted with: S(x), and S(G(x)) where there is a G."""
        return ("raw", "sge") if "grn" in self.bundle else ("raw",)


UPDATE = "segmentor_update"
METHODS = {
    "unet": Method("us_layers_supervised"),
    "grn_plus_joint": Method("us_layers_grn_plus"),
    "grn_sel_alternate": Method("us_layers_grn_sel"),
    "grn_ssl_alternate": Method("us_layers_grn_ssl"),
    "grn_plus_alternate": Method("us_layers_grn_plus", options={UPDATE: "alternate"}),
    "grn_sel_joint": Method("us_layers_grn_sel", options={UPDATE: "joint"}),
    "grn_ssl_joint": Method("us_layers_grn_ssl", options={UPDATE: "joint"}),
    "grn_plus_single_stage": Method("us_layers_grn_plus", ("single_stage",)),
    "grn_sel_no_seg_feedback": Method("us_layers_grn_sel", ("no_seg_feedback",)),
    "grn_sel_negated_seg_feedback": Method("us_layers_grn_sel", ("negated_seg_feedback",)),
    "unet_augment": Method("us_layers_supervised", ("augment",)),
    "unet_gan_augment": Method("us_layers_supervised", ("gan_augment",)),
}
MAIN = tuple(METHODS)[:7]


@dataclass(frozen=True)
class Run:
    """One training with its evaluations."""

    method: str
    seed: int
    folder: Path

    @property
    def output(self) -> Path:
        """Where the training writes."""
        return self.folder / self.method

    def evaluation(self, mode: str) -> Path:
        """Where an evaluation writes."""
        return self.folder / "evaluation" / (self.method if mode == "raw" else f"{self.method}_sge")


def command(method: Method, configs: Sequence[str], args: argparse.Namespace, run: Run, training: bool) -> list[str]:
    """The command that a user would type."""
    options: dict[str, Any] = {
        "dataset_dir": str(args.cohort.resolve()),
        "output_dir": str(run.output),
        "slice_size": [args.size, args.size],
        "fraction": args.fraction,
        "seed": run.seed,
        "device": args.device,
        **method.options,
    }
    if training:
        options |= {"epochs": args.epochs, "patience": args.epochs}
    entry = ("training",) if training else ()
    return list(bundle_command(ROOT / "bundles" / method.bundle, configs, options, *entry).line)


def call(line: list[str], bundle: str, log: Path, threads: int) -> None:
    """Run a command in a bundle's folder; its output goes to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    with open(log, "w") as file:
        done = subprocess.run(line, cwd=ROOT / "bundles" / bundle, env=environment, stdout=file, stderr=file)
    if done.returncode:
        last = [text for text in log.read_text(errors="replace").splitlines() if text.strip()][-1:]
        raise RuntimeError(f"{log}: exit {done.returncode}: {' '.join(last)[-500:]}")


def finished(run: Run, args: argparse.Namespace) -> bool:
    """Whether the training has reached its end.

    Raises:
        RuntimeError: when the folder holds a run of other settings.
    """
    record = run.output / "run.json"
    if not record.is_file():
        return False
    content = json.loads(record.read_text())
    config = content["config"]
    wanted = {
        "fraction": args.fraction,
        "seed": run.seed,
        "slice_size": [args.size, args.size],
        "dataset_dir": str(args.cohort.resolve()),
        **METHODS[run.method].options,
    }
    other = [f"{k} {config.get(k)!r}, now {v!r}" for k, v in wanted.items() if str(config.get(k)) != str(v)]
    if other:
        raise RuntimeError(f"{run.output} holds a run of other settings ({'; '.join(other)}): give another --work")
    return content["status"] == "completed" and content.get("epochs", 0) >= args.epochs


def evaluated(run: Run, mode: str) -> bool:
    """Whether the evaluation is that of the finished training."""
    result, record = run.evaluation(mode) / "metrics.json", run.output / "run.json"
    return result.is_file() and result.stat().st_mtime >= record.stat().st_mtime


def work(run: Run, args: argparse.Namespace) -> None:
    """Train and evaluate, where it is not done yet."""
    method = METHODS[run.method]
    if not finished(run, args):
        line = command(method, ["train", *method.overlays], args, run, training=True)
        call(line, method.bundle, run.folder / "logs" / f"{run.method}.txt", args.threads)
    for mode in () if args.train_only else method.modes:
        place = run.evaluation(mode)
        if evaluated(run, mode):
            continue
        # No overlay of the training: it changes what is trained, not what is predicted.
        configs = ["train", "evaluate", *(["no_sge"] if mode == "raw" and "sge" in method.modes else [])]
        line = command(method, configs, args, run, training=False)
        line += ["--eval_dir", str(place), "--surface_distances", "false"]
        call(line, method.bundle, run.folder / "logs" / f"{place.name}_evaluation.txt", args.threads)


def rows(runs: Sequence[Run], args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each evaluation of a finished training."""
    for run in runs:
        try:
            modes = METHODS[run.method].modes if finished(run, args) else ()
        except RuntimeError:  # of other settings: in the list of failures already
            continue
        for mode in modes:
            if evaluated(run, mode):
                file = run.evaluation(mode) / "metrics.json"
                metrics, record = json.loads(file.read_text()), json.loads((run.output / "run.json").read_text())
                yield {
                    "method": run.method,
                    "mode": mode,
                    "seed": run.seed,
                    **{kind: metrics[kind]["mean"] for kind in KINDS},
                    "dice_decoded": metrics["decoded"]["dice"],
                    "iterations": record["iterations"],
                    "seconds": record["seconds"] + sum(e.get("seconds") or 0 for e in record.get("earlier", [])),
                    "commit": (record.get("git") or {}).get("commit"),
                }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation over seeds, and the values."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": deviation, "n": len(values), "values": list(values)}


def summary(table: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and the paired difference of each to the U-Net of the same seed."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in table:
        groups.setdefault(f"{row['method']}/{row['mode']}", []).append(row)
    base = {row["seed"]: row for row in groups.get("unet/raw", [])}
    result = {}
    for name, group in groups.items():
        result[name] = {kind: spread([row[kind] for row in group]) for kind in KINDS}
        paired = [row for row in group if row["seed"] in base]
        if paired and name != "unet/raw":
            result[name]["minus_unet"] = {
                kind: spread([row[kind] - base[row["seed"]][kind] for row in paired]) for kind in KINDS
            }
    return result


def write(runs: Sequence[Run], failures: dict[str, str], args: argparse.Namespace) -> None:
    """Write the result so far."""
    table = list(rows(runs, args))
    cohort = json.loads((args.cohort / "dataset.json").read_text())
    result = {
        "benchmark": "methods",
        "settings": {k: getattr(args, k) for k in ("fraction", "epochs", "size", "seeds", "device")},
        "cohort": {section: len(cohort.get(section, [])) for section in ("training", "validation", "test")},
        "labelled_scans": sorted(
            {len(datalist(args.cohort, "training", fraction=args.fraction, seed=s)) for s in args.seeds}
        ),
        "simulated": bool(cohort.get("simulated", (args.cohort / "simulation.json").is_file())),
        "summary": summary(table),
        "rows": table,
        "failures": failures,
        "provenance": provenance(),
    }
    write_whole(args.out, json.dumps(result, indent=2) + "\n")


def main() -> int:
    """Run the study."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cohort", type=Path, required=True, help="cohort folder")
    p.add_argument("--work", type=Path, required=True, help="folder of the runs")
    p.add_argument("--out", type=Path, required=True, help="JSON file of the result")
    p.add_argument("--methods", nargs="+", choices=METHODS, default=MAIN, metavar="METHOD", help=", ".join(METHODS))
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default 0 1 2")
    p.add_argument("--fraction", type=float, default=0.05, help="share of the labels (default 0.05)")
    p.add_argument("--epochs", type=int, default=20, help="passes over the labelled images (default 20)")
    p.add_argument("--size", type=int, default=128, help="side of the slices (default 128)")
    p.add_argument("--device", default="cpu", help="default cpu")
    p.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    p.add_argument("--threads", type=int, default=1, help="threads of each run (default 1)")
    p.add_argument("--train-only", action="store_true", help="leave the evaluations to a later call")
    args = p.parse_args()
    args.work = args.work.resolve()
    runs = [Run(name, seed, args.work / f"seed_{seed}") for seed in args.seeds for name in args.methods]
    failures: dict[str, str] = {}
    start = time.time()
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = {pool.submit(work, run, args): run for run in runs}
        for done, future in enumerate(as_completed(waiting), 1):
            run = waiting[future]
            if error := future.exception():
                failures[f"seed_{run.seed}/{run.method}"] = str(error)
            minutes = (time.time() - start) / 60
            print(f"{done}/{len(runs)} {run.method} seed {run.seed} {error or 'done'} ({minutes:.1f} min)", flush=True)
            write(runs, failures, args)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
