"""What the generator learnt: `enhancement.json` of an evaluation to sentences, tables, histograms and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from grn_monai.labels import LAYER_COLOURS, LAYER_NAMES, LAYERS
from grn_monai.metrics.contrast import BOUNDARIES
from grn_monai.report.figures import styled, subplots, svg_text
from grn_monai.report.load import Method
from grn_monai.report.panels import data_uri
from grn_monai.report.tables import Cell, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Claim", "EnhancementSection", "Picture", "claims", "enhancement_section", "histogram_figure"]

Quantity = Mapping[str, Any]

_NAMES = [LAYER_NAMES[label] for label in LAYERS]
_COLUMNS = {
    "cnr": ("CNR", 2),
    "gcnr": ("gCNR", 2),
    "gradient_percent_per_mm": ("Gradient (%/mm)", 1),
    "sharpness_per_mm": ("Sharpness (SD/mm)", 2),
    "prominence": ("Prominence", 2),
}
_ENOUGH = 6
"""From six subjects on, all changing in one direction is unlikely by chance: 2 · 0.5⁶ = 0.03 (sign test)."""


@dataclass(frozen=True)
class Claim:
    """A claim of the papers: "yes", "no" (the opposite was measured) or "not shown", and the sentence that says why."""

    claim: str
    verdict: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A PNG of the evaluation as data URI, with its caption and what to read out in its place."""

    title: str
    alt: str
    uri: str


@dataclass(frozen=True)
class EnhancementSection:
    """Everything shown of one method.

    Attributes:
        title: what the report calls the method.
        lead: L1 distance, and how many scans and subjects.
        claims: one for each claim of the papers; none without labelled scans.
        caveat: what few subjects mean for the verdicts; empty for enough.
        boundaries: table of the boundaries, or None without labelled scans.
        levels: table of layers and regions, or None.
        figure: histograms as SVG text, or None.
        alt: what to read out in place of the figure.
        pictures: raw against enhanced slices.
        content: content of `enhancement.json`.
    """

    title: str
    lead: str
    claims: Sequence[Claim]
    caveat: str
    boundaries: Table | None
    levels: Table | None
    figure: str | None
    alt: str
    pictures: Sequence[Picture]
    content: Mapping[str, Any]


def _number(value: float | None, digits: int, signed: bool = False) -> str:
    if value is None:
        return "–"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−")


def _interval(quantity: Quantity, digits: int) -> str:
    ci = quantity["subject_ci"]
    return f"{_number(ci[0], digits, True)} to {_number(ci[1], digits, True)}" if ci else ""


def _change(quantity: Quantity, digits: int) -> str:
    """Signed change with its interval, as part of a sentence."""
    interval = _interval(quantity, digits)
    return f"{_number(quantity['change'], digits, True)} ({interval or 'one subject, so no interval'})"


def _direction(quantity: Quantity) -> int:
    """1 or −1 where the interval of the change lies above or below 0, else 0."""
    ci = quantity["subject_ci"]
    if not ci:
        return 0
    # What a linear stretch leaves as it was differs by rounding, and in every scan alike.
    rounding = 1e-4 * max(abs(quantity["raw"]), abs(quantity["enhanced"]))
    return int(ci[0] > rounding) - int(ci[1] < -rounding)


