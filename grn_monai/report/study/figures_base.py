"""Parts that the figures of a study share: which curves there are, how each is drawn, and what a caption must say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grn_monai.files import replacing
from grn_monai.report.palette import method_colours
from grn_monai.report.study.analysis import COLUMNS, OVERALL, analysis_of
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.entrants import Entrant, Place, all_entrants
from grn_monai.report.study.plan import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Drawn",
    "Look",
    "Variant",
    "bootstrap",
    "data_note",
    "ends",
    "families",
    "having",
    "looks",
    "panel_legend",
    "panels",
    "reference",
    "save_png",
    "shared_legend",
    "slice_means",
    "variants",
]

Drawn = tuple[str, Path, str]
"""Title, PNG file and caption of a figure."""

WIDTH = 7.2  # inches: a page's text width, so that letters are not shrunk
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_REFERENCE = "#222222"
_OWN_ROW = {"grn": "GRN", "semi-supervised": "Semi-supervised"}


@dataclass(frozen=True)
class Variant:
    """A method in one mode of prediction: what a curve or a bar stands for.

    Attributes:
        fewer_seeds: how many seeds it has, where others have more: its mean is over other labelled subjects; else None.
    """

    method: str
    mode: str
    title: str
    group: str
    fewer_seeds: int | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """The title, with the seeds where they are fewer."""
        if self.fewer_seeds is None:
            return self.title
        return f"{self.title} ({self.fewer_seeds} seed{'s' * (self.fewer_seeds > 1)})"


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style."""

    colour: str
    marker: str
    line: str


def variants(results: StudyResults) -> list[Variant]:
    """Every method and mode with scores, in the order of the tables; the mode is named where a method has several."""
    seeds: dict[tuple[str, str], set[int]] = {}
    for run in results.runs:
        for name in run.evaluations:
            seeds.setdefault((run.method, name.rsplit("_", 1)[1]), set()).add(run.seed)
    counts = {key: len(found) for key, found in seeds.items()}
    most = max(counts.values(), default=0)
    found = [(e, counts[e.method.key, e.mode]) for e in all_entrants(results) if (e.method.key, e.mode) in counts]
    return [Variant(e.method.key, e.mode, e.title, e.method.group, n if n < most else None) for e, n in found]


