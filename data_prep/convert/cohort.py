"""Convert all scans of a request into a cohort, past those that fail."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.convert.isolated import run_isolated
from data_prep.convert.link import Link, link_entry, scan_paths, sources_changed
from data_prep.convert.names import key_fingerprint, name_scans, read_key
from data_prep.convert.one import Job, convert_scan
from data_prep.convert.outputs import CONVERSION_FILE, preview, write_results
from data_prep.convert.plan import Plan, Request, plan_conversion
from data_prep.convert.source import Source
from grn_monai.data.faults import SECTIONS, torn_subjects
from grn_monai.errors import InputError, count_scans, listed
from grn_monai.files import clear_leftovers, file_stamps, make_folder

__all__ = ["CONVERSION_FILE", "Summary", "convert_cohort"]

_WRITE_EVERY_S = 5.0

Named = tuple[str, str] | InputError
"""Subject and scan, or why there is none."""


@dataclass
class Summary:
    """Outcome of `convert_cohort`.

    Attributes:
        converted: scans converted now.
        kept: scans that an earlier run had converted from the same files in the same way.
        failures: source file, and the part of it where that is one, to one line that says what was wrong.
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

    Writes ``images/`` and ``labels/`` (NIfTI), ``dataset.json``, `CONVERSION_FILE`, ``deidentification.csv`` and
    ``preview.png``, and the link file outside the cohort. Each scan is read in a process of its own (`Limits`).

    Args:
        request: what to convert.
        progress: show a progress bar on stderr.

    Raises:
        InputError: the request as a whole cannot be met; single scans that fail are listed in the summary.
    """
    plan = plan_conversion(request)
    key = read_key(request.key) if request.key else None
    _check_folder(request.src, request.out)
    link = Link(request.link, request.out)
    fingerprint = key_fingerprint(key)
    link.check_key(fingerprint)
    link.labels = plan.label_names
    earlier = link.earlier(plan.sources)
    names = name_scans(plan.sources, key, _known(link, earlier), earlier)
    _check_sections(request, plan, names, earlier, link)
    summary = Summary(notes=_remarks(plan, earlier, link))
    make_folder(request.out)  # nothing has been written before
    work = _schedule(plan, names, earlier, link, summary, fingerprint)
    # They mark the folder as one to go on with, and come before the first scan.
    link.write()
    write_results(request, plan, link, 0, partly=True)
    for folder in ("images", "labels"):
        make_folder(request.out / folder)
        clear_leftovers(request.out / folder)
    try:
        _convert(work, request, link, summary, progress)
    finally:  # also when the user stops: what is done is recorded
        link.write()
    cohort = write_results(request, plan, link, len(summary.failures))
    if len(cohort["modality"]) > 1:
        mixed = " and ".join(cohort["modality"].values())
        summary.notes.append(f"the cohort mixes {mixed}; a bundle is for one of them: convert them apart")
    if whole := _taken_whole(link):
        summary.notes.append(f"frames taken whole, text in them included; look at {listed(whole)}")
    summary.sections = {section: len(cohort[section]) for section in SECTIONS}
    preview(request.out, cohort, plan.label_names)
    return summary


def _taken_whole(link: Link) -> list[str]:
    """The scans of whose frames nothing was cut away."""
    done = link.converted().items()
    return sorted(scan for scan, entry in done if entry["record"]["facts"].get("picture_from") == "frame")


def _known(link: Link, earlier: list[str | None]) -> dict[str, dict[str, Any]]:
    """The scans whose names are taken: those that are there, and those of these sources."""
    here, met = link.converted(), set(earlier)
    return {scan: entry for scan, entry in link.scans.items() if scan in here or scan in met}


def _others(link: Link, earlier: list[str | None]) -> dict[str, dict[str, Any]]:
    """The cohort's scans that this run does not touch."""
    met = set(earlier)
    return {scan: entry for scan, entry in link.converted().items() if scan not in met}


def _remarks(plan: Plan, earlier: list[str | None], link: Link) -> list[str]:
    remarks = list(plan.notes)
    if plan.passed_over:
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(plan.passed_over.items()))
        remarks.append(f"passed over as no scans: {counts}")
    others = _others(link, earlier).values()
    if gone := sum(not all(Path(file).exists() for file in entry["files"]) for entry in others):
        remarks.append(f"{count_scans(gone)} of earlier runs whose files are gone {_are(gone)} kept")
    files = {str(source.files[0].resolve()) for source in plan.sources}
    if parts := sum(entry["files"][0] in files for entry in others):
        remarks.append(f"{count_scans(parts)} of earlier runs, of other parts of these files, {_are(parts)} kept")
    return remarks


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _check_sections(
    request: Request, plan: Plan, names: Sequence[Named], earlier: list[str | None], link: Link
) -> None:
    """Raise where a subject would be in two sections, counting the scans of earlier runs; `unlabeled` trains too."""
    told = [(entry["subject"], entry["section"]) for entry in _others(link, earlier).values()]
    for source, named in zip(plan.sources, names, strict=True):
        if not isinstance(named, InputError):
            told.append((named[0], str(source.section)))
    if torn := sorted(torn_subjects(told)):
        found = f"scans of one subject in several sections, with those of earlier runs ({listed(torn)})"
        mend = "Give the section of before, or convert these scans into another OUT."
        raise InputError(request.table or request.src, found, "each subject in one section", mend)


