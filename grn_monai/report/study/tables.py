"""The papers' Dice tables: by layer at one fraction, and overall over the fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grn_monai.report.study.analysis import COLUMNS, OVERALL, Analysis, Family, Place
from grn_monai.report.study.cells import dice_entry, difference_entry, mark_best, p_text
from grn_monai.report.study.entrants import Entrant, entrants_of, roles
from grn_monai.report.study.formats import Entry, StudyTable, text_entry
from grn_monai.report.study.plan import counted, fraction_name, fraction_text
from grn_monai.report.study.printed import printed

__all__ = ["ablation_table", "control_tables", "dice_tables", "fraction_text", "labels_table", "layer_table"]


@dataclass(frozen=True)
class Printed:
    """The papers' tables in which a value is looked up, in this order."""

    tables: tuple[str, ...] = ()

    def __call__(self, place: Place, column: str) -> float | None:
        method, mode = place.entrant.method.printed, place.entrant.mode
        found = (printed(table, method, place.fraction, column, mode) for table in self.tables)
        return next((value for value in found if value is not None), None)


def family_note(family: Family, analysis: Analysis, reference: str) -> list[str]:
    """What the marks mean, and whether so few subjects can earn one."""
    count = len(family.comparisons)
    if not count:
        return []
    return [
        f"* differs from {reference}: permutation test over {counted(analysis.n_subjects, 'subject')}, Holm over the "
        f"{counted(count, 'comparison')} of this table, p < 0.05; † differs by the papers’ paired t-test over slices, "
        "p < 0.05 uncorrected.",
        *floor_note(analysis, family.smallest),
    ]


def floor_note(analysis: Analysis, smallest: float) -> list[str]:
    """That so few subjects can earn no mark, where `smallest` is the least corrected p there can be."""
    if smallest < 0.05:
        return []
    subjects = counted(analysis.n_subjects, "subject")
    return [f"With {subjects} no corrected p can be below {p_text(smallest)}, so no * can be earned here."]


PRINTED_NOTE = "“Printed”: what the papers print, of another cohort."
_DICE_NOTE = "Dice in %, ± half-width of the papers’ interval over slices; best of each column in bold."


def _with_printed(
    columns: Sequence[str], rows: list[list[Entry]], values: Sequence[Sequence[float | None]]
) -> tuple[list[str], list[list[Entry]]]:
    """Set a printed column beside each own one that has any printed value."""
    heads: list[str] = []
    new: list[list[Entry]] = [[] for _ in rows]
    for i, column in enumerate(columns):
        heads.append(column)
        for target, row in zip(new, rows, strict=True):
            target.append(row[i])
        if any(line[i] is not None for line in values):
            heads.append(f"{column}, printed")
            for target, line in zip(new, values, strict=True):
                target.append(Entry(line[i], digits=2))
    return heads, new


def layer_table(
    analysis: Analysis,
    entrants: Sequence[Entrant],
    fraction: float,
    reference: Entrant | None,
    key: str,
    title: str,
    look: Printed,
    notes: Sequence[str] = (),
    place: str = "dice",
) -> StudyTable | None:
    """Dice of each layer and overall at one fraction, and the difference to the reference; None without any score.

    Rows without a run at that fraction in the plan are left out; those whose runs failed or are missing stay.
    """
    rows_of = [Place(e, fraction) for e in entrants if analysis.results.select(e.method.key, fraction)]
    if not any(analysis.summary(row) for row in rows_of):
        return None
    target = Place(reference, fraction) if reference else None
    if target is not None and analysis.summary(target) is None:
        target = None
    family = analysis.family([(row, target) for row in rows_of] if target else [])
    columns = [OVERALL, *(column for column in COLUMNS if column != OVERALL)]  # what a narrow page shows first
    rows = [[dice_entry(analysis, row, column, family) for column in columns] for row in rows_of]
    mark_best(rows, range(len(columns)))
    heads, rows = _with_printed(columns, rows, [[look(row, column) for column in columns] for row in rows_of])
    notes = [_DICE_NOTE, *([PRINTED_NOTE] if len(heads) > len(columns) else []), *notes]
    if target is not None and family.comparisons:
        place_of = 1 + heads[1].startswith(OVERALL)
        heads.insert(place_of, f"difference to {target.entrant.title}")
        for row, cells in zip(rows_of, rows, strict=True):
            if row == target:
                cells.insert(place_of, text_entry("reference"))
            else:
                why = "no seed in common" if analysis.summary(row) else ""
                found = difference_entry(family.comparisons.get(row), family.corrected.get(row), why)
                cells.insert(place_of, found)
        notes += family_note(family, analysis, target.entrant.title)
    elif reference is not None and target is None:
        notes.append(f"No tests: the reference, {reference.title}, has no scores here.")
    names = [row.entrant.title for row in rows_of]
    return StudyTable(key, title, heads, list(zip(names, rows, strict=True)), notes, place=place)


