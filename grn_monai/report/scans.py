"""Measured scans, with or without truth, to one self-contained `report.html`."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.files import replacing
from grn_monai.measure.maps import scale_end
from grn_monai.metrics.files import json_text
from grn_monai.report import measured as tables
from grn_monai.report.atlas import ScanPictures, scan_pictures
from grn_monai.report.comparisons import repeat_comparisons, side_comparisons
from grn_monai.report.measured import Flag, Measured, read_measurements
from grn_monai.report.numbers import number
from grn_monai.report.page import facts, file_name, page_template
from grn_monai.report.palette import label_colours, lut_of
from grn_monai.report.tables import Table

__all__ = ["build_scan_report"]

Progress = Callable[[Sequence[Any]], Iterable[Any]]

_TEXT_COLUMNS = ("subject", "side", "site", "status", "repeat")
_FOLDERS = ("cohort", "predictions", "compare")
_LISTED = 12  # flags that stand open; the rest is folded


@dataclass(frozen=True)
class _Entry:
    """What is known of a scan before its files are opened."""

    number: int
    scan: Mapping[str, Any]
    name: str
    about: str
    flags: Sequence[Flag]
    level: str

    @property
    def raised(self) -> list[Flag]:
        """Flags for which the scan needs a look."""
        return [flag for flag in self.flags if flag.level == "check"]

    @property
    def unchecked(self) -> int:
        """How many checks could not be made."""
        return sum(flag.level == "unknown" for flag in self.flags)


@dataclass(frozen=True)
class _Section:
    """Everything shown of one scan."""

    entry: _Entry
    facts: Sequence[tuple[str, str]]
    layers: Table | None
    areas: Table | None
    fascia: Sequence[tuple[str, str]]
    pictures: ScanPictures


@dataclass
class _Sizes:
    """Bytes of pictures of each scan, filled while the page is written."""

    scans: list[int] = field(default_factory=list)

    @property
    def mean_mb(self) -> str:
        return number(sum(self.scans) / len(self.scans) / 1e6, 2, "MB") if self.scans else ""


def _entries(measured: Measured) -> list[_Entry]:
    entries = []
    for i, scan in enumerate(measured.scans):
        about = [f"subject {scan['subject']}"] if scan.get("subject") is not None else []
        about += [str(scan[key]) for key in ("side", "site", "status") if scan.get(key) is not None]
        about += [f"repeat {scan['repeat']}"] if scan.get("repeat") is not None else []
        flags = tables.flags_of(scan)
        levels = {flag.level for flag in flags}
        level = "check" if "check" in levels else "ok" if "ok" in levels else "unknown"
        entries.append(_Entry(i + 1, scan, str(scan["scan"]), ", ".join(about), flags, level))
    return entries


def _scales(measured: Measured) -> dict[int, float]:
    """End of each layer's colour bar in mm, one for all scans so that maps can be compared: the highest P95."""
    tops: dict[int, float] = {}
    for scan in measured.scans:
        for layer in scan.get("layers") or []:
            top = (layer.get("thickness_mm") or {}).get("p95")
            if isinstance(top, int | float) and math.isfinite(top) and top > 0:
                tops[int(layer["label"])] = max(top, tops.get(int(layer["label"]), 0.0))
    return {label: scale_end(top) for label, top in tops.items()}


def _colour_map() -> list[str]:
    """Viridis in 64 steps, as the other report draws thickness."""
    import matplotlib

    viridis = matplotlib.colormaps["viridis"]
    return [matplotlib.colors.to_hex(viridis((i + 0.5) / 64)) for i in range(64)]


def _scan_facts(scan: Mapping[str, Any]) -> list[tuple[str, str]]:
    shape, spacing = scan.get("shape"), scan.get("spacing_mm")
    lines: list[tuple[str, Any]] = [(key, file_name(scan.get(key))) for key in ("image", "segmentation")]
    if shape and spacing:
        grid = " × ".join(map(str, shape))
        lines.append(("grid", f"{grid} voxels of {' × '.join(number(step, 3) for step in spacing)} mm"))
    lines.append(("echo level", tables.echo_scale(scan.get("echo_scale"))))
    return [(name, str(value)) for name, value in lines if value]


def _folder(measured: Measured, value: Any) -> str:
    """A path of the source, relative ones to the folder of the measurements, in full."""
    return os.path.normpath(measured.path.parent.resolve() / str(value))


def _source(measured: Measured) -> dict[str, Any]:
    source = measured.content.get("source") or {}
    return {
        key: file_name(_folder(measured, value)) if value and key in _FOLDERS else value
        for key, value in source.items()
    }


def _failures(measured: Measured) -> dict[str, str]:
    """Scan to reason, without the folders that the files lie in."""
    source = measured.content.get("source") or {}
    folders = [form for key in _FOLDERS if (path := source.get(key)) for form in (_folder(measured, path), str(path))]
    folders += [os.path.dirname(folder) for folder in folders if folder.endswith(".json")]
    lines = {}
    for scan, line in (measured.content.get("failures") or {}).items():
        text = str(line)
        for folder in filter(None, folders):
            text = text.replace(f"{folder.rstrip('/')}/", "")
        lines[str(scan)] = text
    return lines