def claims(content: Mapping[str, Any]) -> list[Claim]:
    """Test what the papers say of G, from the numbers alone.

    Dark regions get brighter if the interval of their change lies above 0. Boundaries get sharper if that of their
    sharpness does and that of their prominence does too: speckle or artefacts that are amplified everywhere raise the
    gradient at the boundaries as well, without making them any clearer.

    Args:
        content: content of `enhancement.json`.

    Returns:
        Two claims; none without labelled scans.
    """
    if "regions" not in content:
        return []
    dark, bright = content["regions"]["dark"], content["regions"]["bright"]
    verdict = {1: "yes", 0: "not shown", -1: "no"}
    how = {1: "", 0: "", -1: ", it darkens them"}[_direction(dark)]
    brightens = (
        f"Brightens dark regions: {verdict[_direction(dark)]}{how}. Echo level of the darkest quarter of the tissue: "
        f"{_change(dark, 1)}, of the brightest: {_change(bright, 1)} percent of the dynamic range."
    )
    every = content["all_boundaries"]
    sharp, stands_out = _direction(every["sharpness_per_mm"]), _direction(every["prominence"])
    decided = sharp if sharp < 0 or stands_out > 0 else 0
    how = {1: "", 0: "", -1: ", it blurs them"}[decided]
    if sharp > decided:
        how = ", since the gradient rises within the layers too (texture or artefacts)"
    sharpens = (
        f"Sharpens boundaries: {verdict[decided]}{how}. Depth gradient at the boundaries: "
        f"{_change(every['sharpness_per_mm'], 2)} SD of the image per mm; relative to that within the layers: "
        f"{_change(every['prominence'], 2)}. Contrast across them: CNR {_change(every['cnr'], 2)}, "
        f"gCNR {_change(every['gcnr'], 2)}."
    )
    return [
        Claim("brightens dark regions", verdict[_direction(dark)], brightens),
        Claim("sharpens boundaries", verdict[decided], sharpens),
    ]


def _cell(quantity: Quantity | None, digits: int) -> Cell:
    """Raw → enhanced; below it the change and its interval."""
    if quantity is None or quantity["change"] is None:
        missing = (f"{quantity['n_missing']} missing",) if quantity else ()
        return Cell("–", missing)
    below = [_number(quantity["change"], digits, True)]
    below += [_interval(quantity, digits)] if quantity["subject_ci"] else []
    below += [f"{quantity['n_missing']} missing"] if quantity["n_missing"] else []
    return Cell(f"{_number(quantity['raw'], digits)} → {_number(quantity['enhanced'], digits)}", tuple(below))


def _boundary_table(content: Mapping[str, Any]) -> Table:
    found = {name: content["boundaries"][name] for name in BOUNDARIES}
    found |= {"mean of the boundaries": content["all_boundaries"], "within the layers": content["inner"]}
    rows = [
        (name, [_cell(values.get(key), digits) for key, (_, digits) in _COLUMNS.items()])
        for name, values in found.items()
    ]
    return Table([heading for heading, _ in _COLUMNS.values()], rows)


def _level_table(content: Mapping[str, Any]) -> Table:
    rows = [
        (name, [_cell(content["layers"][name][key], 1) for key in ("mean_percent", "sd_percent")]) for name in _NAMES
    ]
    regions = {"darkest quarter": "dark", "brightest quarter": "bright", "dark − bright": "dark_minus_bright"}
    rows += [(name, [_cell(content["regions"][key], 1), Cell("–")]) for name, key in regions.items()]
    return Table(["Mean echo level (%)", "SD (%)"], rows)


@styled
def histogram_figure(content: Mapping[str, Any], name: str) -> str:
    """Histograms of the echo levels of each layer, raw as a line over enhanced as an area.

    Args:
        content: content of `enhancement.json`, of labelled scans.
        name: distinguishes the figure from others on the page.

    Returns:
        SVG text.
    """
    figure, grid = subplots(2, 3, 9.5, 4.2)
    edges = np.asarray(content["histograms"]["edges_percent"], dtype=np.float64)
    for axes, label in zip(grid.flat, LAYERS, strict=True):
        counts = content["histograms"]["layers"][LAYER_NAMES[label]]
        raw, enhanced = (np.asarray(counts[key], dtype=np.float64) for key in ("raw", "enhanced"))
        axes.set_title(LAYER_NAMES[label])
        axes.set_xlim(0, 100)
        axes.grid(axis="y")
        if not raw.sum():
            axes.text(0.5, 0.5, "in no scan", ha="center", va="center", transform=axes.transAxes)
            continue
        area, line = 100 * enhanced / enhanced.sum(), 100 * raw / raw.sum()
        axes.stairs(area, edges, fill=True, color=LAYER_COLOURS[label], alpha=0.8, label="enhanced (area)")
        axes.stairs(line, edges, color=axes.spines["left"].get_edgecolor(), lw=1.2, label="raw (line)")
        _cap(axes, {"enhanced": area, "raw": line})
    for axes in grid[-1]:
        axes.set_xlabel("echo level (% of the dynamic range)")
    for axes in grid[:, 0]:
        axes.set_ylabel("voxels (%)")
    handles, texts = next((a.get_legend_handles_labels() for a in grid.flat if a.patches), ([], []))
    if handles:
        figure.legend(handles, texts, loc="outside upper center", ncols=2)
    return svg_text(figure, name)


