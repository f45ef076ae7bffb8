"""The files that measuring leaves: tables with units in their headers, and one JSON with everything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grn_monai.files import write_whole
from grn_monai.measure.layers import PERCENTILES
from grn_monai.measure.plots import bland_altman_figure
from grn_monai.measure.quality import CHECKS
from grn_monai.measure.repeatability import repeatability
from grn_monai.measure.sides import left_right
from grn_monai.measure.sources import Source
from grn_monai.metrics.files import csv_text, json_text

__all__ = ["FORMAT", "UNITS", "write_results"]

FORMAT = "grn-monai measurements 1"
"""The ``format`` of ``measurements.json``."""

UNITS = {
    "thickness_mm": "mm along the A-line, over the A-lines that meet the layer; where the field of view cuts it "
    "(cut_percent) a lower bound",
    "normal_thickness_mm": "mm along the local normal of the layer's upper surface, where both surfaces are in view",
    "coverage_percent": "% of the A-lines that meet the layer",
    "normal_coverage_percent": "% of the A-lines on which the thickness along the normal is known",
    "cut_percent": "% of the A-lines that meet the layer on which it goes on beyond the field of view",
    "volume_ml": "ml within the scan",
    "echo_percent": "% of the grey scale, see echo_scale: of the display's dynamic range (0 black, 100 white) with "
    "8 bits, else of the 0.5th to 99.5th percentile of the scan; SD over voxels",
    "echo_db": "dB relative to full scale (white), with 8 bits and a known dynamic range; SD over voxels",
    "echo_scale": "rule of the grey scale, and the grey values as stored of 0 % (black) and 100 % (white)",
    "grey": "grey value as stored; SD over voxels",
    "area_cm2": "cm², over the slices that hold the label; those of each slice are in muscle_areas.csv",
    "spacing_mm": "mm",
    "difference": "right − left in the unit of the row; of echo levels in percentage points",
    "asymmetry_percent": "% of the mean of both sides",
}

_KEYS = ("subject", "scan", "side", "site", "status", "repeat")
_LAYER_KEYS = ("coverage_percent", "cut_percent", "normal_coverage_percent", "volume_ml")
_SPREAD = ("mean", "sd", *PERCENTILES)


def _layer_rows(scans: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    for scan in scans:
        for layer in scan["layers"]:
            row = [*(scan[key] for key in _KEYS), layer["label"], layer["name"]]
            row += [layer.get(key) for key in _LAYER_KEYS]
            for key in ("thickness_mm", "normal_thickness_mm"):
                row += [(layer.get(key) or {}).get(part) for part in _SPREAD]
            for key in ("echo_percent", "echo_db", "grey"):
                row += [(layer.get(key) or {}).get(part) for part in ("mean", "sd")]
            yield row


_LAYER_COLUMNS = (
    *_KEYS,
    *("label", "layer", *_LAYER_KEYS),
    *(f"{kind}_{part}_mm" for kind in ("thickness", "normal_thickness") for part in _SPREAD),
    *(f"{kind}_{part}_{unit}" for kind, unit in (("echo", "percent"), ("echo", "db")) for part in ("mean", "sd")),
    *("grey_mean", "grey_sd"),
)


def _area_columns(scans: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, str]]:
    """Label, name and plane of every area that some scan has."""
    found: dict[tuple[int, str, str], None] = {}
    for scan in scans:
        for layer in scan["layers"]:
            for plane in layer["area_cm2"] or {}:
                found[(layer["label"], layer["name"], plane)] = None
    return list(found)


def _scan_table(scans: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    areas = _area_columns(scans)
    parts = ("mean", "sd", "max")
    fascia = ("fascia_echo_percent", "fascia_echo_db", "fascia_contrast_percentage_points", "fascia_contrast_db")
    header = [
        *_KEYS,
        "quality",
        "not_checked",
        *(f"{name}_{_unit(check.unit)}" for name, check in CHECKS.items()),
        "to_look_at",
    ]
    header += [f"{name.replace(' ', '_')}_area_{plane}_{part}_cm2" for _, name, plane in areas for part in parts]
    header += [*fascia, "echo_scale", "image", "segmentation", "map"]
    rows = []
    for scan in scans:
        flags = {flag["name"]: flag for flag in scan["quality"]["flags"]}
        row: list[Any] = [*(scan[key] for key in _KEYS), scan["quality"]["status"]]
        row.append(sum(flag["level"] == "unknown" for flag in flags.values()))
        row += [flags.get(name, {}).get("value") for name in CHECKS]
        row.append("; ".join(name for name, flag in flags.items() if flag["level"] == "check"))
        by_label = {layer["label"]: layer["area_cm2"] or {} for layer in scan["layers"]}
        row += [(by_label.get(label, {}).get(plane) or {}).get(part) for label, _, plane in areas for part in parts]
        echo = scan["fascia"] or {}
        row += [(echo.get("echo_percent") or {}).get("mean"), (echo.get("echo_db") or {}).get("mean")]
        row += [echo.get("contrast_percent"), echo.get("contrast_db"), (scan["echo_scale"] or {}).get("rule")]
        rows.append([*row, scan["image"], scan["segmentation"], scan["map"]])
    return header, rows


def _unit(text: str) -> str:
    return "percent" if text.startswith("%") else "count"


_SIDE_COLUMNS = (
    *("subject", "site", "status", "layer", "measure", "unit", "left", "right", "n_left", "n_right"),
    *("difference", "asymmetry_percent", "note"),
)
_REPEAT_COLUMNS = (
    *("layer", "measure", "unit", "sites", "repeats", "left_out_sites", "left_out_scans"),
    *("mean", "sd", "icc_2_1", "icc_ci95_low", "icc_ci95_high", "sem", "within_sd", "mdc95"),
    *("first", "second", "bias", "bias_ci95_low", "bias_ci95_high", "difference_sd"),
    *("loa_lower", "loa_lower_ci95_low", "loa_lower_ci95_high"),
    *("loa_upper", "loa_upper_ci95_low", "loa_upper_ci95_high", "note"),
)


def _repeat_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    for row in rows:
        shared = [row[key] for key in ("layer", "measure", "unit", *_REPEAT_COLUMNS[3:9], "icc")]
        shared += [*(row["icc_ci95"] or (None, None)), row["sem"], row["within_sd"], row["mdc95"]]
        for pair in row["bland_altman"] or [None]:
            cells: list[Any] = [None] * 12  # as many as a pair has
            if pair is not None:
                cells = [pair["first"], pair["second"], pair["bias"], *pair["bias_ci95"], pair["sd"]]
                for end in ("lower", "upper"):
                    cells += [pair[end], *pair[f"{end}_ci95"]]
            yield [*shared, *cells, row["note"]]


def write_results(
    out: Path,
    scans: Sequence[dict[str, Any]],
    failures: Mapping[str, str],
    source: Source,
    about: Mapping[str, Any],
    limits: Mapping[str, float],
    notes: Sequence[str] = (),
) -> tuple[dict[str, Any], list[Path]]:
    """Writes tables, the Bland–Altman picture where there are repeats, and the JSON last, each whole or not at all.

    Args:
        out: folder.
        scans: entries of ``measurements.json``.
        failures: name of the image file to one line.
        source: where the scans came from.
        about: the ``source`` block.
        limits: of the quality checks.
        notes: what holds for all scans.

    Returns:
        The content of ``measurements.json`` and the files written.
    """
    from grn_monai.handlers import provenance

    sides, repeats = left_right(scans), repeatability(scans)
    written = [
        write_whole(out / "measurements.csv", csv_text(_LAYER_COLUMNS, _layer_rows(scans))),
        write_whole(out / "scans.csv", csv_text(*_scan_table(scans))),
        write_whole(
            out / "left_right.csv",
            csv_text(_SIDE_COLUMNS, ([row[key] for key in _SIDE_COLUMNS] for row in sides)),
        ),
    ]
    table, picture = out / "repeatability.csv", out / "bland_altman.png"
    for stale in (table, picture):  # of an earlier call with other scans
        stale.unlink(missing_ok=True)
    if repeats:
        written.append(write_whole(table, csv_text(_REPEAT_COLUMNS, _repeat_rows(repeats))))
        drawn = bland_altman_figure(repeats)
        if drawn is not None:
            written.append(write_whole(picture, drawn))
    content = {
        "format": FORMAT,
        "simulated": source.simulated,
        "units": UNITS,
        "source": dict(about),
        "layered": source.label_set.layered,
        "labels": {str(label): name for label, name in source.label_set.names.items()},
        "limits": dict(limits),
        "notes": list(notes),
        "provenance": provenance(),
        "scans": list(scans),
        "left_right": sides,
        "repeatability": [{k: v for k, v in row.items() if k != "values"} for row in repeats],
        "failures": dict(failures),
    }
    written.append(write_whole(out / "measurements.json", json_text(content)))
    return content, written
