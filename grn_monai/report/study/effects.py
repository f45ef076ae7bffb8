"""Effects as paired differences (GRN Table 5), all tests side by side, and what "not inferior" takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from grn_monai.metrics.comparisons import holm
from grn_monai.report.study.analysis import Analysis, Place
from grn_monai.report.study.cells import dice_entry, difference_entry, p_text, points
from grn_monai.report.study.entrants import Entrant, entrants_of, roles
from grn_monai.report.study.formats import Entry, StudyTable, text_entry
from grn_monai.report.study.plan import counted, fraction_name, fraction_text
from grn_monai.report.study.printed import printed_effect
from grn_monai.report.study.tables import PRINTED_NOTE, floor_note

__all__ = ["Effect", "effects", "effects_table", "not_inferior_table", "test_tables"]


@dataclass(frozen=True)
class Effect:
    """One effect: `entrant` less `reference` at the same fraction; `key` names it among the printed ones."""

    key: str
    title: str
    entrant: Entrant
    reference: Entrant


def effects(analysis: Analysis) -> list[Effect]:
    """RAug, SGE and SSL of the GRN paper, and SGE of every method that has both modes."""
    who = roles(analysis.results)
    found = []
    for name, method in (("raug", who.grn_sel), ("raug_grn_plus", who.grn_plus)):
        if method and who.reference and "raw" in method.modes:
            title = f"RAug: {method.title} S(x) − {who.reference.title}"
            found.append(Effect(name, title, Entrant(method, "raw"), who.reference))
    names = {id(who.grn_sel): "sge_sel", id(who.grn_ssl): "sge_ssl"}
    for method in analysis.results.methods.values():
        if {"raw", "sge"} <= set(method.modes) and method.group != "ablation":
            key = names.get(id(method), f"sge_{method.key}")
            title = f"SGE: {method.title}, S(G(x)) − S(x)"
            found.append(Effect(key, title, Entrant(method, "sge"), Entrant(method, "raw")))
    if who.grn_ssl and who.grn_sel:
        for mode, end in (("raw", ""), ("sge", " with SGE")):
            if mode in who.grn_ssl.modes and mode in who.grn_sel.modes:
                title = f"SSL: {who.grn_ssl.title} − {who.grn_sel.title}{end}"
                key = "ssl" if mode == "raw" else "ssl_sge"
                found.append(Effect(key, title, Entrant(who.grn_ssl, mode), Entrant(who.grn_sel, mode)))
    return found


def effects_table(analysis: Analysis) -> StudyTable | None:
    """GRN Table 5 from our own rows: each effect at each fraction, with paired intervals."""
    every, fractions = effects(analysis), analysis.results.fractions
    shown = [
        f
        for f in fractions
        if any(analysis.compare(Place(e.entrant, f), Place(e.reference, f)) is not None for e in every)
    ]
    if not shown:
        return None

    found = {
        (e.key, f): comparison
        for e in every
        for f in shown
        if (comparison := analysis.compare(Place(e.entrant, f), Place(e.reference, f))) is not None
    }
    corrected = dict(zip(found, holm([c.permutation.p for c in found.values()]), strict=True))
    columns: list[str] = []
    rows: list[list[Entry]] = [[] for _ in every]
    for f in shown:
        columns.append(f"{fraction_text(f)} labels")
        values = [printed_effect(e.key, f) for e in every]
        for row, e in zip(rows, every, strict=True):
            row.append(difference_entry(found.get((e.key, f)), corrected.get((e.key, f)), _why(analysis, e, f)))
        if any(value is not None for value in values):
            columns.append(f"{fraction_text(f)} labels, printed")
            for row, value in zip(rows, values, strict=True):
                row.append(Entry(value, digits=2, signed=True))
    notes = [
        "Paired differences of overall Dice in percentage points; “slices”, “subjects”: 95 % intervals over them; "
        f"p: permutation test over {counted(analysis.n_subjects, 'subject')}. * p < 0.05 after Holm "
        f"over the {counted(len(found), 'effect')} of this table; † p < 0.05 of the paired t-test over slices, "
        "uncorrected.",
        *floor_note(analysis, min(1.0, len(found) * min(c.permutation.smallest for c in found.values()))),
    ]
    if len(columns) > len(shown):
        notes.append(PRINTED_NOTE)
    names = [e.title for e in every]
    return StudyTable(
        "effects",
        "Effects of RAug, SGE and SSL (GRN Table 5)",
        columns,
        list(zip(names, rows, strict=True)),
        notes,
        corner="effect",
        place="effects",
    )


def _why(analysis: Analysis, effect: Effect, fraction: float) -> str:
    lacking = [e for e in (effect.entrant, effect.reference) if analysis.summary(Place(e, fraction)) is None]
    if not lacking:
        return "no seed in common"
    return f"{lacking[0].title} {analysis.why_missing(Place(lacking[0], fraction))}"


def _test_cells(analysis: Analysis, place: Place, target: Place, holm_p: float | None) -> Iterator[Entry]:
    comparison = analysis.compare(place, target)
    entry = difference_entry(comparison, holm_p, "no seed in common" if analysis.summary(place) else "")
    yield Entry(entry.value, signed=True, below=entry.below[:2] if comparison else entry.below, parts=entry.parts)
    if comparison is None:
        yield from (text_entry("–") for _ in range(5))
        return
    yield text_entry(p_text(comparison.p_t))
    yield text_entry(p_text(comparison.permutation.p), *([comparison.note] if comparison.note else []))
    yield text_entry(p_text(holm_p))
    yield text_entry(p_text(comparison.subjects.not_inferior), f"slices {p_text(comparison.rows.not_inferior)}")
    yield text_entry(p_text(comparison.subjects.equivalent), f"slices {p_text(comparison.rows.equivalent)}")


_TESTS = ("Difference", "t-test, slices", "permutation, subjects", "Holm", "not inferior", "equivalent")


def test_tables(analysis: Analysis) -> list[StudyTable]:
    """Every row against the supervised reference, with all tests, one table for each fraction."""
    results, who = analysis.results, roles(analysis.results)
    if who.reference is None:
        return []
    entrants = entrants_of(results, ("semi-supervised", "grn", "network", "control", "outside"), others=True)
    entrants = [*entrants_of(results, ("supervised",))[1:], *entrants]
    tables = []
    for fraction in results.fractions:
        target = Place(who.reference, fraction)
        places = [Place(e, fraction) for e in entrants if results.select(e.method.key, fraction)]
        family = analysis.family([(place, target) for place in places])
        if not family.comparisons:
            continue
        rows = [
            (place.entrant.title, list(_test_cells(analysis, place, target, family.corrected.get(place))))
            for place in places
        ]
        notes = [
            f"Overall Dice, row less {who.reference.title}, in percentage points; the other columns are p-values. "
            "t-test: paired, over slices, as the papers. Permutation: signs of the subjects’ mean differences. Holm: "
            f"that p, corrected for the {counted(len(family.comparisons), 'row')}. Not inferior, equivalent: TOST with "
            f"a margin of {points(analysis.margin)} over subjects, below it over slices.",
            *floor_note(analysis, family.smallest),
        ]
        title = f"All tests against {who.reference.title} at {fraction_text(fraction)} of the labels"
        tables.append(StudyTable(f"tests_{fraction_name(fraction)}", title, _TESTS, rows, notes, place="tests"))
    return tables


def not_inferior_table(analysis: Analysis) -> StudyTable | None:
    """Do few labels reach what the supervised reference reaches with all? GRN rows, TOST with Holm over the table."""

    results, who = analysis.results, roles(analysis.results)
    if who.reference is None or len(results.fractions) < 2:
        return None
    full = Place(who.reference, results.fractions[-1])
    places = [Place(e, f) for e in entrants_of(results, ("grn",)) for f in results.fractions[:-1]]
    found = {place: c for place in places if (c := analysis.compare(place, full)) is not None}
    if not found:
        return None
    corrected = holm([c.subjects.not_inferior for c in found.values()])
    rows = []
    for (place, comparison), p in zip(found.items(), corrected, strict=True):
        entry = difference_entry(comparison)
        rows.append(
            (
                f"{place.entrant.title}, {fraction_text(place.fraction)}",
                [
                    dice_entry(analysis, place, "overall"),
                    Entry(entry.value, signed=True, below=entry.below[:2], parts=entry.parts),
                    text_entry(p_text(comparison.subjects.not_inferior)),
                    text_entry(p_text(p)),
                    text_entry(p_text(comparison.rows.not_inferior)),
                ],
            )
        )
    margin = points(analysis.margin)
    return StudyTable(
        "not_inferior",
        f"Few labels against {who.reference.title} with {fraction_text(full.fraction)}",
        ["Overall", "Difference", "not inferior, subjects", "Holm", "not inferior, slices"],
        rows,
        [
            f"p of being worse than {who.reference.title} with {fraction_text(full.fraction)} of the labels by "
            f"{margin} or more (one-sided paired t-test, the lower half of TOST); below 0.05 the row is not inferior. "
            "A t-test that finds no difference, as in GRN’s Table 4, does not show this. "
            f"Holm over the {counted(len(found), 'row')}."
        ],
        place="tests",
    )
