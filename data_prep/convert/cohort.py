"""Convert all scans of a request into a cohort, past those that fail."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.convert.isolated import run_isolated
from data_prep.convert.link import Link
from data_prep.convert.names import name_scans, read_key
from data_prep.convert.one import Job, convert_scan
from data_prep.convert.plan import Plan, Request, plan_conversion
from data_prep.convert.source import Source
from data_prep.files import write_json
from data_prep.preview import write_preview
from grn_monai.data.cohort import COHORT_FILE, SECTIONS
from grn_monai.errors import InputError
from grn_monai.files import clear_leftovers, make_folder, write_whole
from grn_monai.handlers.record import provenance

__all__ = ["CONVERSION_FILE", "Summary", "convert_cohort"]

CONVERSION_FILE = "conversion.json"
"""What was converted and how, without anything that tells who was scanned."""

REMOVED_FILE = "deidentification.csv"
_WRITE_EVERY_S = 5.0


@dataclass
class Summary:
    """Outcome of `convert_cohort`.

    Attributes:
        converted: scans converted now.
        kept: scans that an earlier run had converted from the same files in the same way.
        failures: source file to one line that says what was wrong.
        sections: scans of the whole cohort by section.
        notes: what the user has to know.
    """

    converted: int = 0
    kept: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    sections: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def convert_cohort(request: Request, progress: bool = True) -> Summary:
    """Convert scans into a cohort folder; a stopped run goes on, and further scans may be added by a later one.

    Writes ``images/`` and ``labels/`` (NIfTI), ``dataset.json``, `CONVERSION_FILE`, `REMOVED_FILE` and ``preview.png``,
    and the link file outside the cohort. Each scan is read in a process of its own (`Limits`).

    Args:
        request: what to convert.
        progress: show a progress bar on stderr.

    Raises:
        InputError: the request as a whole cannot be met; single scans that fail are listed in the summary.
    """
    plan = plan_conversion(request)
    key = read_key(request.key) if request.key else None
    _claim(request.src, request.out)
    link = Link(request.link, request.out)
    known = link.names()
    link.scans = {scan: entry for scan, entry in link.scans.items() if entry["record"] is not None}
    summary = Summary(notes=_remarks(plan))
    jobs: dict[str, Job] = {}
    for source, named in zip(plan.sources, name_scans(plan.sources, key, known), strict=True):
        if isinstance(named, InputError):
            summary.failures[str(source.files[0])] = str(named)
            continue
        subject, scan = named
        entry = _entry(source, subject, request.out, scan)
        if _unchanged(entry, link.scans.get(scan), request.out, scan):
            link.scans[scan] = {**entry, "record": link.scans[scan]["record"]}
            summary.kept += 1
        else:
            link.scans[scan] = {**entry, "record": None}
            jobs[scan] = Job(source, *_paths(request.out, scan))
    for folder in ("images", "labels"):
        make_folder(request.out / folder)
        clear_leftovers(request.out / folder)
    # It marks the folder as one to go on with, and comes before the first scan.
    _write_results(request, plan, link, partly=True)
    link.write(request.out)
    try:
        _convert(jobs, request, link, summary, progress)
    finally:  # also when the user stops: what is done is recorded
        link.write(request.out)
    cohort = _write_results(request, plan, link)
    summary.sections = {section: len(cohort[section]) for section in SECTIONS}
    _preview(request.out, cohort, plan.label_names)
    return summary


def _remarks(plan: Plan) -> list[str]:
    remarks = list(plan.notes)
    modalities = sorted({source.modality for source in plan.sources})
    if len(modalities) > 1:
        remarks.append(f"the cohort mixes {' and '.join(modalities)}; a bundle is for one of them: convert them apart")
    if plan.passed_over:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(plan.passed_over.items()))
        remarks.append(f"passed over as no scans: {counts}")
    return remarks


def _paths(out: Path, scan: str) -> tuple[Path, Path]:
    return out / "images" / f"{scan}.nii.gz", out / "labels" / f"{scan}.nii.gz"


def _claim(src: Path, out: Path) -> None:
    """Raise unless the folder is new, empty, or was begun by a conversion, outside the source."""
    if out.exists() and not out.is_dir():
        raise InputError(out, "a file", "a folder", "Give OUT another name.")
    if out.resolve().is_relative_to(src.resolve()):
        raise InputError(out, f"a folder inside {src}", "one outside", "A later run would take it for a source.")
    if not (out / CONVERSION_FILE).is_file() and out.is_dir() and any(e.name[0] != "." for e in out.iterdir()):
        found = f"a folder with other content and no {CONVERSION_FILE}"
        expected = "a new or empty folder, or a converted cohort to add to"
        raise InputError(out, found, expected, "Choose another folder.")
    make_folder(out)


def _entry(source: Source, subject: str, out: Path, scan: str) -> dict[str, Any]:
    return {
        "subject": subject,
        "source_subject": source.subject,
        "kind": source.kind,
        "files": [str(path) for path in source.files],
        "image": str(_paths(out.resolve(), scan)[0]),
        "section": source.section,
        "keys": source.keys,
        "modality": source.modality,
        "described": json.loads(json.dumps(source.described())),
        "stamps": [_stamp(path) for path in (*source.files, *source.labels)],
        "placement": {},
    }


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_mtime_ns, stat.st_size]


def _unchanged(entry: dict[str, Any], before: dict[str, Any] | None, out: Path, scan: str) -> bool:
    if before is None or before.get("record") is None:
        return False
    same = all(before.get(key) == entry[key] for key in ("described", "stamps"))
    image, label = _paths(out, scan)
    if same and image.is_file() and (label.is_file() or not before["record"]["labelled"]):
        entry["placement"] = before["placement"]
        return True
    return False


def _convert(jobs: dict[str, Job], request: Request, link: Link, summary: Summary, progress: bool) -> None:
    scans = {job.image: scan for scan, job in jobs.items()}
    written = time.monotonic()
    outcomes = run_isolated(convert_scan, list(jobs.values()), request.workers, request.limits)
    for outcome in tqdm(outcomes, total=len(jobs), unit="scan", disable=not progress, file=sys.stderr):
        job = outcome.job
        if outcome.problem is not None:
            first = str(job.source.files[0])
            told = outcome.problem
            # The readers name the file; a crash or a timeout does not.
            summary.failures[first] = told if told.startswith(first) else f"{first}: {told}"
            for path in (job.image, job.label):  # from an earlier state of the source
                path.unlink(missing_ok=True)
            continue
        record = dict(outcome.result)
        entry = link.scans[scans[job.image]]
        entry["placement"], entry["record"] = record.pop("placement"), record
        if not record["labelled"]:
            job.label.unlink(missing_ok=True)
        summary.converted += 1
        if time.monotonic() - written > _WRITE_EVERY_S:
            link.write(request.out)
            written = time.monotonic()


def _items(link: Link) -> Iterator[tuple[str, dict[str, Any]]]:
    """Section and item of every scan that is there, in the order of their names."""
    for scan, entry in sorted(link.scans.items()):
        record = entry["record"]
        if record is None:
            continue
        image, label = _paths(Path(), scan)
        item = {"image": image.as_posix(), "subject": entry["subject"], "scan": scan, **entry["keys"]}
        if record["labelled"]:
            item["label"] = label.as_posix()
        if "dynamic_range_db" in record["intensity"]:
            item["dynamic_range_db"] = record["intensity"]["dynamic_range_db"]
        yield entry["section"], item


def _write_results(request: Request, plan: Plan, link: Link, partly: bool = False) -> dict[str, Any]:
    """Write the files that describe the cohort, `dataset.json` last and only once all scans were tried."""
    done = {scan: entry["record"] for scan, entry in sorted(link.scans.items()) if entry["record"] is not None}
    modalities = sorted({entry["modality"] for entry in link.scans.values()})
    content = {
        "format": "grn-monai conversion 1",
        "complete": not partly,
        "layout": plan.layout,
        "notes": plan.notes,
        "passed_over": plan.passed_over,
        "pseudonyms": "keyed hash" if request.key else "none: names are those of the sources, DICOM subjects numbered",
        "scans": done,
        # Only how many: the messages name source files. They stand on the terminal.
        "failed": sum(1 for entry in link.scans.values() if entry["record"] is None),
        "provenance": provenance(),
    }
    write_json(request.out / CONVERSION_FILE, content)
    if partly:
        return content
    write_whole(request.out / REMOVED_FILE, _removed_table(done))
    sections: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for section, item in _items(link):
        sections[section].append(item)
    cohort = {
        "name": request.out.resolve().name,
        "description": f"Converted scans; how, stands in {CONVERSION_FILE}.",
        "tensorImageSize": "3D",
        "modality": {str(i): modality for i, modality in enumerate(modalities or ["US"])},
        "labels": {str(value): name for value, name in plan.label_names.items()},
        **sections,
    }
    write_json(request.out / COHORT_FILE, cohort)
    return cohort


def _removed_table(done: dict[str, dict[str, Any]]) -> str:
    """One row a scan: what its file said beside the voxels, and what of the picture was cut away."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["scan", "attributes removed", "further attributes", "private attributes", "burned-in text"])
    for scan, record in done.items():
        removed = record["removed"]
        picture = record["facts"].get("removed") or record["facts"].get("burned_in", "")
        row = [scan, " ".join(removed["attributes"]), removed["others"], removed["private"], picture]
        writer.writerow(row)
    return text.getvalue()


def _preview(out: Path, cohort: dict[str, Any], label_names: dict[int, str]) -> None:
    items = [item for section in SECTIONS for item in cohort[section]]
    subjects = {item["subject"]: item for item in reversed(items)}  # the first scan of each
    shown = [
        (item["scan"], out / item["image"], out / item["label"] if "label" in item else None)
        for item in reversed(subjects.values())
    ]
    if shown:
        write_preview(shown, out / "preview.png", label_names, anatomical="US" not in cohort["modality"].values())
