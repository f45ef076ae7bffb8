"""The numbers of a scan by layer and measure, and the left–right difference of a subject."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Measure", "left_right", "scan_measures", "side_of"]

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}


class Measure(NamedTuple):
    """What is compared between scans: layer (label 0 and name "fasciae" for both membranes), quantity and unit."""

    label: int
    layer: str
    measure: str
    unit: str


def side_of(value: Any) -> str | None:
    """ "left" or "right" from an item's ``side`` (also L, R, in any case), else None."""
    return _SIDES.get(str(value).strip().lower())


def scan_measures(scan: Mapping[str, Any]) -> dict[Measure, float]:
    """The numbers of one entry of ``measurements.json`` that are compared between sides and repeats.

    Returns:
        Mean thickness along the A-line and the normal (mm), mean echo level (%), volume (ml) and mean cross-sectional
        area (cm²) of each layer, and the echo level of both fascial membranes (%); what is not known is left out.
    """
    found: dict[Measure, float | None] = {}
    for layer in scan["layers"]:
        label, name = int(layer["label"]), layer["name"]
        for key, measure, unit in (
            ("thickness_mm", "thickness", "mm"),
            ("normal_thickness_mm", "normal_thickness", "mm"),
            ("echo_percent", "echo", "%"),
        ):
            if layer.get(key):
                found[Measure(label, name, measure, unit)] = layer[key]["mean"]
        # A volume of 0 is a number, but that of a layer nobody found is none to compare.
        found[Measure(label, name, "volume", "ml")] = layer["volume_ml"] or None
        for plane, area in (layer.get("area_cm2") or {}).items():
            found[Measure(label, name, f"area_{plane}", "cm²")] = area["mean"]
    fascia = scan.get("fascia")
    if fascia:
        found[Measure(0, "fasciae", "echo", "%")] = fascia["echo_percent"]["mean"]
        found[Measure(0, "fasciae", "contrast_to_muscle", "%")] = fascia["contrast_percent"]
    return {key: float(value) for key, value in found.items() if value is not None}


def left_right(scans: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Differences between the sides of each subject at each site.

    Args:
        scans: entries of ``measurements.json``; those without a side or subject do not count. Several scans of one
            side (repeats) are averaged first.

    Returns:
        One dict for each subject, site and measure known on both sides: ``subject``, ``site``, ``label``, ``layer``,
        ``measure``, ``unit``, ``left``, ``right``, ``n_left``, ``n_right``, ``difference`` (right − left) and
        ``asymmetry_percent``, 100·(right − left) / ((right + left) / 2), None where that is 0 or the measure is itself
        a difference (contrast).
    """
    places: dict[tuple[str, Any], dict[str, list[Mapping[str, Any]]]] = {}
    for scan in scans:
        side = side_of(scan.get("side"))
        if side and scan.get("subject") is not None:
            place = places.setdefault((scan["subject"], scan.get("site")), {"left": [], "right": []})
            place[side].append(scan)
    rows = []
    for (subject, site), sides in places.items():
        values = {side: _collected(group) for side, group in sides.items()}
        for measure, left in values["left"].items():
            right = values["right"].get(measure)
            if right is None:
                continue
            a, b = statistics.fmean(left), statistics.fmean(right)
            relative = a + b > 0 and not measure.measure.startswith("contrast")
            rows.append(
                {
                    "subject": subject,
                    "site": site,
                    **measure._asdict(),
                    "left": a,
                    "right": b,
                    "n_left": len(left),
                    "n_right": len(right),
                    "difference": b - a,
                    "asymmetry_percent": 200 * (b - a) / (a + b) if relative else None,
                }
            )
    return rows


def _collected(scans: Sequence[Mapping[str, Any]]) -> dict[Measure, list[float]]:
    values: dict[Measure, list[float]] = {}
    for scan in scans:
        for measure, value in scan_measures(scan).items():
            values.setdefault(measure, []).append(value)
    return values
