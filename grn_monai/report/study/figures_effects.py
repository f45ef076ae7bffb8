"""Effects of training with a generator (RAug), of predicting through it (SGE) and of unlabelled images (SSL)."""

from __future__ import annotations

from pathlib import Path

from grn_monai.report.figures import styled
from grn_monai.report.study.analysis import analysis_of
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.entrants import Entrant, Place, roles
from grn_monai.report.study.figures_base import (
    WIDTH,
    Drawn,
    Variant,
    data_note,
    looks,
    panel_legend,
    panels,
    save_png,
)
from grn_monai.report.study.figures_scores import fraction_axis, same_limits
from grn_monai.report.study.questions import Effect, effects

__all__ = ["effect_figures", "effect_pairs"]

_NAMES = {"raug": "RAug", "sge": "SGE", "ssl": "SSL"}


def effect_pairs(results: StudyResults, section: str) -> dict[str, dict[str, Effect]]:
    """The effects of the table, by name (RAug, SGE, SSL) and by what a legend calls them."""
    found: dict[str, dict[str, Effect]] = {name: {} for name in _NAMES.values()}
    for effect in effects(results):
        kind = effect.kind
        words = effect.entrant.method.title
        if kind == "ssl":
            words = {"raw": "predicting S(x)", "sge": "with SGE"}[effect.entrant.mode]
        found[_NAMES[kind]][words] = effect
    return {name: pairs for name, pairs in found.items() if pairs}


def _variant(entrant: Entrant) -> Variant:
    return Variant(entrant.method.key, entrant.mode, entrant.title, entrant.method.group)


def _differences(
    results: StudyResults, effect: Effect, section: str
) -> list[tuple[float, float, tuple[float, float] | None]]:
    """Share of labels, mean difference in percentage points and its interval, as in the table."""
    analysis, points = analysis_of(results, section), []
    for fraction in results.fractions:
        found = analysis.compare(Place(effect.entrant, fraction), Place(effect.reference, fraction))
        if found is not None and effect.asked_at(fraction):
            ends = found.interval and (100 * found.interval[0], 100 * found.interval[1])
            points.append((fraction, 100 * found.mean, ends))
    return points


@styled
def effect_figures(results: StudyResults, folder: Path, section: str) -> list[Drawn]:
    """Differences over the share of labels, one panel an effect; nothing where no two methods make one."""
    shown = {
        name: {
            words: (effect, points)
            for words, effect in pairs.items()
            if (points := _differences(results, effect, section))
        }
        for name, pairs in effect_pairs(results, section).items()
    }
    shown = {name: pairs for name, pairs in shown.items() if pairs}
    if not shown:
        return []
    look = looks(results)
    figure, row, legends = panels(len(shown), 2.7, max(map(len, shown.values())), WIDTH if len(shown) > 1 else 4.2)
    for axes, below, (name, pairs) in zip(row, legends, shown.items(), strict=True):
        handles = {}
        axes.axhline(0, color="#666666", lw=0.8)
        for i, (words, (effect, points)) in enumerate(pairs.items()):
            widest = (len(pairs) - 1) / 2  # the outermost stays within the panel
            step = min(1.05 if len(results.fractions) > 3 else 1.12, 1.17 ** (1 / max(widest, 1)))
            shift = step ** (i - widest)
            x = [share * shift for share, _, _ in points]
            style = look[_variant(effect.entrant)]
            line = style.line if name == "SSL" else "-"
            inside = "white" if line == "--" else style.colour
            handles[words] = axes.plot(
                x, [p[1] for p in points], line, color=style.colour, marker=style.marker, mfc=inside, ms=5, lw=1.2
            )[0]
            for at, (_, _, ci) in zip(x, points, strict=True):
                if ci:
                    axes.vlines(at, *ci, color=style.colour, lw=1.4)
        fraction_axis(axes, results.fractions)
        axes.set_title(name)
        axes.set_xlabel("labelled images (%)")
        axes.grid(axis="y")
        panel_legend(below, handles)
    same_limits(row)
    row[0].set_ylabel("difference of Dice (points)")
    used = {
        _variant(e): None
        for pairs in shown.values()
        for effect, _ in pairs.values()
        for e in (effect.entrant, effect.reference)
    }
    first = roles(results).reference
    meanings = {
        "RAug": f"RAug: training with a generator, predicting S(x), less {first.title if first else 'the reference'}",
        "SGE": "SGE: predicting S(G(x)), less S(x) of the same training",
        "SSL": "SSL: GRN-SSL less GRN-SEL",
    }
    title = f"Effects of {', '.join(shown)}"
    caption = (
        f"{title} on the slice Dice (mean of six layers), in percentage points, paired by slice and seed, "
        "means of subjects. "
        f"{'; '.join(meanings[name] for name in shown)}. "
        "Lines: 95 % intervals over subjects, the permutation test inverted (none below six subjects). "
        f"{data_note(results, section, results.fractions, used)}"
    )
    return [(title, save_png(figure, folder, f"effects_{section}"), caption)]
