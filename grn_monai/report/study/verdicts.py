"""The papers' claims, put to this study's numbers: shown, not shown, or the opposite. Every sentence is generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from grn_monai.metrics.comparisons import Comparison
from grn_monai.report.numbers import number
from grn_monai.report.study.analysis import Analysis
from grn_monai.report.study.cells import p_text, percent
from grn_monai.report.study.entrants import Entrant, Place, entrants_of, roles
from grn_monai.report.study.plan import counted, fraction_text
from grn_monai.report.study.questions import effects

__all__ = ["Verdict", "headline", "verdicts"]


@dataclass(frozen=True)
class Verdict:
    """A claim and what the numbers say.

    Attributes:
        claim: the claim, as a statement.
        verdict: "shown", "opposite", either of them with " for these trainings only", "not shown" or "not tested".
        text: the sentence with the numbers.
        difference: percentage points, mean over subjects; None if not tested.
        p: permutation test over subjects; None if not tested.
        corrected: the same after Holm over its family.
        p_slices: the papers' t-test over slices, uncorrected.
    """

    claim: str
    verdict: str
    text: str
    difference: float | None = None
    p: float | None = None
    corrected: float | None = None
    p_slices: float | None = None


_ONLY = " for these trainings only"
_WORDS = {
    "shown": "shown",
    "opposite": "the opposite",
    f"shown{_ONLY}": f"shown{_ONLY}",
    f"opposite{_ONLY}": f"the opposite,{_ONLY}",
    "not shown": "not shown",
    "not tested": "not tested yet",
}
"""Verdict to what a reader sees, in the order of a summary."""


@dataclass(frozen=True)
class _Claim:
    text: str
    place: Place
    reference: Place


def _claims(analysis: Analysis) -> list[_Claim]:
    """What GRN and GRN+ add, GRN+ against each semi-supervised comparator, and against each control."""
    results, who = analysis.results, roles(analysis.results)
    low, high = results.fractions[0], results.fractions[-1]
    found: list[_Claim] = []

    def ask(text: str, a: Entrant, b: Entrant, fraction: float) -> None:
        planned = results.select(a.method.key, fraction) and results.select(b.method.key, fraction)
        if planned:
            share = f"{fraction_text(fraction)} of the labels"
            found.append(_Claim(f"{text} at {share}", Place(a, fraction), Place(b, fraction)))

    if who.grn_plus and who.reference:
        for mode in who.grn_plus.modes:
            entrant = Entrant(who.grn_plus, mode)
            ask(f"{entrant.title} beats {who.reference.title}", entrant, who.reference, low)
    kinds = {"sge": "SGE helps", "ssl": "Unlabelled images help", "raug": "Reinforced augmentation (RAug) helps"}
    plain = (who.grn_plus, who.grn_sel, who.grn_ssl)
    for effect in effects(results):
        if effect.key == "raug_grn_plus" or effect.entrant.method not in plain:
            continue  # asked above in other words, or a variant, of which the papers claim nothing
        for fraction in dict.fromkeys((low, high)):
            if effect.asked_at(fraction):
                text = f"{kinds[effect.kind]} {_of(effect.entrant, effect.reference)}"
                ask(text, effect.entrant, effect.reference, fraction)
    proposed = Entrant(who.grn_plus, "sge") if who.grn_plus and "sge" in who.grn_plus.modes else None
    if proposed:
        for entrant in entrants_of(results, ("semi-supervised",)):
            ask(f"{proposed.title} beats {entrant.title}", proposed, entrant, low)
        for entrant in entrants_of(results, ("control",)):
            for fraction in dict.fromkeys((low, high)):
                ask(f"{proposed.title} beats the control {entrant.title}", proposed, entrant, fraction)
    return found


def _of(entrant: Entrant, reference: Entrant) -> str:
    if entrant.method is reference.method:
        return entrant.method.title
    return f"({entrant.title} against {reference.title})"


def _judge(claim: _Claim, comparison: Comparison, corrected: float, floor: float) -> Verdict:
    significant = corrected < 0.05 and comparison.mean != 0
    verdict = "not shown"
    if significant:
        verdict = "shown" if comparison.mean > 0 else "opposite"
        verdict += "" if comparison.holds_for_others else _ONLY
    seeds = counted(comparison.seeds, "seed")
    lead = _WORDS[verdict].capitalize() + (f" ({seeds})" if verdict.endswith(_ONLY) else "")
    size = number(100 * comparison.mean, 1, signed=True)
    subjects = counted(comparison.permutation.n, "subject")
    inner = [f"over {subjects} {percent(comparison.interval, True)}" if comparison.interval else f"{subjects}, too few "
             "for an interval"]  # fmt: skip
    if comparison.seed_ci:
        inner.append(f"over subjects and {seeds} {percent(comparison.seed_ci, True)}")
    elif not verdict.endswith(_ONLY):
        inner.append(seeds)
    inner.append(f"p {_is(comparison.permutation.p)}, corrected {p_text(corrected)}")
    text = f"{lead}: {size} points of Dice ({'; '.join(inner)})."
    if not significant and floor >= 0.05:
        text += f" With {subjects} no corrected p can be small enough."
    if comparison.note:
        text += f" Note: {comparison.note}."
    p = comparison.permutation.p
    return Verdict(claim.text, verdict, text, 100 * comparison.mean, p, corrected, comparison.p_t)


def _is(p: float | None) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def verdicts(analysis: Analysis) -> list[Verdict]:
    """One verdict for each claim that the study can be asked about.

    "Shown": the difference is positive, p of the permutation test over subjects is below 0.05 after Holm over its
    family, and the interval over subjects and seeds, of two seeds or more, lies off zero. Without the last it is
    "shown for these trainings only". "Opposite": the same with a negative difference; "not shown": neither. "Not
    tested": scores are missing.
    """
    found = []
    for claim in _claims(analysis):
        comparison = analysis.compare(claim.place, claim.reference)
        corrected = analysis.corrected(claim.place, claim.reference)
        family = analysis.family(claim.place, claim.reference)
        if comparison is None or corrected is None or family is None:
            lacking = [x for x in (claim.place, claim.reference) if analysis.summary(x) is None]
            why = "; ".join(f"{x.entrant.title} {analysis.why_missing(x)}" for x in lacking) or "no seed in common"
            found.append(Verdict(claim.text, "not tested", f"Not tested: {why}."))
        else:
            found.append(_judge(claim, comparison, corrected, analysis.smallest(family)))
    return found


def headline(found: Sequence[Verdict], analysis: Analysis) -> list[str]:
    """The main finding in a sentence or two: how many claims are shown, and whether anything holds in general."""
    if not found:
        return []
    counts = Counter(verdict.verdict for verdict in found)
    parts = [f"{counts[key]} {word}" for key, word in _WORDS.items() if counts[key]]
    lines = [f"Of {counted(len(found), 'claim')} put to this study: {', '.join(parts)}."]
    if analysis.most_seeds < 2 and counts["not tested"] < len(found):
        lines.append(
            "There is one seed only, so nothing is claimed in general: another training of the same method may score "
            "otherwise."
        )
    for key in ("shown", "opposite"):
        if named := [verdict.claim for verdict in found if verdict.verdict == key]:
            lines.append(f"{_WORDS[key].capitalize()}: {'; '.join(named)}.")
    tested = [verdict for verdict in found if verdict.p is not None]
    by_slices = sum(verdict.p_slices is not None and verdict.p_slices < 0.05 for verdict in tested)
    if tested:
        lines.append(
            f"The papers’ t-test over slices, which takes slices of a subject as independent, would call {by_slices} "
            f"of the {len(tested)} tested differences significant."
        )
    return lines
