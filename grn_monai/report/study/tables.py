"""The papers' Dice tables: by layer at one fraction, and overall over the fractions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from grn_monai.report.study.analysis import COLUMNS, OVERALL, Analysis, Place
from grn_monai.report.study.cells import dice_entry, difference_entry, mark_best, p_text
from grn_monai.report.study.entrants import Entrant, entrants_of, roles
from grn_monai.report.study.formats import Entry, StudyTable, text_entry
from grn_monai.report.study.plan import counted, fraction_name, fraction_text
from grn_monai.report.study.printed import PrintedDice, printed_dice, printed_notes

__all__ = [
    "ONE_SEED", "ablation_table", "control_tables", "dice_tables", "labels_table", "layer_table", "marks_note",
    "printed_note",
]  # fmt: skip


@dataclass(frozen=True)
class Printed:
    """The papers' tables in which a value is looked up, in this order; only those that a table of ours stands for."""

    tables: tuple[str, ...] = ()

    def __call__(self, place: Place, column: str) -> PrintedDice | None:
        method, mode = place.entrant.method.printed, place.entrant.mode
        found = (printed_dice(table, method, place.fraction, column, mode) for table in self.tables)
        return next((value for value in found if value is not None), None)


def marks_note(analysis: Analysis, pairs: Iterable[tuple[Place, Place]], reference: str) -> list[str]:
    """What the marks mean, over how many comparisons p is corrected, and whether so few subjects can earn a mark."""
    pairs = list(pairs)
    found = {f.name: f for pair in pairs if (f := analysis.family(*pair))}
    if not found:
        return []
    sizes = " and ".join(f"{len(f.pairs)} ({f.name})" for f in found.values())
    notes = [
        f"* differs from {reference}: permutation test over {counted(analysis.n_subjects, 'subject')}, p < 0.05 after "
        f"Holm over the planned comparisons, {sizes}, and the interval over subjects and seeds lies off zero; (*) the "
        "same test, but for these trainings only (one seed, or seeds that differ too much); † p < 0.05 of the papers’ "
        "t-test over slices, uncorrected."
    ]
    floor = min(analysis.smallest(family) for family in found.values())
    if floor >= 0.05:
        subjects = counted(analysis.n_subjects, "subject")
        notes.append(f"With {subjects} no corrected p can be below {p_text(floor)}, so no * can be earned here.")
    comparisons = [c for pair in pairs if (c := analysis.compare(*pair))]
    if comparisons and max(c.seeds for c in comparisons) < 2:
        notes.append(ONE_SEED)
    return notes


ONE_SEED = "One seed: no difference here is claimed beyond these trainings."
_DICE_NOTE = "Dice in %, ± half-width of the papers’ interval over slices; best of each column in bold."


def printed_note(sources: Iterable[str]) -> str:
    """Where printed values stand."""
    return f"“Printed”: {'; '.join(dict.fromkeys(sources))}, of another cohort."


def _with_printed(
    columns: Sequence[str], rows: list[list[Entry]], values: Sequence[Sequence[PrintedDice | None]]
) -> tuple[list[str], list[list[Entry]], list[str]]:
    """Set a printed column beside each own one that has any printed value; columns, cells and a note."""
    heads: list[str] = []
    new: list[list[Entry]] = [[] for _ in rows]
    for i, column in enumerate(columns):
        heads.append(column)
        for target, row in zip(new, rows, strict=True):
            target.append(row[i])
        if any(line[i] is not None for line in values):
            heads.append(f"{column}, printed")
            for target, line in zip(new, values, strict=True):
                found = line[i]
                target.append(Entry(found.value, digits=2, below=found.doubts) if found else Entry(digits=2))
    sources = [found.source for line in values for found in line if found]
    return heads, new, [printed_note(sources)] if sources else []


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
    columns = [OVERALL, *(column for column in COLUMNS if column != OVERALL)]  # what a narrow page shows first
    rows = [[dice_entry(analysis, row, column, target) for column in columns] for row in rows_of]
    mark_best(rows, rows_of, range(len(columns)))
    heads, rows, of_papers = _with_printed(
        columns, rows, [[look(row, column) for column in columns] for row in rows_of]
    )
    notes = [_DICE_NOTE, *of_papers, *notes]
    if target is not None and any(analysis.compare(row, target) for row in rows_of if row != target):
        place_of = 1 + heads[1].startswith(OVERALL)
        heads.insert(place_of, f"difference to {target.entrant.title}")
        for row, cells in zip(rows_of, rows, strict=True):
            if row == target:
                cells.insert(place_of, text_entry("reference"))
            else:
                why = "no seed in common" if analysis.summary(row) else ""
                cells.insert(place_of, difference_entry(analysis, row, target, why))
        pairs = [(row, target) for row in rows_of]
        notes += ["Differences are of the subjects’ means.", *marks_note(analysis, pairs, target.entrant.title)]
    elif reference is not None and target is None:
        notes.append(f"No tests: the reference, {reference.title}, has no scores here.")
    names = [row.entrant.title for row in rows_of]
    return StudyTable(key, title, heads, list(zip(names, rows, strict=True)), notes, place=place)


def labels_table(
    analysis: Analysis,
    entrants: Sequence[Entrant],
    fractions: Sequence[float],
    key: str,
    title: str,
    look: Printed,
) -> StudyTable | None:
    """Overall Dice over fractions of labels; None without any score. Tests stand in the tables of each fraction."""
    places = [[Place(e, f) for f in fractions] for e in entrants if analysis.results.select(e.method.key)]
    shown = [i for i, _ in enumerate(fractions) if any(analysis.summary(row[i]) for row in places)]
    if not shown:
        return None
    columns = [f"{fraction_text(fractions[i])} labels" for i in shown]
    rows = [[dice_entry(analysis, row[i], OVERALL) for i in shown] for row in places]
    mark_best(rows, [row[0] for row in places], range(len(columns)))
    heads, rows, notes = _with_printed(columns, rows, [[look(row[i], OVERALL) for i in shown] for row in places])
    names = [row[0].entrant.title for row in places]
    return StudyTable(
        key, title, heads, list(zip(names, rows, strict=True)), ["Mean of the six layers.", _DICE_NOTE, *notes]
    )


def dice_tables(analysis: Analysis) -> list[StudyTable]:
    """GRN Tables 2–4 and GRN+ Tables 2–3, as far as the study has their rows."""
    results, who = analysis.results, roles(analysis.results)
    comparators = entrants_of(results, ("supervised", "semi-supervised", "grn", "outside"), others=True)
    networks = entrants_of(results, ("supervised", "network", "grn", "outside"))
    fractions = results.fractions
    tables: list[StudyTable | None] = []
    for fraction in fractions:
        sources = ("GRN Table 2", "GRN Table 3") if fraction < 1 else ()
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
        tables.append(
            labels_table(analysis, grn, fractions, "labels_grn", f"{title} (GRN Table 4)", Printed(("GRN Table 4",)))
        )
    if any(e.method.group == "semi-supervised" for e in plus):
        name = f"{title}, semi-supervised methods (GRN+ Table 2)"
        tables.append(labels_table(analysis, plus, fractions, "labels_semi", name, Printed(("GRN+ Table 2",))))
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
    notes = [note, *(printed_notes("GRN Table 6") if scored else [])]
    return layer_table(analysis, rows, fraction, who.reference, "ablation", title, look, notes, "ablation")


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