def _path(measured: Measured, value: Any) -> Path | None:
    """A path of the file, relative ones to its folder."""
    return measured.path.parent / str(value) if value else None


def _sections(
    measured: Measured, entries: Sequence[_Entry], slices: int, sizes: _Sizes, progress: Progress
) -> Iterator[_Section]:
    """One scan after the other, so that only one is in memory."""
    source = measured.content.get("source") or {}
    axis = source.get("depth_axis")
    depth = (2 if axis is None else axis, bool(source.get("depth_reversed"))) if measured.layered else None
    lut = lut_of(label_colours(measured.labels))
    for entry in progress(entries):
        scan = entry.scan
        pictures = ScanPictures()
        if slices:
            pictures = scan_pictures(
                _path(measured, scan.get("image")),
                _path(measured, scan.get("segmentation")),
                measured.labels,
                lut,
                slices,
                depth,
            )
        if pictures.content:
            sizes.scans.append(
                sum(len(still.uri) for still in pictures.stills.values()) + len(json.dumps(pictures.content))
            )
        yield _Section(
            entry,
            _scan_facts(scan),
            tables.layer_rows(scan, measured.labels),
            tables.area_table(scan),
            tables.fascia_lines(scan),
            pictures,
        )


def _title(cohort: Any) -> str:
    """Name of the cohort's folder, whether the cohort was named by it or by a JSON file in it."""
    path = Path(str(cohort))
    return (path.parent if path.suffix == ".json" else path).name or "Scans"


def _page(measured: Measured, slices: int, progress: Progress) -> dict[str, Any]:
    from grn_monai.handlers.record import provenance

    content = measured.content
    entries = _entries(measured)
    checks = tables.checks(measured.scans)
    raised = [(entry, flag) for entry in entries for flag in entry.raised]
    measures = tables.table_measures(measured)
    colours = label_colours(measured.labels)
    scales = _scales(measured)
    sizes = _Sizes()
    written = {**provenance(), "written": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    source = _source(measured)
    texts = [key for key in _TEXT_COLUMNS if any(scan.get(key) is not None for scan in measured.scans)]
    return {
        "title": _title(_folder(measured, (content.get("source") or {}).get("cohort") or "")),
        "simulated": content.get("simulated"),
        "layered": measured.layered,
        "entries": entries,
        "subjects": len({scan["subject"] for scan in measured.scans if scan.get("subject") is not None}),
        "looks": sum(entry.level == "check" for entry in entries),
        "unchecked": sum(entry.level == "unknown" for entry in entries),
        "checks": checks,
        "raised": raised[:_LISTED],
        "raised_more": raised[_LISTED:],
        "notes": [str(note) for note in content.get("notes") or []],
        "failures": _failures(measured),
        "text_columns": texts,
        "measures": measures,
        "labels": measured.labels,
        "colours": colours,
        "page_data": {
            "measures": [vars(measure) for measure in measures],
            "labels": {
                str(value): {"name": name, "colour": colours[value], "top_mm": scales.get(value)}
                for value, name in measured.labels.items()
            },
            "viridis": _colour_map(),
        },
        "slices": slices,
        "sections": _sections(measured, entries, slices, sizes, progress),
        "sizes": sizes,
        "left_right": side_comparisons(content.get("left_right")),
        "repeatability": repeat_comparisons(content.get("repeatability")),
        "measured_facts": facts(content.get("provenance") or {}),
        "source_facts": [(key.replace("_", " "), str(value)) for key, value in source.items() if value is not None],
        "report_facts": facts(written),
        "provenance_json": json_text({"measurements": content.get("provenance"), "source": source, "report": written}),
        "written": written["written"],
        "number": number,
    }


def build_scan_report(
    measurements: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    slices: int = 24,
    progress: Progress = lambda entries: entries,
) -> Path:
    """Write `report.html` (one file, no network) of the scans in a `measurements.json`.

    Scans are read one after the other while the page is written, so memory does not grow with their number.

    Args:
        measurements: the file that `grn-monai measure` wrote, or its folder.
        out: folder to write to; default that of the measurements.
        slices: slices of each depth plane to show, evenly spaced; 0 for a report without pictures.
        progress: wraps the sequence of scans, for a progress bar.

    Returns:
        The path of `report.html`. A scan whose files are missing or do not fit has a note in its place.

    Raises:
        InputError: if there are no measurements, they are not in the format, or `slices` is negative.
    """
    if slices < 0:
        raise InputError("slices", str(slices), "0 or more slices of each plane", "Correct the option.")
    measured = read_measurements(measurements)
    page = _page(measured, slices, progress)
    target = (Path(out) if out is not None else measured.path.parent) / "report.html"
    with replacing(target) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(page_template("scans.html.j2").generate(page))
    return target