def labels_table(
    analysis: Analysis,
    entrants: Sequence[Entrant],
    fractions: Sequence[float],
    reference: Entrant | None,
    key: str,
    title: str,
    look: Printed,
) -> StudyTable | None:
    """Overall Dice over fractions of labels; None without any score."""
    places = [[Place(e, f) for f in fractions if analysis.results.select(e.method.key)] for e in entrants]
    places = [row for row in places if any(analysis.results.select(p.entrant.method.key, p.fraction) for p in row)]
    shown = [i for i, _ in enumerate(fractions) if any(analysis.summary(row[i]) for row in places)]
    if not shown:
        return None
    pairs = [
        (row[i], Place(reference, fractions[i]))
        for row in places
        for i in shown
        if reference and analysis.summary(Place(reference, fractions[i]))
    ]
    family = analysis.family(pairs)
    columns = [f"{fraction_text(fractions[i])} labels" for i in shown]
    rows = [[dice_entry(analysis, row[i], OVERALL, family) for i in shown] for row in places]
    mark_best(rows, range(len(columns)))
    heads, rows = _with_printed(columns, rows, [[look(row[i], OVERALL) for i in shown] for row in places])
    notes = ["Mean of the six layers.", _DICE_NOTE, *([PRINTED_NOTE] if len(heads) > len(columns) else [])]
    if reference is not None:
        notes += family_note(family, analysis, f"{reference.title} at the same fraction")
    names = [row[0].entrant.title for row in places]
    return StudyTable(key, title, heads, list(zip(names, rows, strict=True)), notes)


def dice_tables(analysis: Analysis) -> list[StudyTable]:
    """GRN Tables 2–4 and GRN+ Tables 2–3, as far as the study has their rows."""
    results, who = analysis.results, roles(analysis.results)
    comparators = entrants_of(results, ("supervised", "semi-supervised", "grn", "outside"), others=True)
    networks = entrants_of(results, ("supervised", "network", "grn", "outside"))
    fractions = results.fractions
    tables: list[StudyTable | None] = []
    for fraction in fractions:
        sources = ("GRN Table 2", "GRN Table 3") if fraction < 1 else ("GRN+ Table 3",)
        tables.append(
            layer_table(
                analysis,
                comparators,
                fraction,
                who.reference,
                f"layers_{fraction_name(fraction)}",
                f"Dice by layer at {fraction_text(fraction)} of the labels"
                + (" (GRN Tables 2 and 3)" if fraction < 1 else ""),
                Printed(sources),
            )
        )
    grn = [e for e in comparators if e.method.group in ("supervised", "grn")]
    plus = [e for e in comparators if e.method.group != "grn" or e.method.bundle.endswith("grn_plus")]
    title = "Overall Dice over the share of labels"
    if any(e.method.group == "grn" for e in grn):
        look = Printed(
            (
                "GRN Table 4",
                "GRN+ Table 2",
                "GRN+ Table 3",
            )
        )
        tables.append(
            labels_table(analysis, grn, fractions, who.reference, "labels_grn", f"{title} (GRN Table 4)", look)
        )
    if any(e.method.group == "semi-supervised" for e in plus):
        name = f"{title}, semi-supervised methods (GRN+ Table 2)"
        look = Printed(
            (
                "GRN+ Table 2",
                "GRN Table 2",
                "GRN Table 3",
            )
        )
        tables.append(labels_table(analysis, plus, fractions, who.reference, "labels_semi", name, look))
    for fraction in fractions:
        if any(results.select(e.method.key, fraction) for e in networks if e.method.group == "network"):
            tables.append(
                layer_table(
                    analysis,
                    networks,
                    fraction,
                    who.proposed,
                    f"networks_{fraction_name(fraction)}",
                    f"Segmentation networks at {fraction_text(fraction)} of the labels (GRN+ Table 3)",
                    Printed(("GRN+ Table 3",)) if fraction == 1 else Printed(),
                )
            )
    return [table for table in tables if table is not None]


def ablation_table(test: Analysis, validation: Analysis) -> StudyTable | None:
    """GRN Table 6: ablations beside the methods they are ablations of, on validation slices where those are scored."""
    results, who = test.results, roles(test.results)
    ablations = entrants_of(results, ("ablation",))
    having = [f for f in results.fractions if any(results.select(e.method.key, f) for e in ablations)]
    if not having:
        return None
    fraction = having[0]
    bases = {e.method.bundle for e in ablations}
    whole = [e for e in entrants_of(results, ("grn",)) if e.method.bundle in bases]
    rows = [*([who.reference] if who.reference else []), *whole, *ablations]
    scored = any(validation.summary(Place(e, fraction)) for e in ablations)
    note = (
        "Validation slices, which also chose the weights, as in the paper."
        if scored
        else "Test slices: this study has no scores of validation slices, which the paper’s table shows."
    )
    title = f"Ablation at {fraction_text(fraction)} of the labels (GRN Table 6)"
    analysis = validation if scored else test
    look = Printed(("GRN Table 6",)) if scored else Printed()
    return layer_table(analysis, rows, fraction, who.reference, "ablation", title, look, [note], "ablation")


def control_tables(analysis: Analysis) -> list[StudyTable]:
    """Is a gain of S(G(x)) just capacity? Networks of its size, and other controls, against it at each fraction."""
    results, who = analysis.results, roles(analysis.results)
    controls = entrants_of(results, ("control",))
    rows = entrants_of(results, ("supervised",))[:1]
    if who.proposed:
        rows += [Entrant(who.proposed.method, mode) for mode in who.proposed.method.modes]
    tables = [
        layer_table(
            analysis,
            [*rows, *controls],
            fraction,
            who.proposed,
            f"controls_{fraction_name(fraction)}",
            f"Controls at {fraction_text(fraction)} of the labels",
            Printed(),
            ["A gain over the U-Net alone may be one of capacity or of the loss; these rows have those too."],
            place="controls",
        )
        for fraction in results.fractions
        if any(results.select(e.method.key, fraction) for e in controls)
    ]
    return [table for table in tables if table is not None]
