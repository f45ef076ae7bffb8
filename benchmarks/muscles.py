"""The CT and the MR bundle on simulated cohorts: Dice, ICC of the volumes, and whether SGE helps outside ultrasound.

    python -m benchmarks.muscles --work runs/muscles --out benchmarks/results/muscles.json

Each run goes through its bundle. The seed chooses the labelled subjects, the first weights and the order of images;
all methods of a seed share them, and all make the same number of training steps. Runs that are finished are not
repeated, a run that was cut goes on, and the result is written anew after each one. The CT networks without G that saw
all labels also segment a real CT (`--real`), which they have never seen the like of: the number is what it is.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.methods import call, spread
from grn_monai.errors import InputError
from grn_monai.files import write_whole
from grn_monai.handlers import provenance
from grn_monai.measure.repeatability import icc_2_1
from grn_monai.study.commands import bundle_command

ROOT = Path(__file__).parents[1]
BUNDLES = {"ct": "ct_lumbar_muscle", "mri": "mri_paraspinal_muscle"}
COHORTS = {
    "ct": ["--shape", "128", "128", "12", "--spacing", "2.8", "2.8", "8"],
    "mri": ["--shape", "160", "160", "12", "--spacing", "1.5", "1.5", "6"],
}
SUBJECTS = ("8", "2", "8")
STEPS = 280
"""Training steps of every run."""
OPTIONS: dict[str, dict[str, Any]] = {
    "ct": {"slice_size": [128, 128], "plateau_patience": 4},
    "mri": {"spacing": [1.5, 1.5, 6.0], "batch_size": 8, "iterations": STEPS, "val_every": 28},
}
SLICES = 12
BATCH = 15


@dataclass(frozen=True)
class Method:
    """A bundle's overlays for training, and options."""

    modality: str
    overlays: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def modes(self) -> tuple[str, ...]:
        """What can be predicted with: S(x), and S(G(x)) where there is a G."""
        return ("raw", "sge") if "grn_plus" in self.overlays else ("raw",)


THREE_D = {"patch_size": [128, 128, 16], "batch_size": 2}
TWO_D = {"patch_size": [128, 128]}
METHODS = {
    "ct_unet": Method("ct"),
    "ct_grn_plus": Method("ct", ("grn_plus",)),
    "mri_2d": Method("mri", (), TWO_D),
    "mri_grn_plus": Method("mri", ("grn_plus",), TWO_D),
    "mri_2d_augment": Method("mri", ("augment",), TWO_D),
    "mri_3d": Method("mri", ("three_d",), THREE_D),
    "mri_3d_augment": Method("mri", ("three_d", "augment"), THREE_D),
}
FEW = ("ct_unet", "ct_grn_plus", "mri_2d", "mri_grn_plus")
"""Methods that are also trained with few labels."""


@dataclass(frozen=True)
class Run:
    """One training with its evaluations."""

    method: str
    fraction: float
    seed: int
    work: Path

    @property
    def name(self) -> str:
        """Where it stands in the folder of runs."""
        return f"{self.method}/{100 * self.fraction:g}pct/seed_{self.seed}"

    @property
    def output(self) -> Path:
        """Folder of the training."""
        return self.work / self.name

    @property
    def modality(self) -> str:
        """`ct` or `mri`."""
        return METHODS[self.method].modality

    def evaluation(self, mode: str) -> Path:
        """Folder of an evaluation."""
        return self.output / f"evaluation_{mode}"


