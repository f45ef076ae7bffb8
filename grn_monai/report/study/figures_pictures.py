"""Slices with truth and predictions: the reference's median and worst one, and what the generator makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.labels import LAYER_COLOURS, LAYER_NAMES, LAYERS
from grn_monai.metrics.overlap import PLANE_AXES, dice_per_slice
from grn_monai.report.figures import styled, subplots
from grn_monai.report.load import Method
from grn_monai.report.panels import ScanVolumes, load_scan, overlay, to_isotropic
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.figures_base import (
    WIDTH,
    Drawn,
    Variant,
    ends,
    having,
    reference,
    save_png,
    slice_means,
)
from grn_monai.report.study.plan import fraction_name, fraction_text

__all__ = ["chosen_slices", "chosen_variants", "picture_figures"]

_MOST = 5  # predictions in a row
_MOST_ENHANCED = 2


def _predictions(results: StudyResults, variant: Variant, fraction: float, section: str) -> Path | None:
    """Predictions of the first seed that has label volumes."""
    for evaluation in results.evaluations(variant.method, fraction, section, variant.mode).values():
        place = evaluation.folder / "predictions"
        if any(place.glob("*_seg.nii.gz")):
            return place
    return None


def chosen_variants(results: StudyResults, fraction: float, section: str) -> dict[Variant, Path]:
    """Up to five variants that have predictions: reference, best semi-supervised one, best of each GRN.

    Best by the mean Dice of this section.
    """
    found = {
        v: place for v in having(results, fraction, section) if (place := _predictions(results, v, fraction, section))
    }

    def score(variant: Variant) -> float:
        values = slice_means(results, variant, fraction, section)
        return -1.0 if values is None else float(values.mean())

    wanted: list[Variant] = [v for v in (reference(list(found)),) if v]
    semi = [v for v in found if v.group == "semi-supervised"]
    wanted += [max(semi, key=score)] if semi else []
    methods = list(dict.fromkeys(v.method for v in found if v.group == "grn"))
    grn = [max((v for v in found if v.method == name), key=score) for name in methods]
    wanted += sorted(sorted(grn, key=score)[-(_MOST - len(wanted)) :], key=list(found).index)
    rest = sorted((v for v in found if v not in wanted), key=score, reverse=True)
    wanted += rest[: _MOST - len(wanted)] if len(wanted) < 2 else []
    return {v: found[v] for v in wanted}


def chosen_slices(results: StudyResults, variant: Variant, fraction: float, section: str) -> dict[str, int]:
    """Row of the median and of the worst slice of a variant by its mean Dice, seeds averaged."""
    values = slice_means(results, variant, fraction, section)
    if values is None:
        return {}
    order = np.argsort(values.mean(axis=0), kind="stable")
    return {"median": int(order[len(order) // 2]), "worst": int(order[0])}


def _cohort_items(results: StudyResults) -> dict[tuple[str, str], dict[str, Any]]:
    from grn_monai.data.cohort import SECTIONS, load_cohort
    from grn_monai.data.names import item_names

    if results.plan.cohort is None:
        return {}
    try:
        cohort, _ = load_cohort(results.plan.cohort)
    except InputError:
        return {}
    return {item_names(item): item for section in SECTIONS for item in cohort[section]}


def _tiles(
    scan: ScanVolumes, plane: str, index: int, shown: dict[Variant, Path]
) -> list[tuple[str, str, npt.NDArray[np.uint8]]]:
    """(title, line below, RGB picture) of one slice: the scan, G(x), the truth, each prediction."""
    axis = PLANE_AXES[plane]
    lateral, depth = scan.spacing[1 - axis], scan.spacing[2]

    def cut(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return to_isotropic(volume.take(index, axis), (lateral, depth), min(lateral, depth))

    def grey(volume: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        return np.repeat((cut(volume) * 255).round().astype(np.uint8)[..., None], 3, axis=-1)

    picture = cut(scan.image)
    tiles = [("scan x", "", grey(scan.image))]
    for variant in [v for v in shown if str(v) in scan.enhanced][:_MOST_ENHANCED]:
        name = variant.title.removesuffix(" w. SGE").replace(" ", "\n")
        tiles.append((f"G(x) of\n{name}", "", grey(scan.enhanced[str(variant)])))
    if scan.truth is not None:
        tiles.append(("truth", "", overlay(picture, cut(scan.truth))))
    for variant in shown:
        labels = scan.predictions.get(str(variant))
        if labels is None:
            continue
        below = ""
        if scan.truth is not None:
            pair = [volume.take([index], axis) for volume in (labels, scan.truth)]
            below = f"Dice {100 * dice_per_slice(pair[0], pair[1], plane, LAYERS).mean():.1f} %"
        tiles.append((variant.title.replace(" ", "\n", 1), below, overlay(picture, cut(labels))))
    return tiles


@styled
def picture_figures(results: StudyResults, folder: Path, section: str) -> list[Drawn]:
    """The reference's median and worst slice with all chosen predictions, at the smallest and largest share of labels.

    Nothing where no label volumes were kept.
    """
    items = _cohort_items(results)
    drawn = []
    rows = results.rows[section]
    for fraction in ends(results.fractions) if items else ():
        shown = chosen_variants(results, fraction, section)
        if not shown:
            continue
        first = next(iter(shown))
        names = {str(v): place for v, place in shown.items()}
        methods = [Method(name, name, {}, [], [], place) for name, place in names.items()]
        options = results.methods[first.method].options or {}
        strips = {}
        for which, row in chosen_slices(results, first, fraction, section).items():
            item = items.get((rows.subjects[row], rows.scans[row]))
            if item is None or not Path(item["image"]).is_file():
                continue
            scan = load_scan(item, methods, options.get("depth_axis", 2), bool(options.get("depth_reversed", False)))
            if scan.truth is not None and len(scan.predictions) == len(shown):
                plane, index = rows.planes[row], rows.indices[row]
                strips[f"{which}: {rows.scans[row]},\n{plane} {index}"] = _tiles(scan, plane, index, shown)
        if not strips:
            continue
        columns = max(map(len, strips.values()))
        shapes = [max(picture.shape[0] / picture.shape[1] for _, _, picture in tiles) for tiles in strips.values()]
        tile = WIDTH / columns
        figure, grid = subplots(len(strips), columns, WIDTH, sum(min(s, 2.2) * tile + 0.1 for s in shapes) + 0.7)
        for i, (line, (name, tiles)) in enumerate(zip(grid, strips.items(), strict=True)):
            for axes in line:
                axes.set_axis_off()
            for axes, (head, below, picture) in zip(line, tiles, strict=False):
                axes.set_axis_on()
                axes.imshow(picture, interpolation="nearest")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                axes.set_xlabel(below, fontsize=7.5, labelpad=2)
                if i == 0:
                    axes.set_title(head, fontsize=7.5)
            line[0].set_ylabel(name, fontsize=7.5)
        _layer_legend(figure)
        title = f"The same slices segmented with {fraction_text(fraction)} of the labels"
        kind = "Simulated data. " if results.plan.simulated else ""
        caption = (
            f"{title}: the median and the worst of the {len(rows.scans)} {section} slices of {first.title} by mean "
            "Dice. Drawn are the final labels of the scans (both planes fused, layers in order) of one seed, with the "
            "Dice of that slice in them (mean of six layers), which may be better than the slice's own score. "
            f"{kind}".rstrip()
        )
        drawn.append(
            (title, save_png(figure, folder, f"slices_segmented_{fraction_name(fraction)}_{section}"), caption)
        )
    return drawn


def _layer_legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=LAYER_COLOURS[label], label=LAYER_NAMES[label]) for label in LAYERS]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=7, handlelength=1, columnspacing=1)