def _check_folder(src: Path, out: Path) -> None:
    """Raise unless the folder is new, empty, or was begun by a conversion, outside the source."""
    if out.exists() and not out.is_dir():
        raise InputError(out, "a file", "a folder", "Give OUT another name.")
    if out.resolve().is_relative_to(src.resolve()):
        raise InputError(out, f"a folder inside {src}", "one outside", "A later run would take it for a source.")
    if not (out / CONVERSION_FILE).is_file() and out.is_dir() and any(e.name[0] != "." for e in out.iterdir()):
        found = f"a folder with other content and no {CONVERSION_FILE}"
        expected = "a new or empty folder, or a converted cohort to add to"
        raise InputError(out, found, expected, "Choose another folder.")


@dataclass(frozen=True)
class _Work:
    """A job, the entry that it gets in the link file, and what it replaces.

    Attributes:
        job: what to do.
        entry: new entry of the link file.
        old: size and time of the files of an earlier run that stay if the job fails, None for a label that is not
            there; empty: none stays.
    """

    job: Job
    entry: dict[str, Any]
    old: tuple[Any, ...] = ()


def _schedule(
    plan: Plan, names: Sequence[Named], earlier: list[str | None], link: Link, summary: Summary, fingerprint: str | None
) -> dict[str, _Work]:
    """What there is to do by scan. Sets the link's entries, and removes the files of scans that are renamed."""
    before = link.converted()
    link.scans = _others(link, earlier)
    for named, old in zip(names, earlier, strict=True):
        if old is not None and (isinstance(named, InputError) or named[1] != old):
            _remove(*scan_paths(link.out, old))
    work: dict[str, _Work] = {}
    for source, named, old in zip(plan.sources, names, earlier, strict=True):
        if isinstance(named, InputError):
            summary.failures[_told_as(source)] = str(named)
            continue
        subject, scan = named
        image, label = scan_paths(link.out, scan)
        entry = link_entry(source, subject, image, fingerprint)
        last = before.get(scan) if old == scan else None
        if last is not None and _unchanged(entry, last, label):
            link.scans[scan] = {**last, **entry}
            summary.kept += 1
            continue
        # An option that makes it fail is no reason to lose what there is; a changed source, name or section is. What
        # was being replaced when a run was killed is of neither state.
        stays = last is not None and not last.get("pending") and last["section"] == entry["section"]
        stays = stays and not sources_changed(last or {}, entry)
        link.scans[scan] = {**last, "pending": True} if last is not None and stays else {**entry, "record": None}
        work[scan] = _Work(Job(source, image, label), entry, _state(image, label) if stays else ())
    return work


def _told_as(source: Source) -> str:
    return str(source.files[0]) if source.part == "{}" else f"{source.files[0]} {source.part}"


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _state(*paths: Path) -> tuple[Any, ...]:
    return tuple(file_stamps(path) if path.is_file() else None for path in paths)


def _unchanged(entry: dict[str, Any], last: dict[str, Any], label: Path) -> bool:
    same = all(last.get(key) == entry[key] for key in ("described", "stamps")) and not last.get("pending")
    return same and (label.is_file() or not last["record"]["labelled"])


def _convert(work: dict[str, _Work], request: Request, link: Link, summary: Summary, progress: bool) -> None:
    scans = {item.job.image: scan for scan, item in work.items()}
    written = time.monotonic()
    jobs = [item.job for item in work.values()]
    outcomes = run_isolated(convert_scan, jobs, request.workers, request.limits)
    for outcome in tqdm(outcomes, total=len(jobs), unit="scan", disable=not progress, file=sys.stderr):
        scan = scans[outcome.job.image]
        if outcome.problem is not None:
            _failed(scan, work[scan], outcome.problem, link, summary)
            continue
        record = dict(outcome.result)
        entry = {**work[scan].entry, **{name: record.pop(name, None) for name in ("placement", "affine", "private")}}
        link.scans[scan] = {**entry, "shape": record["shape"], "record": record}
        if not record["labelled"]:
            _remove(outcome.job.label)
        summary.converted += 1
        if time.monotonic() - written > _WRITE_EVERY_S:
            link.write()
            written = time.monotonic()


def _failed(scan: str, item: _Work, told: str, link: Link, summary: Summary) -> None:
    first = str(item.job.source.files[0])
    # The readers name the file; a crash or a timeout does not.
    told = told if told.startswith(first) else f"{first}: {told}"
    paths = (item.job.image, item.job.label)
    if item.old and _state(*paths) == item.old:
        told += " The scan that an earlier run made of it is kept."
        link.scans[scan] = {k: v for k, v in link.scans[scan].items() if k != "pending"}
        link.scans[scan]["keys"] = item.entry["keys"]
    else:
        _remove(*paths)
        link.scans[scan] = {**item.entry, "record": None}
    summary.failures[_told_as(item.job.source)] = told
