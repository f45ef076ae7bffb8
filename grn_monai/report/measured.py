"""Read `measurements.json` and lay its numbers out as the rows and tables of the scan report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.measure.tables import FORMAT
from grn_monai.report.numbers import MISSING, number, significant, spread
from grn_monai.report.tables import Cell, Table

__all__ = [
    "MEASUREMENTS",
    "Check",
    "Flag",
    "Measure",
    "Measured",
    "area_table",
    "checks",
    "echo_scale",
    "fascia_lines",
    "find_measurements",
    "flags_of",
    "layer_rows",
    "read_measurements",
    "table_measures",
]

MEASUREMENTS = "measurements.json"

_MEND = "Write it again with `grn-monai measure`."
_ABSENT = "layer not found"


@dataclass(frozen=True)
class Measured:
    """Content of a `measurements.json`.

    Attributes:
        path: the file.
        content: everything in it.
        scans: its scans, those with most quality flags first.
        labels: label value to name, in order of value.
        layered: whether thickness was measured; it is not where the labels are no layers.
    """

    path: Path
    content: Mapping[str, Any]
    scans: Sequence[Mapping[str, Any]]
    labels: Mapping[int, str]
    layered: bool


@dataclass(frozen=True)
class Flag:
    """One quality flag of a scan as text; `level` is "ok", "check" or "unknown"."""

    title: str
    level: str
    text: str
    value: str
    limit: str


@dataclass(frozen=True)
class Check:
    """One kind of quality flag over all scans; `reasons` says why some could not be checked."""

    title: str
    limit: str
    look: int
    fine: int
    unknown: int
    reasons: Sequence[str]


@dataclass(frozen=True)
class Measure:
    """A quantity that the table of all scans can show: values (scan, layer), None where missing."""

    key: str
    title: str
    digits: int
    values: Sequence[Sequence[float | None]]


def find_measurements(path: str | PathLike[str]) -> Path | None:
    """The `measurements.json` that `path` is, or that lies in the folder `path`; else None."""
    path = Path(path)
    if path.is_dir():
        path = path / MEASUREMENTS
    return path if path.is_file() and path.suffix == ".json" else None


def _flagged(scan: Mapping[str, Any]) -> int:
    return sum(flag.get("level") == "check" for flag in flags_of(scan, raw=True))


def flags_of(scan: Mapping[str, Any], raw: bool = False) -> list[Any]:
    """The quality flags of a scan: as `Flag` texts, or as they stand in the file."""
    found = (scan.get("quality") or {}).get("flags") or []
    if raw:
        return list(found)
    flags = []
    for flag in found:
        unit = _unit(flag)
        flags.append(
            Flag(
                str(flag.get("title") or flag.get("name") or "check"),
                str(flag.get("level")),
                str(flag.get("text") or ""),
                significant(flag.get("value"), 3, unit),
                significant(flag.get("limit"), 3, unit),
            )
        )
    return flags


def _unit(flag: Mapping[str, Any]) -> str:
    unit = str(flag.get("unit") or "")
    return {"percent": "%", "fraction": "", "1": ""}.get(unit, "%" if unit.startswith("%") else unit)


def read_measurements(path: str | PathLike[str]) -> Measured:
    """Read and check a `measurements.json`, or that of a folder.

    Raises:
        InputError: there is none, it is not JSON, or not what `grn-monai measure` writes.
    """
    found = find_measurements(path)
    if found is None:
        raise InputError(path, f"no {MEASUREMENTS}", "a folder that `grn-monai measure` wrote", "Check the path.")
    try:
        content = json.loads(found.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(found, f"a file that cannot be read ({error})", "JSON", _MEND) from error
    kind = content.get("format") if isinstance(content, dict) else type(content).__name__
    if kind != FORMAT:
        raise InputError(found, f"the format {kind!r}", repr(FORMAT), _MEND)
    scans = content.get("scans")
    if not isinstance(scans, list) or not all(isinstance(scan, dict) and scan.get("scan") for scan in scans):
        raise InputError(found, "scans without a name, or none", "a list of scans with a `scan` each", _MEND)
    try:
        labels = {int(value): str(name) for value, name in (content.get("labels") or {}).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(found, f"labels {content['labels']!r}", "label value to name", _MEND) from error
    if not all(0 <= value < 256 for value in labels):
        raise InputError(found, f"label values {sorted(labels)}", "values 0 to 255", _MEND)
    ordered = sorted(scans, key=lambda scan: -_flagged(scan))  # stable: equal ones keep the order of the file
    layered = content.get("layered")
    if layered is None:
        layered = any("thickness_mm" in layer for scan in scans for layer in scan.get("layers") or [])
    return Measured(found, content, ordered, {value: labels[value] for value in sorted(labels) if value}, bool(layered))


def checks(scans: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Every kind of quality flag, how many scans need a look for it, are fine, or could not be checked."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for scan in scans:
        for flag in flags_of(scan, raw=True):
            kinds.setdefault(str(flag.get("name") or flag.get("title")), []).append(flag)
    found = []
    for flags in kinds.values():
        levels = [flag.get("level") for flag in flags]
        reasons = dict.fromkeys(str(f["text"]) for f in flags if f.get("level") == "unknown" and f.get("text"))
        limits = dict.fromkeys(significant(flag.get("limit"), 3, _unit(flag)) for flag in flags)
        found.append(
            Check(
                str(flags[0].get("title") or flags[0].get("name")),
                ", ".join(limits),
                levels.count("check"),
                levels.count("ok"),
                levels.count("unknown"),
                list(reasons),
            )
        )
    return found


_MEASURES: tuple[tuple[str, str | None, str, int], ...] = (
    ("thickness_mm", "mean", "Thickness along the A-line, mean (mm)", 2),
    ("thickness_mm", "sd", "Thickness along the A-line, SD (mm)", 2),
    ("normal_thickness_mm", "mean", "Thickness along the surface normal, mean (mm)", 2),
    ("volume_ml", None, "Volume (ml)", 2),
    ("echo_percent", "mean", "Echo level, mean (% of the range)", 1),
    ("echo_db", "mean", "Echo level, mean (dB)", 1),
    ("grey", "mean", "Grey value as stored, mean", 1),
    ("coverage_percent", None, "A-lines that meet the layer (%)", 1),
)


def _layers(scan: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    return {int(layer["label"]): layer for layer in scan.get("layers") or [] if layer.get("label") is not None}


def _value(layer: Mapping[str, Any], key: str, part: str | None) -> float | None:
    value = layer.get(key)
    if part is not None:
        value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def table_measures(measured: Measured) -> list[Measure]:
    """Every quantity that at least one layer of one scan has; columns in the order of `measured.labels`."""
    found = []
    for key, part, title, digits in _MEASURES:
        values = []
        for scan in measured.scans:
            layers = _layers(scan)
            values.append([_value(layers.get(label, {}), key, part) for label in measured.labels])
        if any(value is not None for row in values for value in row):
            found.append(Measure(f"{key}.{part}" if part else key, title, digits, values))
    return found


def _layer_cell(layer: Mapping[str, Any], key: str, digits: int) -> Cell:
    value = layer.get(key)
    if not isinstance(value, Mapping):
        return Cell(number(value, digits))
    ends = [value.get("p5"), value.get("p95")]
    below = [f"{number(ends[0], digits)} to {number(ends[1], digits)}"] if None not in ends else []
    known = layer.get("normal_coverage_percent") if key == "normal_thickness_mm" else None
    if known is not None and value.get("mean") is not None:
        below.append(f"on {number(known, 1)} % of all A-lines")
    return Cell(spread(value, digits), tuple(below))


def layer_rows(scan: Mapping[str, Any], labels: Mapping[int, str]) -> Table | None:
    """The layer table of one scan: mean ± SD, and the 5th and 95th percentile below; None without layers."""
    columns = {
        "coverage_percent": ("A-lines that meet it (%)", 1),
        "thickness_mm": ("Thickness along A-line (mm)", 2),
        "normal_thickness_mm": ("Thickness along normal (mm)", 2),
        "volume_ml": ("Volume (ml)", 2),
        "echo_percent": ("Echo level (%)", 1),
        "echo_db": ("Echo level (dB)", 1),
        "grey": ("Grey value as stored", 1),
    }
    layers = _layers(scan)
    kept = {key: c for key, c in columns.items() if any(layer.get(key) is not None for layer in layers.values())}
    if not kept:
        return None
    rows = []
    for label, name in labels.items():
        layer = layers.get(label)
        if layer is None:
            rows.append((name, [Cell(MISSING, (_ABSENT,)), *[Cell(MISSING)] * (len(kept) - 1)]))
            continue
        cells = [_layer_cell(layer, key, digits) for key, (_, digits) in kept.items()]
        if layer.get("coverage_percent") == 0:
            cells[0] = Cell(cells[0].text, (_ABSENT,))
        elif layer.get("cut_percent"):
            cells[0] = Cell(cells[0].text, (f"cut on {number(layer['cut_percent'], 1)} % of them",))
        rows.append((name, cells))
    return Table([title for title, _ in kept.values()], rows)


def area_table(scan: Mapping[str, Any]) -> Table | None:
    """Cross-sectional areas over the slices of each plane that hold the label, in cm²; None without."""
    areas = [(str(layer.get("name")), layer.get("area_cm2")) for layer in scan.get("layers") or []]
    if not any(area for _, area in areas):
        areas = [("muscle", scan.get("muscle_area_cm2"))]
    planes = list(dict.fromkeys(plane for _, area in areas for plane in area or {}))
    rows = [(name, [_area_cell(area.get(plane)) for plane in planes]) for name, area in areas if area]
    return Table([f"{plane.capitalize()} slices (cm²)" for plane in planes], rows) if rows else None


def _area_cell(area: Any) -> Cell:
    if not isinstance(area, Mapping) or area.get("mean") is None:
        return Cell(MISSING)
    below = [f"largest {number(area.get('max'))}"]
    if area.get("slices") is not None:
        below.append(f"{number(area['slices'], 0)} slices")
    return Cell(spread(area), tuple(below))


def echo_scale(scale: Any) -> str:
    """What 0 and 100 % of the echo level are in grey values as stored; empty where nothing says so."""
    if not isinstance(scale, Mapping) or not scale.get("rule"):
        return ""
    ends = f"0 % is grey {significant(scale.get('black'))}, 100 % is grey {significant(scale.get('white'))}"
    if scale["rule"] == "percentiles":
        ends += ", the 0.5th and 99.5th percentile of this scan: not to be compared between scans"
    return f"{ends} ({scale['rule']})"


def fascia_lines(scan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Echogenicity of the fascial membranes and their contrast to muscle as (name, text); empty without."""
    fascia = scan.get("fascia") or {}
    lines = [
        ("echo level of both membranes (%)", spread(fascia.get("echo_percent"), 1)),
        ("the same (dB)", spread(fascia.get("echo_db"), 1)),
        ("less that of muscle (percentage points)", number(fascia.get("contrast_percent"), 1, signed=True)),
        ("less that of muscle (dB)", number(fascia.get("contrast_db"), 1, signed=True)),
    ]
    return [(name, text) for name, text in lines if text != MISSING]
