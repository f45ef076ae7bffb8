"""Write a simulated cohort: volumes, dataset.json, simulation.json and preview.png."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.files import write_json
from data_prep.preview import write_preview
from data_prep.simulate.anatomy import draw_subject
from data_prep.simulate.folder import COHORT_FILE, RECORD_FILE, SECTIONS, check_workers, claim_folder, run_jobs
from data_prep.simulate.scan import scan_parameters, write_scan
from data_prep.simulate.settings import Scan, Settings, plan_scans
from grn_monai.files import clear_leftovers, make_folder
from grn_monai.labels import LAYER_NAMES

__all__ = ["RECORD_FILE", "simulate_cohort"]


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
    check_workers(workers)
    claim_folder(out, settings.record())
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
        jobs = [(*_paths(out, scan), settings, scan.subject, scan.number) for scan in todo]
        for _ in run_jobs(out, write_scan, jobs, workers):
            bar.update()
    if todo or not (out / "preview.png").is_file():
        # One scan of each subject shows more than two of one.
        shown = [scan for scan in plan if scan.number == 1]
        write_preview([(scan.name, *_paths(out, scan)) for scan in shown], out / "preview.png")
    write_json(out / COHORT_FILE, _dataset(settings, plan))
    return todo


def _paths(out: Path, scan: Scan) -> tuple[Path, Path]:
    return out / "images" / f"{scan.name}.nii.gz", out / "labels" / f"{scan.name}.nii.gz"


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
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
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