def _cap(axes: Axes, shares: Mapping[str, Any]) -> None:
    """Let saturated voxels, all in an outermost bin, not flatten the rest; what is cut off is written beside it."""
    top = 1.1 * max(1.0, *(float(share[1:-1].max()) for share in shares.values()))
    axes.set_ylim(0, top)
    for row, (name, share) in enumerate(shares.items()):
        for bin_, x, side in ((0, 3, "left"), (-1, 96, "right")):
            if share[bin_] > top:
                axes.text(x, (0.97 - 0.11 * row) * top, f"{name} {share[bin_]:.0f} %", ha=side, va="top", fontsize=7)


def _alt(content: Mapping[str, Any]) -> str:
    levels = (
        f"{name} {_number(mean['raw'], 0)} to {_number(mean['enhanced'], 0)}"
        for name, mean in ((name, content["layers"][name]["mean_percent"]) for name in _NAMES)
    )
    return f"Histograms of the echo levels of each layer, raw and enhanced. Mean level in percent: {', '.join(levels)}."


def _pictures(content: Mapping[str, Any], method: Method, folder: Path, notes: list[str]) -> list[Picture]:
    pictures = []
    for entry in content.get("pictures") or []:
        path = folder / str(entry["file"])
        try:
            uri = data_uri(path.read_bytes())
        except OSError:
            notes.append(f"{method.title}: {entry['file']} is missing.")
            continue
        distance = f"{_number(entry['l1_percent'], 1)} %"
        title = f"Scan {entry['scan']}, {entry['plane']}: L1 distance {distance}"
        title += "" if entry["role"] == "only" else f", the {entry['role']} of the scans"
        pictures.append(Picture(title, f"Raw, enhanced and difference of a slice. {title}.", uri))
    return pictures


def enhancement_section(method: Method, notes: list[str]) -> EnhancementSection | None:
    """Read and prepare what the generator of a method did.

    Args:
        method: one evaluation; `enhancement.json` lies beside its `metrics.json`.
        notes: what is damaged is added here.

    Returns:
        The section, or None where there is no such file: a method without generator, or not measured.
    """
    folder = method.predictions.parent
    path = folder / "enhancement.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        distance, labelled = content["l1_percent"], "regions" in content
        interval = distance["subject_ci"]
        among = f", subjects {_number(interval[0], 1)} to {_number(interval[1], 1)}" if interval else ""
        scans, subjects = int(content["n_scans"]), int(content["n_subjects"])
        few = 0 < subjects < _ENOUGH
        return EnhancementSection(
            method.title,
            lead=f"L1 distance between raw and enhanced: {_number(distance['mean'], 1)} % of the dynamic range{among}. "
            f"{scans} scan{'s' if scans != 1 else ''} of {subjects} subject{'s' if subjects != 1 else ''}.",
            claims=claims(content),
            caveat=f"Only {subjects} subject{'s' if subjects != 1 else ''}: the intervals are too narrow, and all "
            f"subjects can agree by chance. At least {_ENOUGH} would be needed."
            if few and labelled
            else "",
            boundaries=_boundary_table(content) if labelled else None,
            levels=_level_table(content) if labelled else None,
            figure=histogram_figure(content, f"enhancement-{method.name}") if labelled else None,
            alt=_alt(content) if labelled else "",
            pictures=_pictures(content, method, folder, notes),
            content=content,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        notes.append(f"{method.title}: evaluation/{method.name}/enhancement.json could not be read ({error!r}).")
        return None
