"""The numbers of a scan by layer and measure, and the left–right difference of a subject."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = [
    "CUT_LIMIT",
    "POINTS",
    "Measure",
    "comparable",
    "cut_note",
    "grey_rule",
    "left_right",
    "paired_labels",
    "scan_measures",
    "side_of",
]

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_SIDE_WORD = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)

POINTS = "percentage points"
"""Unit of a difference of two echo levels in %."""

CUT_LIMIT = 5.0
"""A layer cut by the field of view on more than this % of its A-lines has no thickness, volume or area to compare."""

_CUT_MEASURES = ("thickness", "normal_thickness", "volume", "area_")
_ECHO_MEASURES = ("echo", "contrast_to_muscle")


class Measure(NamedTuple):
    """What is compared between scans: layer (label 0 and name "fasciae" for both membranes), quantity and unit."""

    label: int
    layer: str
    measure: str
    unit: str

    @property
    def is_echo(self) -> bool:
        """Whether it is a level on the grey scale of its scan."""
        return self.measure in _ECHO_MEASURES


def side_of(value: Any) -> str | None:
    """ "left" or "right" from an item's ``side`` (also L, R, in any case), else None."""
    return _SIDES.get(str(value).strip().lower())


def scan_measures(scan: Mapping[str, Any]) -> dict[Measure, float]:
    """The numbers of one entry of ``measurements.json`` that are compared between sides and repeats.

    Returns:
        Mean thickness along the A-line and the normal (mm), mean echo level (%), volume (ml) and mean cross-sectional
        area (cm²) of each layer, the echo level of both fascial membranes (%) and its contrast to muscle (percentage
        points); what is not known is left out.
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
        found[Measure(0, "fasciae", "contrast_to_muscle", POINTS)] = fascia["contrast_percent"]
    return {key: float(value) for key, value in found.items() if value is not None}


def comparable(scan: Mapping[str, Any]) -> dict[Measure, float | None]:
    """`scan_measures` with None for thickness, volume and area of layers that the field of view cuts.

    How much of a cut layer is in view depends on how deep the scan reaches, not on the subject.
    """
    cut = {int(layer["label"]) for layer in scan["layers"] if (layer.get("cut_percent") or 0) > CUT_LIMIT}
    return {
        measure: None if measure.label in cut and measure.measure.startswith(_CUT_MEASURES) else value
        for measure, value in scan_measures(scan).items()
    }


def grey_rule(scan: Mapping[str, Any]) -> str | None:
    """By which rule the echo level of an entry was scaled, "8-bit" or "percentiles"; None where nothing says so."""
    rule = (scan.get("echo_scale") or {}).get("rule")
    return None if rule is None else str(rule)


class _Sides(NamedTuple):
    """One measure at one place: values of the scans by side, how many were cut, and the rules of grey levels."""

    values: dict[str, list[float]]
    cut: list[str]
    rules: set[str | None]


def _bare(name: str) -> tuple[str, str | None]:
    """A name without the word left or right, and that word; the name alone where there is not exactly one."""
    words = _SIDE_WORD.findall(name)
    if len(words) != 1:
        return name, None
    bare = re.sub(r"[\s_\-(),]+", " ", _SIDE_WORD.sub(" ", name)).strip()
    return bare, words[0].lower()


def paired_labels(scan: Mapping[str, Any]) -> dict[int, tuple[str, str, int]]:
    """Label to name without side, side, and label of the left one, where both sides are labels of the scan."""
    found: dict[str, dict[str, int]] = {}
    for layer in scan["layers"]:
        bare, side = _bare(str(layer["name"]))
        if side:
            found.setdefault(bare, {})[side] = int(layer["label"])
    both = {bare: labels for bare, labels in found.items() if len(labels) == 2}
    return {label: (bare, side, labels["left"]) for bare, labels in both.items() for side, label in labels.items()}


def left_right(scans: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Differences between the sides of each subject at each site, status by status.

    Args:
        scans: entries of ``measurements.json``. A side is that of the scan, or, where the names of two labels of a
            scan differ only in the words left and right ("psoas left", "psoas right"), that of the label. Several
            scans of one side (repeats) are averaged first; scans of another ``status`` (before, after) are another
            row.

    Returns:
        One dict for each subject, site, status and measure known on both sides: ``subject``, ``site``, ``status``,
        ``label`` (of two labels the left), ``layer``, ``measure``, ``unit``, ``left``, ``right``, ``n_left``,
        ``n_right``, ``difference`` (right − left; of echo levels in percentage points) and ``asymmetry_percent``,
        100·(right − left) / ((right + left) / 2), None for echo levels, whose zero is arbitrary, and where that is
        0; and ``note``. Where the field of view cuts the layer in one of the scans (see `comparable`), or their grey
        levels have different scales, there are no values and the note says why.
    """
    places: dict[tuple[str, Any, Any], dict[Measure, _Sides]] = {}
    for scan in scans:
        if scan.get("subject") is None:
            continue
        place = places.setdefault((scan["subject"], scan.get("site"), scan.get("status")), {})
        paired, own = paired_labels(scan), side_of(scan.get("side"))
        for measure, value in comparable(scan).items():
            side: str | None = own
            key = measure
            if measure.label in paired:
                bare, side, left = paired[measure.label]
                key = measure._replace(label=left, layer=bare)
            if side is None:
                continue
            sides = place.setdefault(key, _Sides({"left": [], "right": []}, [], set()))
            if value is None:
                sides.cut.append(side)
            else:
                sides.values[side].append(value)
            sides.rules.add(grey_rule(scan))
    return [
        {"subject": subject, "site": site, "status": status, **row}
        for (subject, site, status), measures in places.items()
        for measure, sides in measures.items()
        if (row := _side_row(measure, sides)) is not None
    ]


def _side_row(measure: Measure, sides: _Sides) -> dict[str, Any] | None:
    left, right = (sides.values[side] for side in ("left", "right"))
    if not all(values or side in sides.cut for side, values in sides.values.items()):
        return None  # on one side only
    row: dict[str, Any] = {**measure._asdict(), "left": None, "right": None}
    row |= {"n_left": len(left), "n_right": len(right), "difference": None, "asymmetry_percent": None, "note": None}
    if sides.cut:
        row["note"] = cut_note(len(sides.cut))
    elif measure.is_echo and len(sides.rules) > 1:
        row["note"] = f"grey levels of different scales: {_listed_rules(sides.rules)}"
    else:
        a, b = statistics.fmean(left), statistics.fmean(right)
        row |= {"left": a, "right": b, "difference": b - a}
        if a + b > 0 and not measure.is_echo:
            row["asymmetry_percent"] = 200 * (b - a) / (a + b)
    return row


def _listed_rules(rules: Iterable[str | None]) -> str:
    return " and ".join(sorted(rule or "unknown" for rule in rules))


def cut_note(count: int) -> str:
    """The note on scans that the field of view cuts."""
    return f"cut by the field of view in {count} scan{'s' * (count != 1)}"
