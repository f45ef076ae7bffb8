"""Write a simulated CT or MR cohort: volumes, dataset.json, simulation.json, the truth and preview.png."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.files import write_json
from data_prep.simulate.folder import COHORT_FILE, RECORD_FILE, SECTIONS, check_workers, claim_folder, run_jobs
from data_prep.simulate.lumbar.acquisition import draw_acquisition
from data_prep.simulate.lumbar.scan import label_names, write_volume
from data_prep.simulate.lumbar.settings import LUMBAR_VERSION, LumbarScan, LumbarSettings, plan_lumbar
from data_prep.simulate.lumbar.subject import draw_lumbar_subject
from grn_monai.files import clear_leftovers, make_folder
from grn_monai.labels import MUSCLE_COLOURS

__all__ = ["simulate_lumbar"]

_FOLDERS = ("images", "labels", "truth")
_SOFT_TISSUE_HU = (-160.0, 240.0)  # the usual window of abdominal CT


def simulate_lumbar(out: Path, settings: LumbarSettings, workers: int = 1, progress: bool = True) -> list[str]:
    """Simulate a cohort into a folder; a run that was stopped goes on where it was.

    Args:
        out: folder to make or to go on with. It is written whole only at the end: `dataset.json` comes last.
        settings: what to simulate.
        workers: processes; the files do not depend on it. Each takes about 0.3 GB at the default size.
        progress: show a progress bar on stderr.

    Returns:
        Names of the scans that were simulated now, not of those found finished.

    Raises:
        InputError: the folder cannot be written to, holds other files, or was begun with other settings; a
            worker was killed.
    """
    check_workers(workers)
    out = Path(out)
    claim_folder(out, settings.record())
    plan = plan_lumbar(settings)
    for folder in _FOLDERS:
        make_folder(out / folder)
        clear_leftovers(out / folder)
    todo = [scan for scan in plan if not all(path.is_file() for path in _paths(out, scan))]
    if todo or not (out / RECORD_FILE).is_file():
        # The record comes first: it is what marks the folder as one to go on with.
        write_json(out / RECORD_FILE, _record(settings, plan, {}))
    with tqdm(
        total=len(plan), initial=len(plan) - len(todo), unit="scan", disable=not progress, file=sys.stderr
    ) as bar:
        jobs = [(*_paths(out, scan), settings, scan.subject) for scan in todo]
        for _ in run_jobs(out, write_volume, jobs, workers):
            bar.update()
    truth = {scan.name: json.loads(_paths(out, scan)[2].read_text(encoding="utf-8")) for scan in plan}
    write_json(out / RECORD_FILE, _record(settings, plan, truth))
    if todo or not (out / "preview.png").is_file():
        # Late, so that `--help`, which imports this package, does not wait for matplotlib.
        from data_prep.preview import write_preview

        shown = [(scan.name, *_paths(out, scan)[:2]) for scan in plan]
        write_preview(
            shown,
            out / "preview.png",
            label_names(settings.modality),
            anatomical=True,
            window=_SOFT_TISSUE_HU if settings.modality == "ct" else None,
            colours=MUSCLE_COLOURS,
        )
    write_json(out / COHORT_FILE, _dataset(settings, plan))
    return [scan.name for scan in todo]


def _paths(out: Path, scan: LumbarScan) -> tuple[Path, Path, Path]:
    """Image, label, and what is true of the muscles."""
    volume = f"{scan.name}.nii.gz"
    return out / "images" / volume, out / "labels" / volume, out / "truth" / f"{scan.name}.json"


def _record(settings: LumbarSettings, plan: list[LumbarScan], truth: dict[str, Any]) -> dict[str, Any]:
    """Settings, every drawn number, and, once all scans are made, the truth of each."""
    subjects, scans = {}, {}
    for scan in plan:
        subject = draw_lumbar_subject(settings.seed, scan.subject)
        subjects[scan.name] = subject.parameters()
        scans[scan.name] = draw_acquisition(settings, subject).parameters()
        if truth:
            scans[scan.name]["muscles"] = truth[scan.name]
    return {
        "settings": settings.record(),
        "units": "mm, ml, HU; signal relative to about that of fat; fat_share is the fraction of a muscle's volume",
        "subjects": subjects,
        "scans": scans,
    }


def _dataset(settings: LumbarSettings, plan: list[LumbarScan]) -> dict[str, Any]:
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for scan in plan:
        image, label, _ = (path.as_posix() for path in _paths(Path(), scan))
        subject = draw_lumbar_subject(settings.seed, scan.subject)
        levels = draw_acquisition(settings, subject).levels(subject)
        item = {"image": image, "label": label, "subject": scan.name, "scan": scan.name, "levels": levels}
        sections[scan.section].append(item)
    counts = {f"num{section.capitalize()}": len(items) for section, items in sections.items()}
    kind = "CT" if settings.modality == "ct" else "MR"
    return {
        "name": f"simulated lumbar {kind}",
        "description": f"Simulated axial {kind} of the lumbar region with muscle labels. No person was scanned.",
        "license": "CC0-1.0",
        "reference": f"python -m data_prep simulate --modality {settings.modality}; parameters in {RECORD_FILE}",
        "release": str(LUMBAR_VERSION),
        "tensorImageSize": "3D",
        "modality": {"0": kind},
        "labels": {str(value): name for value, name in label_names(settings.modality).items()},
        **counts,
        **sections,
    }