def epochs(fraction: float) -> int:
    """Passes over the labelled CT slices that make `STEPS` steps of `BATCH`; the rest of a pass is a step too."""
    slices = max(1, round(fraction * int(SUBJECTS[0]))) * SLICES
    return -(-STEPS // -(-slices // BATCH))


def options(run: Run, training: bool) -> dict[str, Any]:
    """Options of a command of this run."""
    common = {
        "dataset_dir": str(run.work / f"cohort_{run.modality}"),
        "output_dir": str(run.output),
        "fraction": run.fraction,
        "seed": run.seed,
        "device": "cpu",
        **OPTIONS[run.modality],
        **METHODS[run.method].options,
    }
    if training and run.modality == "ct":
        count = epochs(run.fraction)
        common |= {"epochs": count, "val_interval": max(1, count // 10), "patience": count}
    return common


def command(run: Run, configs: Sequence[str], more: dict[str, Any], *entry: str) -> list[str]:
    """The command that a user would type."""
    return list(bundle_command(ROOT / "bundles" / BUNDLES[run.modality], configs, more, *entry).line)


def trained(run: Run) -> bool:
    """Whether the training has reached its end."""
    file = run.output / "run.json"
    return file.is_file() and json.loads(file.read_text())["status"] == "completed"


def work(run: Run, threads: int) -> None:
    """Train and evaluate, where it is not done yet."""
    method, bundle = METHODS[run.method], BUNDLES[run.modality]
    if not trained(run):
        line = command(run, ["train", *method.overlays], options(run, True), "training")
        call(line, bundle, run.output / "train.txt", threads)
    for mode in method.modes:
        place = run.evaluation(mode)
        if (place / "metrics.json").is_file():
            continue
        more = {**options(run, False), "eval_dir": str(place)}
        if len(method.modes) > 1:
            more["sge"] = mode == "sge"
        # The overlays that change the network; augmentation changes the training alone.
        configs = ["train", *(name for name in method.overlays if name != "augment"), "evaluate"]
        call(command(run, configs, more), bundle, run.output / f"evaluate_{mode}.txt", threads)


def icc(file: Path) -> dict[str, float]:
    """ICC(2,1) of predicted and true volume over the scans, by muscle; left out where volumes do not vary."""
    volumes: dict[str, list[tuple[float, float]]] = {}
    with open(file, newline="") as lines:
        for row in csv.DictReader(lines):
            if row["volume_ml"] and row["truth_volume_ml"]:
                pair = (float(row["volume_ml"]), float(row["truth_volume_ml"]))
                volumes.setdefault(row["muscle"], []).append(pair)
    found = {name: icc_2_1(pairs) for name, pairs in volumes.items()}
    return {name: value[0] for name, value in found.items() if value is not None}


def rows(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """One row for each evaluation of a finished training."""
    for run in runs:
        for mode in METHODS[run.method].modes if trained(run) else ():
            place = run.evaluation(mode)
            if not (place / "metrics.json").is_file():
                continue
            scores = json.loads((place / "metrics.json").read_text())["volume"]
            record = json.loads((run.output / "run.json").read_text())
            agreement = icc(place / "muscles.csv")
            yield {
                "method": run.method,
                "mode": mode,
                "fraction": run.fraction,
                "seed": run.seed,
                "dice": scores["mean"],
                "dice_by_muscle": scores["dice"],
                "icc_by_muscle": agreement,
                "icc": statistics.fmean(agreement.values()) if agreement else None,
                "scans": scores["n_scans"],
                "iterations": record["iterations"],
                "seconds": record["seconds"],
                "commit": (record.get("git") or {}).get("commit"),
            }


def summary(table: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the paired difference to the network without G of the same seed and fraction."""
    base = {"ct": "ct_unet", "mri": "mri_2d"}
    key = {(r["method"], r["mode"], r["fraction"], r["seed"]): r for r in table}
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for row in table:
        groups.setdefault((row["method"], row["mode"], row["fraction"]), []).append(row)
    result = {}
    for (method, mode, fraction), group in sorted(groups.items(), key=lambda item: (item[0][2], item[0][:2])):
        entry: dict[str, Any] = {"dice": spread([r["dice"] for r in group])}
        if known := [r["icc"] for r in group if r["icc"] is not None]:
            entry["icc"] = spread(known)
        plain = (base[METHODS[method].modality], "raw", fraction)
        pairs = [(r, key[(*plain, r["seed"])]) for r in group if (*plain, r["seed"]) in key]
        if pairs and (method, mode) != plain[:2]:
            entry["dice_minus_plain"] = spread([a["dice"] - b["dice"] for a, b in pairs])
        result[f"{method}/{mode}/{100 * fraction:g}"] = entry
    return result


def on_real_ct(run: Run, cohort: Path, threads: int) -> dict[str, Any] | None:
    """Dice of a CT training on a real CT cohort, whatever it is."""
    place = run.output / "evaluation_real"
    if not (place / "metrics.json").is_file():
        more = {**options(run, False), "dataset_dir": str(cohort), "eval_dir": str(place)}
        more |= {"label_values": "totalsegmentator"}
        call(command(run, ["train", "evaluate"], more), BUNDLES["ct"], run.output / "evaluate_real.txt", threads)
    scores = json.loads((place / "metrics.json").read_text())["volume"]
    record = json.loads((place / "run.json").read_text())
    return {"method": run.method, "seed": run.seed, "dice": scores["mean"], "seconds": record.get("seconds")}


def simulate(work: Path, modality: str) -> None:
    """The cohort of a modality; quick where it is there."""
    line = [sys.executable, "-m", "data_prep", "simulate", "--modality", modality, "--out",
            str(work / f"cohort_{modality}"), "--split", *SUBJECTS, *COHORTS[modality]]  # fmt: skip
    if subprocess.run(line, cwd=ROOT).returncode:
        raise InputError(" ".join(line), "a simulation that failed", "a cohort", "See the error above.")


def write(runs: Sequence[Run], failures: dict[str, str], real: list[Any], out: Path) -> None:
    """Write the result so far."""
    table = list(rows(runs))
    result = {
        "benchmark": "muscles",
        "simulated": True,
        "settings": {"subjects": SUBJECTS, "cohorts": COHORTS, "steps": STEPS, "options": OPTIONS},
        "summary": summary(table),
        "real_ct": real,
        "rows": table,
        "failures": failures,
        "provenance": provenance(),
    }
    write_whole(out, json.dumps(result, indent=2) + "\n")


def main() -> int:
    """Run the grid."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, required=True, help="folder of the cohorts and runs")
    p.add_argument("--out", type=Path, required=True, help="JSON file of the result")
    p.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default 0 1 2")
    p.add_argument("--fractions", nargs="+", type=float, default=[0.25, 1.0], help="of the labels (default 0.25 1)")
    p.add_argument("--real", type=Path, help="cohort folder of real CT with TotalSegmentator's label values")
    p.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    p.add_argument("--threads", type=int, default=1, help="threads of each run (default 1)")
    args = p.parse_args()
    args.work = args.work.resolve()
    for modality in dict.fromkeys(METHODS[name].modality for name in args.methods):
        simulate(args.work, modality)
    runs = [
        Run(name, fraction, seed, args.work)
        for seed in args.seeds
        for fraction in args.fractions
        for name in args.methods
        if fraction == 1 or name in FEW
    ]
    failures: dict[str, str] = {}
    real: list[Any] = []
    start = time.time()
    with ThreadPoolExecutor(args.jobs) as pool:
        waiting = {pool.submit(work, run, args.threads): run for run in runs}
        for done, future in enumerate(as_completed(waiting), 1):
            run = waiting[future]
            if error := future.exception():
                failures[run.name] = str(error)
            elif args.real and run.method == "ct_unet" and run.fraction == 1:
                try:
                    real.append(on_real_ct(run, args.real.resolve(), args.threads))
                except RuntimeError as failure:
                    failures[f"{run.name} on real CT"] = str(failure)
            print(f"{done}/{len(runs)} {run.name} {error or 'done'} ({(time.time() - start) / 60:.1f} min)", flush=True)
            write(runs, failures, real, args.out)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
