"""The papers' claims, put to this study's numbers: shown, not shown, or the opposite. Every sentence is generated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from grn_monai.metrics.comparisons import Comparison, holm
from grn_monai.report.study.analysis import Analysis, Place
from grn_monai.report.study.cells import p_text, percent
from grn_monai.report.study.effects import effects
from grn_monai.report.study.entrants import Entrant, entrants_of, roles
from grn_monai.report.study.plan import counted, fraction_text

__all__ = ["Verdict", "verdicts"]


@dataclass(frozen=True)
class Verdict:
    """A claim and what the numbers say.

    Attributes:
        claim: the claim, as a statement.
        verdict: "shown", "not shown", "opposite" or "not tested".
        text: the sentence with the numbers.
        difference: percentage points; None if not tested.
        p: permutation test over subjects; None if not tested.
        corrected: the same after Holm over the claims of its family.
    """

    claim: str
    verdict: str
    text: str
    difference: float | None = None
    p: float | None = None
    corrected: float | None = None


_MAIN = "grn"


@dataclass(frozen=True)
class _Claim:
    text: str
    place: Place
    reference: Place
    family: str  # claims that are corrected together: one question each


def _claims(analysis: Analysis) -> list[_Claim]:
    results, who = analysis.results, roles(analysis.results)
    fractions = results.fractions
    low, high = fractions[0], fractions[-1]
    found = []
    if who.grn_plus and who.reference:
        for mode in who.grn_plus.modes:
            entrant = Entrant(who.grn_plus, mode)
            text = f"{entrant.title} beats {who.reference.title} at {fraction_text(low)} of the labels"
            found.append(_Claim(text, Place(entrant, low), Place(who.reference, low), _MAIN))
    proposed = Entrant(who.grn_plus, "sge") if who.grn_plus and "sge" in who.grn_plus.modes else None
    if proposed:
        for entrant in entrants_of(results, ("semi-supervised",)):
            if results.select(entrant.method.key, low):
                text = f"{proposed.title} beats {entrant.title} at {fraction_text(low)} of the labels"
                found.append(_Claim(text, Place(proposed, low), Place(entrant, low), "comparators"))
    kinds = {"sge": "SGE helps", "ssl": "Unlabelled images help", "raug": "Reinforced augmentation (RAug) helps"}
    for effect in effects(analysis):
        kind = effect.key.split("_")[0]
        if effect.key == "raug_grn_plus":
            continue  # asked above, in other words
        for fraction in dict.fromkeys((low, high)):
            text = f"{kinds[kind]} {_of(effect.entrant, effect.reference)} at {fraction_text(fraction)} of the labels"
            found.append(_Claim(text, Place(effect.entrant, fraction), Place(effect.reference, fraction), _MAIN))
    if proposed:
        for entrant in entrants_of(results, ("control",)):
            for fraction in dict.fromkeys((low, high)):
                if results.select(entrant.method.key, fraction):
                    share = f"{fraction_text(fraction)} of the labels"
                    text = f"{proposed.title} beats the control {entrant.title} at {share}"
                    found.append(_Claim(text, Place(proposed, fraction), Place(entrant, fraction), "controls"))
    order = (_MAIN, "comparators", "controls")
    return sorted(found, key=lambda claim: order.index(claim.family))


def _of(entrant: Entrant, reference: Entrant) -> str:
    if entrant.method is reference.method:
        return entrant.method.title
    return f"({entrant.title} against {reference.title})"


def _judge(claim: _Claim, comparison: Comparison, corrected: float, count: int) -> Verdict:
    mean = comparison.difference.mean
    significant = corrected < 0.05
    verdict = "not shown" if not significant or mean == 0 else "shown" if mean > 0 else "opposite"
    lead = {"shown": "Shown", "not shown": "Not shown", "opposite": "The opposite"}[verdict]
    size = f"{100 * mean:+.1f}".replace("-", "−")
    subjects = comparison.difference.subject_ci
    text = f"{lead}: {size} percentage points of Dice"
    text += f" (95 % over subjects {percent(subjects, True)})" if subjects else " (one subject, so no interval)"
    text += (
        f", permutation test over {counted(comparison.permutation.n, 'subject')} p {_is(comparison.permutation.p)}, "
    )
    text += f"after Holm over {counted(count, 'claim')} {p_text(corrected)}."
    if not significant and comparison.permutation.smallest * count >= 0.05:
        few = f"{counted(comparison.permutation.n, 'subject')} and {counted(count, 'claim')}"
        text += f" With {few} no p can be small enough."
    slices = comparison.p_t is not None and comparison.p_t < 0.05
    if slices != significant:
        word = "significant" if slices else "not significant"
        text += f" The papers’ t-test over slices would call it {word} (p {_is(comparison.p_t)})."
    if comparison.seeds == 1:
        text += " One seed: another training may say otherwise."
    elif comparison.seed_sd is not None and comparison.seed_sd > abs(mean):
        text += f" The difference varies more between the {comparison.seeds} seeds (SD {100 * comparison.seed_sd:.1f})."
    if comparison.note:
        text += f" Note: {comparison.note}."
    return Verdict(claim.text, verdict, text, 100 * mean, comparison.permutation.p, corrected)


def _is(p: float | None) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def verdicts(analysis: Analysis) -> list[Verdict]:
    """One verdict for each claim that the study can be asked about.

    Claims are corrected by Holm within three families: what GRN and GRN+ add, GRN+ against each semi-supervised
    comparator, and GRN+ against each control.

    "Shown": the difference is positive and p of the permutation test over subjects, after Holm over its family, is
    below 0.05; "opposite": the same with a negative difference; "not shown": neither. "Not tested": scores are missing.
    """
    claims = _claims(analysis)
    comparisons = [analysis.compare(claim.place, claim.reference) for claim in claims]
    corrected: list[float | None] = [None] * len(claims)
    counts = Counter(claim.family for claim, c in zip(claims, comparisons, strict=True) if c)
    for family in counts:
        own = [i for i, claim in enumerate(claims) if claim.family == family]
        for i, p in zip(own, holm([c.permutation.p if (c := comparisons[i]) else None for i in own]), strict=True):
            corrected[i] = p
    found = []
    for claim, comparison, p in zip(claims, comparisons, corrected, strict=True):
        if comparison is None or p is None:
            lacking = [x for x in (claim.place, claim.reference) if analysis.summary(x) is None]
            why = "; ".join(f"{x.entrant.title} {analysis.why_missing(x)}" for x in lacking) or "no seed in common"
            found.append(Verdict(claim.text, "not tested", f"Not tested: {why}."))
        else:
            found.append(_judge(claim, comparison, p, counts[claim.family]))
    return found
