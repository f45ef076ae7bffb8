"""Effects as paired differences (GRN Table 5), all tests side by side, and what "not inferior" takes."""

from __future__ import annotations

from collections.abc import Iterator

from grn_monai.metrics.comparisons import holm
from grn_monai.report.study.analysis import Analysis, Place
from grn_monai.report.study.cells import dice_entry, difference_entry, p_text, points
from grn_monai.report.study.entrants import entrants_of, roles
from grn_monai.report.study.formats import Entry, StudyTable, text_entry
from grn_monai.report.study.plan import counted, fraction_name, fraction_text
from grn_monai.report.study.printed import printed_effect
from grn_monai.report.study.questions import Effect, effects
from grn_monai.report.study.tables import marks_note, printed_note

__all__ = ["effects_table", "not_inferior_table", "test_tables"]


def effects_table(analysis: Analysis) -> StudyTable | None:
    """GRN Table 5 from our own rows: each effect at each fraction, with paired intervals."""
    every, fractions = effects(analysis.results), analysis.results.fractions
    pairs = {(e, f): (Place(e.entrant, f), Place(e.reference, f)) for e in every for f in fractions if e.asked_at(f)}
    shown = [f for f in fractions if any(analysis.compare(*pairs[e, f]) for e in every if e.asked_at(f))]
    if not shown:
        return None
    columns: list[str] = []
    rows: list[list[Entry]] = [[] for _ in every]
    sources = []
    for f in shown:
        columns.append(f"{fraction_text(f)} labels")
        values = [printed_effect(e.key, f) for e in every]
        for row, e in zip(rows, every, strict=True):
            if e.asked_at(f):
                row.append(difference_entry(analysis, *pairs[e, f], why=_why(analysis, e, f)))
            else:
                row.append(Entry(below=("no unlabelled images",)))
        if any(value is not None for value in values):
            columns.append(f"{fraction_text(f)} labels, printed")
            for row, value in zip(rows, values, strict=True):
                row.append(Entry(value.value, digits=2, signed=True, below=value.doubts) if value else Entry())
            sources += [value.source for value in values if value]
    notes = [
        "Paired differences of overall Dice (means of subjects) in percentage points; “subjects”, “and seeds”: 95 % "
        "intervals; p: permutation test over subjects; “slices”: mean and interval over them.",
        *marks_note(analysis, [pair for (_, f), pair in pairs.items() if f in shown], "zero"),
        *([printed_note(sources)] if sources else []),
    ]
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


def _test_cells(analysis: Analysis, place: Place, target: Place) -> Iterator[Entry]:
    comparison, corrected = analysis.compare(place, target), analysis.corrected(place, target)
    why = "no seed in common" if analysis.summary(place) else analysis.why_missing(place)
    yield difference_entry(analysis, place, target, why, full=False)
    if comparison is None:
        yield from (text_entry("–") for _ in range(5))
        return
    yield text_entry(p_text(comparison.permutation.p), *([comparison.note] if comparison.note else []))
    yield text_entry(p_text(corrected), *([] if corrected is not None else ["in no family"]))
    yield text_entry(p_text(comparison.p_t))
    yield text_entry(p_text(comparison.subjects.not_inferior), f"slices {p_text(comparison.rows.not_inferior)}")
    yield text_entry(p_text(comparison.subjects.equivalent), f"slices {p_text(comparison.rows.equivalent)}")


_TESTS = (
    "Difference",
    "permutation, subjects",
    "Holm",
    "t-test, slices",
    "not inferior, uncorrected",
    "equivalent, uncorrected",
)


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
        if not any(analysis.compare(place, target) for place in places if place != target):
            continue
        rows = [(place.entrant.title, list(_test_cells(analysis, place, target))) for place in places]
        names = {f.name: f for place in places if (f := analysis.family(place, target))}
        sizes = " and ".join(f"{len(f.pairs)} ({f.name})" for f in names.values())
        notes = [
            f"Overall Dice, row less {who.reference.title}, in percentage points; the other columns are p-values. "
            "Permutation: signs of the subjects’ mean differences. Holm: that p, corrected for the planned "
            f"comparisons, {sizes}. t-test: paired, over slices, uncorrected, as the papers. Not inferior, equivalent: "
            f"TOST with a margin of {points(analysis.margin)} over subjects, below it over slices; uncorrected, so of "
            f"{counted(len(places), 'row')} some may be below 0.05 by chance.",
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
    places = [
        Place(e, f)
        for e in entrants_of(results, ("grn",))
        for f in results.fractions[:-1]
        if results.select(e.method.key, f)
    ]
    found = {place: c for place in places if (c := analysis.compare(place, full)) is not None}
    if not found:
        return None
    corrected = holm([c.subjects.not_inferior for c in found.values()], len(places))
    rows = []
    for (place, comparison), p in zip(found.items(), corrected, strict=True):
        rows.append(
            (
                f"{place.entrant.title}, {fraction_text(place.fraction)}",
                [
                    dice_entry(analysis, place, "overall"),
                    difference_entry(analysis, place, full, full=False),
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
            f"Holm over the {counted(len(places), 'planned row')}."
        ],
        place="tests",
    )