def looks(results: StudyResults) -> dict[Variant, Look]:
    """How each variant is drawn in every figure: a method has its colour and marker, S(x) beside SGE is dashed.

    The reference is nearly black. The others have the seven colours of `palette` by their place in their group, since
    groups are seldom drawn together; a marker that differs from group to group tells equal colours apart.
    """
    shown = variants(results)
    first = reference(shown)
    both = {v.method for v in shown if v.mode == "sge"}
    groups = list(dict.fromkeys(v.group for v in shown))
    found = {}
    for number, group in enumerate(groups):
        methods = list(dict.fromkeys(v.method for v in shown if v.group == group and v != first))
        colours = method_colours(methods)
        for v in shown:
            if v.group == group and v.method in colours:
                place = methods.index(v.method)
                marker = _MARKERS[(place + 2 * number + place // len(_MARKERS)) % len(_MARKERS)]
                line = "--" if v.mode != "sge" and v.method in both else "-"
                found[v] = Look(colours[v.method], marker, line)
    if first is not None:
        found[first] = Look(_REFERENCE, "o", "-")
    return found


def reference(shown: Sequence[Variant]) -> Variant | None:
    """The first supervised method: what the others are compared with."""
    return next((v for v in shown if v.group == "supervised"), None)


def families(shown: Iterable[Variant]) -> dict[str, list[Variant]]:
    """Variants split for panels that would be too full together: GRN, semi-supervised, all others.

    The reference stands in each of the first two; a family without anything but the reference is left out.
    """
    shown = list(shown)
    first = reference(shown)
    split: dict[str, list[Variant]] = {}
    for group, title in _OWN_ROW.items():
        own = [v for v in shown if v.group == group]
        if own:
            split[title] = ([first] if first else []) + own
    rest = [v for v in shown if v.group not in _OWN_ROW]
    if any(v != first for v in rest) or (rest and not split):
        split["Others"] = rest
    return split


def having(results: StudyResults, fraction: float, section: str) -> list[Variant]:
    """Variants with scores at a fraction."""
    return [v for v in variants(results) if results.evaluations(v.method, fraction, section, v.mode)]


def slice_means(
    results: StudyResults, variant: Variant, fraction: float, section: str, layer: int | None = None
) -> npt.NDArray[np.float64] | None:
    """(seeds, N) slice Dice in % of the mean of the layers, or of one layer (0–5); None without scores."""
    dice = results.dice(variant.method, fraction, section, variant.mode)
    if dice is None:
        return None
    values = dice.mean(axis=2, dtype=np.float64) if layer is None else dice[..., layer].astype(np.float64)
    return 100.0 * values


def bootstrap(
    results: StudyResults, variant: Variant, fraction: float, section: str, layer: int | None = None
) -> tuple[float, tuple[float, float] | None]:
    """Mean slice Dice (%) and its 95 % bootstrap interval over subjects, seeds averaged first, as in the tables."""
    entrant = Entrant(results.methods[variant.method], variant.mode)
    column = OVERALL if layer is None else COLUMNS[layer]
    summary = analysis_of(results, section).summary(Place(entrant, fraction), column)
    assert summary is not None
    ci = summary.subject_ci
    return 100 * summary.mean, ci and (100 * ci[0], 100 * ci[1])


def data_note(results: StudyResults, section: str, fractions: Iterable[float], shown: Iterable[Variant]) -> str:
    """What every caption says of the data: whether simulated, and how many slices, scans, subjects and seeds."""
    rows = results.rows[section]
    counts = ", ".join(
        counted(len(set(names)) if names is not rows.planes else len(names), what)
        for names, what in ((rows.planes, "slice"), (tuple(zip(rows.subjects, rows.scans, strict=True)), "scan"),
                            (rows.subjects, "subject"))
    )  # fmt: skip
    seeds = {len(results.evaluations(v.method, f, section, v.mode)) for f in fractions for v in shown} - {0}
    many = f"{min(seeds)} to {max(seeds)} seeds" if len(seeds) > 1 else counted(next(iter(seeds), 0), "seed")
    kind = {True: "Simulated data. ", None: "Data of unknown origin. ", False: ""}[results.plan.simulated]
    return f"{kind}{section.capitalize()} section: {counts}; {many} a method."


def save_png(figure: Figure, folder: Path, name: str) -> Path:
    """Write a figure on white at 160 pixels an inch, whole or not at all."""
    path = folder / f"{name}.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=160, facecolor="white", metadata={"Software": None})
    return path


def panels(columns: int, height: float, entries: int, width: float = WIDTH) -> tuple[Figure, Any, Any]:
    """A row of panels and below each an empty one for its legend of up to `entries` lines.

    Legends do not count in the layout: a wide one would squeeze its panel.
    """
    from matplotlib.figure import Figure

    below = 0.1 + 0.175 * entries
    figure = Figure(figsize=(width, height + below), layout="constrained")
    grid = figure.subplots(2, columns, squeeze=False, gridspec_kw={"height_ratios": (height, below)})
    for axes in grid[1]:
        axes.set_axis_off()
    return figure, grid[0], grid[1]


def panel_legend(place: Axes, handles: Mapping[str, Any], columns: int = 1) -> None:
    """The legend of a panel in the empty one below it."""
    legend = place.legend(
        list(handles.values()), list(handles), loc="upper center", bbox_to_anchor=(0.5, 1.0), borderaxespad=0,
        ncols=columns, fontsize=7.5, handlelength=2.4, columnspacing=1.0,
    )  # fmt: skip
    legend.set_in_layout(False)


def ends(fractions: Sequence[float]) -> tuple[float, ...]:
    """The smallest and the largest share: what figures are drawn for that would be too many with every share."""
    return tuple(dict.fromkeys((min(fractions), max(fractions))))


def shared_legend(figure: Figure, handles: Mapping[str, Any], columns: int) -> None:
    """A legend below all panels."""
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=columns, handlelength=2.6, fontsize=8
    )
