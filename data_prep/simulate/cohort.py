"""Write a simulated cohort: volumes, dataset.json, simulation.json and preview.png."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.files import write_json
from data_prep.preview import write_preview
from data_prep.simulate.anatomy import draw_subject
from data_prep.simulate.scan import scan_parameters, write_scan
from data_prep.simulate.settings import Scan, Settings, plan_scans
from grn_monai.errors import InputError
from grn_monai.files import clear_leftovers, make_folder
from grn_monai.labels import LAYER_NAMES

__all__ = ["RECORD_FILE", "simulate_cohort"]

RECORD_FILE = "simulation.json"
"""Settings and drawn parameters of a simulated cohort; also what a continued run is checked against."""

# Spelt out, as `grn_monai.data` would bring torch, which no simulation needs; a test reads the file back.
_COHORT_FILE = "dataset.json"
_SECTIONS = ("training", "validation", "test", "unlabeled")

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def simulate_cohort(out: Path, settings: Settings, workers: int = 1, progress: bool = True) -> list[Scan]:
    """Simulate a cohort into a folder; a run that was stopped goes on where it was.

    Args:
        out: folder to make or to go on with. It is written whole only at the end: `dataset.json` comes last.
        settings: what to simulate.
        workers: processes; the files do not depend on it. Each takes about 0.5 GB for 128 × 128 × 256 voxels.
        progress: show a progress bar on stderr.

    Returns:
        The scans that were simulated now, not those found finished.

    Raises:
        InputError: the folder cannot be written to, holds other files, or was begun with other settings; a
            worker was killed.
    """
    if workers < 1:
        raise InputError("--workers", str(workers), "at least 1", "Give the number of processes.")
    _claim(out, settings)
    plan = plan_scans(settings)
    # The record comes first: it is what marks the folder as one to go on with.
    write_json(out / RECORD_FILE, _record(settings, plan))
    for folder in ("images", "labels"):
        make_folder(out / folder)
        clear_leftovers(out / folder)
    todo = [scan for scan in plan if not all(path.is_file() for path in _paths(out, scan))]
    with tqdm(
        total=len(plan), initial=len(plan) - len(todo), unit="scan", disable=not progress, file=sys.stderr
    ) as bar:
        for _ in _run(out, settings, todo, workers):
            bar.update()
    if todo or not (out / "preview.png").is_file():
        # One scan of each subject shows more than two of one.
        shown = [scan for scan in plan if scan.number == 1]
        write_preview([(scan.name, *_paths(out, scan)) for scan in shown], out / "preview.png")
    write_json(out / _COHORT_FILE, _dataset(settings, plan))
    return todo


def _claim(out: Path, settings: Settings) -> None:
    """Raise unless the folder is new, empty, or was begun with the same settings."""
    if out.exists() and not out.is_dir():
        raise InputError(out, "a file", "a folder", "Give --out another name.")
    record = out / RECORD_FILE
    if not record.is_file():
        if out.is_dir() and any(entry.name[0] != "." for entry in out.iterdir()):
            raise InputError(
                out,
                f"a folder with other content and no {RECORD_FILE}",
                "a new or empty folder, or a simulated cohort to go on with",
                "Choose another folder.",
            )
        make_folder(out)
        return
    try:
        before = json.loads(record.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        mend = "Choose another folder, or delete this one."
        raise InputError(record, "no readable settings", "the record of a simulation", mend) from error
    now = settings.record()
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if differing:
        raise InputError(
            out,
            "a cohort begun with " + ", ".join(f"{key} {before.get(key)}" for key in differing),
            ", ".join(f"{key} {now.get(key)}" for key in differing),
            "Repeat the earlier options to go on with it, or choose another folder.",
        )
    make_folder(out)


def _paths(out: Path, scan: Scan) -> tuple[Path, Path]:
    return out / "images" / f"{scan.name}.nii.gz", out / "labels" / f"{scan.name}.nii.gz"


def _run(out: Path, settings: Settings, todo: list[Scan], workers: int) -> Iterator[None]:
    """Yield once for each finished scan."""
    if workers == 1 or len(todo) < 2:
        for scan in todo:
            write_scan(*_paths(out, scan), settings, scan.subject, scan.number)
            yield
        return
    # Fresh processes, since a fork would inherit whatever threads the caller has started. Ctrl-C is left to
    # the parent: the scans under way are finished and no worker prints a traceback.
    context = multiprocessing.get_context("spawn")
    with (
        _single_threaded_children(),
        ProcessPoolExecutor(
            min(workers, len(todo)), context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
        ) as pool,
    ):
        futures = [pool.submit(write_scan, *_paths(out, scan), settings, scan.subject, scan.number) for scan in todo]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except BrokenProcessPool as error:
            raise InputError(
                out,
                "a worker that was killed, most likely for want of memory",
                f"about 0.5 GB for each of {workers} workers",
                "Run the same command with fewer --workers; finished scans are kept.",
            ) from error
        finally:
            # After an error or Ctrl-C, do not start what is still waiting. Waiting here matters: leaving the
            # `with` block calls shutdown again, which would take the cancelling back.
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let each child's BLAS use one thread: the processes already fill the cores."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _record(settings: Settings, plan: list[Scan]) -> dict[str, Any]:
    """Settings and every drawn number, known before the first volume is made."""
    subjects = {scan.subject: scan.subject_name for scan in plan}
    return {
        "settings": settings.record(),
        "units": "mm, dB, radians; attenuation in dB/cm/MHz",
        "subjects": {name: draw_subject(settings.seed, number).parameters() for number, name in subjects.items()},
        "scans": {scan.name: scan_parameters(settings, scan.subject, scan.number) for scan in plan},
    }


def _dataset(settings: Settings, plan: list[Scan]) -> dict[str, Any]:
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section in _SECTIONS}
    for scan in plan:
        image, label = (path.as_posix() for path in _paths(Path(), scan))
        drawn = scan_parameters(settings, scan.subject, scan.number)
        item: dict[str, Any] = {"image": image, "label": label, "subject": scan.subject_name, "scan": scan.name}
        item |= {"side": drawn["side"], "dynamic_range_db": round(drawn["dynamic_range_db"], 2)}
        if settings.repeats > 1:
            item |= {"site": f"place {scan.place}", "repeat": scan.repeat}
        sections[scan.section].append(item)
    counts = {f"num{section.capitalize()}": len(items) for section, items in sections.items()}
    return {
        "name": "simulated low-back ultrasound",
        "description": "Simulated 3D B-mode of the low back with layer labels. No person was scanned.",
        "license": "CC0-1.0",
        "reference": f"python -m data_prep simulate; parameters in {RECORD_FILE}",
        "release": str(settings.record()["simulator_version"]),
        "tensorImageSize": "3D",
        "modality": {"0": "US"},
        "labels": {str(value): name for value, name in LAYER_NAMES.items()},
        **counts,
        **sections,
    }
