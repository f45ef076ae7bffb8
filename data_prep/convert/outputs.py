"""The files that describe a converted cohort: dataset.json, what was done, what was removed, a preview."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.convert.link import Link, scan_paths
from data_prep.convert.plan import Plan, Request
from data_prep.files import write_json
from data_prep.preview import write_preview
from grn_monai.data.cohort import COHORT_FILE, SECTIONS
from grn_monai.files import write_whole
from grn_monai.handlers.record import provenance

__all__ = ["CONVERSION_FILE", "REMOVED_FILE", "preview", "write_results"]

CONVERSION_FILE = "conversion.json"
"""What was converted and how, without anything that tells who was scanned."""

REMOVED_FILE = "deidentification.csv"
"""What the scans' files said beside the voxels, and what was cut away."""


def _items(link: Link) -> Iterator[tuple[str, dict[str, Any]]]:
    """Section and item of every scan that is there, in the order of their names."""
    for scan, entry in sorted(link.scans.items()):
        record = entry["record"]
        if record is None:
            continue
        image, label = scan_paths(Path(), scan)
        item = {"image": image.as_posix(), "subject": entry["subject"], "scan": scan, **entry["keys"]}
        if record["labelled"]:
            item["label"] = label.as_posix()
        if "dynamic_range_db" in record["intensity"]:
            item["dynamic_range_db"] = record["intensity"]["dynamic_range_db"]
        yield entry["section"], item


def write_results(request: Request, plan: Plan, link: Link, failed: int, partly: bool = False) -> dict[str, Any]:
    """Write the files that describe the cohort, `dataset.json` last and only once all scans were tried."""
    there = {scan: entry for scan, entry in sorted(link.scans.items()) if entry["record"] is not None}
    done = {scan: entry["record"] for scan, entry in there.items() if not entry.get("pending")}
    modalities = sorted({entry["modality"] for entry in there.values()})
    content = {
        "format": "grn-monai conversion 1",
        "complete": not partly,
        "layout": plan.layout,
        "notes": plan.notes,
        "passed_over": plan.passed_over,
        "pseudonyms": "keyed hash" if request.key else "none: names are those of the sources, DICOM subjects numbered",
        "scans": done,
        # Only how many: the messages name source files. They stand on the terminal.
        "failed": failed,
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


def preview(out: Path, cohort: dict[str, Any], label_names: dict[int, str]) -> None:
    items = [item for section in SECTIONS for item in cohort[section]]
    subjects = {item["subject"]: item for item in reversed(items)}  # the first scan of each
    shown = [
        (item["scan"], out / item["image"], out / item["label"] if "label" in item else None)
        for item in reversed(subjects.values())
    ]
    if shown:
        write_preview(shown, out / "preview.png", label_names, anatomical="US" not in cohort["modality"].values())
