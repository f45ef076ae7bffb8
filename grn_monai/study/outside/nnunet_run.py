"""One run of nnU-Net: export, plan, train, predict and score, each stage once."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grn_monai.data import datalist
from grn_monai.errors import InputError, count_scans
from grn_monai.files import write_whole
from grn_monai.handlers.record import provenance, sha256
from grn_monai.metrics import evaluate_folders
from grn_monai.study.outside.nnunet_dataset import DATASET, IMAGES, export_dataset
from grn_monai.study.outside.nnunet_tools import Settings, add_small, nnunet_versions, stage_commands
from grn_monai.study.plan import Plan, fraction_name
from grn_monai.study.process import Child
from grn_monai.study.state import cohort_digest
from grn_monai.study.status import Lock, now, read_json, write_status

__all__ = ["NnunetRun"]


@dataclass
class NnunetRun:
    """One training of nnU-Net with its predictions and scores; a stopped one goes on where it was.

    Args:
        plan: the study.
        settings: of the run.
        bin_dir: nnU-Net's commands.
        name: folder below `outside/`, and key of the method in the report.
        device: "cpu", "cuda" or "mps".
        threads: of torch on a CPU.
        workers: processes that read, augment and write.
    """

    plan: Plan
    settings: Settings
    bin_dir: Path
    name: str
    device: str = "cpu"
    threads: int = 1
    workers: int = 2

    def __post_init__(self) -> None:
        place = Path(fraction_name(self.settings.fraction)) / f"seed_{self.settings.seed}"
        self.folder = self.plan.output / "outside" / self.name / place
        options: dict[str, Any] = self.plan.runs[0].options
        for key in ("split", "depth_axis", "depth_reversed"):  # of the cohort, and so the same for all runs
            if any(run.options.get(key) != options.get(key) for run in self.plan.runs):
                found, mend = f"runs that differ in {key}", "Set it in the study's own options."
                raise InputError(self.plan.file, found, f"one {key} for the whole study", mend)
        self.split = self.plan.runs[0].split
        self.depth_axis, self.depth_reversed = options.get("depth_axis", 2), bool(options.get("depth_reversed", False))

    @property
    def sections(self) -> list[str]:
        """Sections that are predicted and scored."""
        return [section for section in self.plan.sections if section in IMAGES]

    def run(self) -> str:
        """Do what is left to do.

        Returns:
            "done", or "done before" where nothing was left.

        Raises:
            InputError: the cohort cannot be used, the folder holds a run of other settings or is in use, or one of
                nnU-Net's commands failed. The reason is also in `status.json`.
        """
        lock = Lock(self.folder / ".lock")
        if not lock.acquire():
            raise InputError(self.folder, "a run in progress", "a folder that nobody uses", "Wait for it, or stop it.")
        try:
            record = self._record()  # what is refused here leaves the folder as it is
            if self._is_done(record):
                return "done before"
            self._do_stages(record, lock)
        finally:
            lock.release()
        return "done"

    def _do_stages(self, record: dict[str, Any], lock: Lock) -> None:
        started, begin, before = now(), time.monotonic(), record["seconds"]
        cohort = cohort_digest(self.plan.cohort, self.split)
        stage = ""
        try:
            for stage in self._stages():
                if stage not in record["stages"]:
                    write_status(self.folder, "running", stage, None, started, record["seconds"], cohort)
                    record["stages"][stage] = self._timed(stage, lock, record)
                    record["seconds"] = round(sum(record["stages"].values()), 1)
                    self._write(record)
            self._write(record | {"status": "completed", "ended": now()})
            write_status(self.folder, "done", stage, None, started, record["seconds"], cohort)
        except BaseException as error:
            stopped = not isinstance(error, Exception)  # Ctrl-C, or SIGTERM
            seconds = before + time.monotonic() - begin
            write_status(self.folder, "failed", stage, "stopped" if stopped else str(error), started, seconds, cohort)
            raise

    def _stages(self) -> list[str]:
        parts = [(f"predict_{section}", f"{section}_raw") for section in self.sections]
        return ["export", "plan", "training", *(stage for pair in parts for stage in pair)]

    def _is_done(self, record: dict[str, Any]) -> bool:
        return all(stage in record["stages"] for stage in self._stages())

    def _record(self) -> dict[str, Any]:
        """The run's record, of an earlier start if there is one."""
        if not (self.plan.cohort / self.split).is_file():
            mend = f"`grn-monai study {self.plan.file}` makes it, where the study simulates it."
            raise InputError(self.plan.cohort, "no cohort", f"a folder with {self.split}", mend)
        asked = {
            **self.settings.record(),
            "cohort_sha256": sha256(self.plan.cohort / self.split),  # all that older records have
            "cohort": cohort_digest(self.plan.cohort, self.split),
        }
        record = read_json(self.folder / "run.json")
        if not record:
            items = datalist(
                self.plan.cohort, "training", self.split, self.settings.fraction, self.settings.seed, "subject",
                self.depth_axis,
            )  # fmt: skip
            record = {
                "title": self.settings.title,
                "settings": asked,
                "seed": self.settings.seed,
                "epochs": self.settings.epochs,
                "iterations": self.settings.epochs * self.settings.iterations,
                "scans": [str(item["scan"]) for item in items],
                **provenance(),
                "nnunet": nnunet_versions(self.bin_dir),
                "device": self.device,
                "threads": self.threads,
                "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
                "started": now(),
                "status": "running",
                "stages": {},
                "seconds": 0.0,
            }
            self._write(record)
        elif other := _other(record.get("settings", {}), asked):
            mend = "Give another --name, or remove that folder."
            raise InputError(self.folder, f"a run of other settings ({', '.join(other)})", "the same settings", mend)
        return record

    def _write(self, record: dict[str, Any]) -> None:
        write_whole(self.folder / "run.json", json.dumps(record, indent=2) + "\n")

    def _timed(self, stage: str, lock: Lock, record: dict[str, Any]) -> float:
        print(f"{self.folder.relative_to(self.plan.output)}: {stage}", flush=True)
        begin = time.monotonic()
        if stage == "export":
            self._export()
        elif stage in {f"{section}_raw" for section in self.sections}:
            self._evaluate(stage.removesuffix("_raw"))
        else:
            if stage.startswith("predict_"):
                shutil.rmtree(self.folder / f"predictions_{stage.removeprefix('predict_')}.part", ignore_errors=True)
            self._call(stage, lock)
        if stage == "plan":
            record["planned"] = self._planned()
        if stage.startswith("predict_"):
            self._move(stage.removeprefix("predict_"))
        return round(time.monotonic() - begin, 1)

    def _export(self) -> None:
        sections: Any = tuple(self.sections)
        raw = self.folder / "nnUNet_raw"
        cohort = self.plan.cohort / self.split
        export_dataset(cohort, raw, self.settings.fraction, self.settings.seed, sections, self.depth_axis)

    def _call(self, stage: str, lock: Lock) -> None:
        """One of nnU-Net's commands, with a log; it ends with this process."""
        commands = stage_commands(self.folder, self.settings, self.bin_dir, self.device, self.threads, self.workers)
        log = self.folder / f"{stage}.log"
        child = Child(commands[stage], log, self.threads, (lock.fd,))
        try:
            while child.code() is None:
                time.sleep(0.2)
        finally:
            child.stop(0.0 if child.code() is not None else 10.0)
        if child.code() != 0:
            raise InputError(f"nnU-Net, {stage}", f"an error ({child.error()})", "that it ends well", f"See {log}.")

    def _planned(self) -> dict[str, Any]:
        """What nnU-Net plans to train, after the preset."""
        file = self.folder / "nnUNet_preprocessed" / DATASET / "nnUNetPlans.json"
        small = add_small(file, self.settings.configuration) if self.settings.preset == "small" else {}
        plans = json.loads(file.read_text(encoding="utf-8"))
        planned = plans["configurations"][self.settings.configuration]
        architecture = small.get("architecture", planned["architecture"])
        return {
            "planned_batch_size": planned["batch_size"],
            "planned_patch_size": planned["patch_size"],
            "batch_size": small.get("batch_size", planned["batch_size"]),
            "patch_size": small.get("patch_size", planned["patch_size"]),
            "spacing_mm": planned["spacing"],
            "normalization": planned["normalization_schemes"],
            "slices_fix_axis": int(2 - plans["transpose_forward"][0]) if self.settings.configuration == "2d" else None,
            "network": architecture["network_class_name"].rsplit(".", 1)[-1],
            "features_per_stage": architecture["arch_kwargs"]["features_per_stage"],
        }

    def _move(self, section: str) -> None:
        target = self.folder / "evaluation" / f"{section}_raw" / "predictions"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # of a start that was stopped before it was noted
        os.replace(self.folder / f"predictions_{section}.part", target)

    def _evaluate(self, section: str) -> None:
        out = self.folder / "evaluation" / f"{section}_raw"
        result = evaluate_folders(
            self.plan.cohort / self.split, out / "predictions", out, section=section, kind="volume", slices=True,
            suffix="", seed=self.settings.seed, depth_axis=self.depth_axis, depth_reversed=self.depth_reversed,
        )  # fmt: skip
        if result.failures:
            scan, why = next(iter(result.failures.items()))
            found = f"{count_scans(len(result.failures))} that cannot be scored"
            raise InputError(out, found, "scores of all", f"{scan}: {why}")
        print(f"  mean Dice of the slices {result.summary['slice']['mean']:.3f}, {count_scans(len(result.scans))}")


def _other(was: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """What differs in the settings of an earlier start; the cohort is named once, and older records lack its digest."""
    keys = [key for key in asked if was.get(key) != asked[key] and not (key == "cohort" and key not in was)]
    cohort = [key for key in keys if key.startswith("cohort")]
    return [f"{key} {was.get(key)}" for key in keys if key not in cohort] + ["another cohort"] * bool(cohort)
