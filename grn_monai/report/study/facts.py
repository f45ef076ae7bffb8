"""What stands beside the Dice tables: volumes and thickness, what the runs took, failures, and where all comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.metrics.statistics import cluster_bootstrap_ci, mean_ci
from grn_monai.report.numbers import interval, number
from grn_monai.report.study.analysis import Analysis, Place
from grn_monai.report.study.cells import mark_best, percent
from grn_monai.report.study.collect import Run, StudyResults
from grn_monai.report.study.entrants import all_entrants
from grn_monai.report.study.formats import Entry, StudyTable, text_entry
from grn_monai.report.study.plan import counted, fraction_name, fraction_text
from grn_monai.report.study.printed import printed_notes
from grn_monai.report.study.scores import Evaluation

__all__ = ["cohort_facts", "misprints", "provenance_facts", "runs_table", "volume_tables"]

Floats = npt.NDArray[np.float64]


def _volume_values(evaluations: Iterable[Evaluation], kind: str, column: str) -> tuple[Floats, tuple[str, ...]] | None:
    """(M,) mean over layers and seeds of a scan score, and the scans' subjects; None where a run lacks the scores."""
    found = [e.volumes.get(kind) for e in evaluations]
    volumes = [scores for scores in found if scores is not None]
    if not volumes or len(volumes) < len(found) or any(v.scans != volumes[0].scans for v in volumes):
        return None
    stack = np.stack([getattr(scores, column).astype(np.float64) for scores in volumes])
    counts = (~np.isnan(stack)).sum(axis=(0, 2))
    means = np.where(counts > 0, np.nansum(stack, axis=(0, 2)) / np.maximum(counts, 1), np.nan)
    return means, volumes[0].subjects


def _volume_entry(analysis: Analysis, place: Place, kind: str, column: str) -> Entry:
    evaluations = analysis.results.evaluations(
        place.entrant.method.key, place.fraction, analysis.section, place.entrant.mode
    )
    found = _volume_values(evaluations.values(), kind, column)
    if found is None:
        return Entry(below=(analysis.why_missing(place) if not evaluations else "not scored",))
    values, subjects = found
    scale, digits = (100, 1) if column == "dice" else (1, 2)
    mean, _, n = mean_ci(values)
    ci = cluster_bootstrap_ci(values, subjects, seed=analysis.seed)
    text = "" if ci is None else percent(ci) if scale == 100 else interval(ci, digits)
    parts = {"scans": n} | ({"subjects low": scale * ci[0], "subjects high": scale * ci[1]} if ci is not None else {})
    value = None if np.isnan(mean) else scale * mean
    return Entry(value, digits=digits, below=(f"subjects {text}",) if text else (), parts=parts)


def volume_tables(analysis: Analysis) -> list[StudyTable]:
    """Dice of fused and decoded volumes and thickness errors, one table for each fraction."""
    tables = []
    columns = (
        ("Fused volume, Dice (%)", "volume", "dice"),
        ("Decoded volume, Dice (%)", "decoded", "dice"),
        ("Decoded, thickness error (mm)", "decoded", "thickness_error_mm"),
        ("Decoded, thickness bias (mm)", "decoded", "mean_thickness_error_mm"),
    )
    for fraction in analysis.results.fractions:
        places = [
            Place(e, fraction)
            for e in all_entrants(analysis.results)
            if analysis.results.select(e.method.key, fraction)
        ]
        rows = [[_volume_entry(analysis, p, kind, column) for _, kind, column in columns] for p in places]
        if all(cell.value is None for row in rows for cell in row):
            continue
        mark_best(rows, [0, 1])
        mark_best(rows, [2], lowest=True)
        tables.append(
            StudyTable(
                f"volumes_{fraction_name(fraction)}",
                f"Volumes and thickness at {fraction_text(fraction)} of the labels",
                [head for head, _, _ in columns],
                list(zip([p.entrant.title for p in places], rows, strict=True)),
                [
                    "Fused: argmax of both planes’ probabilities; decoded: after the ordered-layer decode. Mean over "
                    "layers, seeds and scans; 95 % bootstrap over subjects below. Thickness error: mean over A-lines "
                    "of |predicted − true|; bias: predicted − true mean thickness."
                ],
                place="volumes",
            )
        )
    return tables


def _range(values: Sequence[float | int | None], digits: int = 0) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return "–"
    low, high = number(known[0], digits), number(known[-1], digits)
    return low if low == high else f"{low} to {high}"


def _run_row(runs: Sequence[Run]) -> list[Entry]:
    states = Counter(run.state for run in runs)
    others = tuple(f"{count} {state}" for state, count in states.items() if state != "done")
    labelled = [len(run.labelled_scans) if run.labelled_scans is not None else None for run in runs]
    seconds = [run.seconds / 60 if run.seconds is not None else None for run in runs]
    return [
        text_entry(f"{states['done']} of {len(runs)}", *others),
        text_entry(", ".join(str(run.seed) for run in runs)),
        text_entry(_range(labelled)),
        text_entry(_range([run.epochs for run in runs])),
        text_entry(_range([run.iterations for run in runs])),
        text_entry(_range(seconds, 1)),
    ]


def runs_table(results: StudyResults) -> StudyTable:
    """What the trainings took: seeds, labelled scans reached, epochs, iterations, minutes."""
    rows = [
        (f"{method.title}, {fraction_text(fraction)}", _run_row(runs))
        for method in results.methods.values()
        for fraction in results.fractions
        if (runs := results.select(method.key, fraction))
    ]
    return StudyTable(
        "runs",
        "Trainings",
        ["Done", "Seeds", "Labelled scans", "Epochs", "Iterations", "Minutes"],
        rows,
        ["Lowest to highest over the seeds. Minutes: wall clock of the training with validation; times are comparable "
         "only between runs that had the machine alike, which a study in the background does not grant."],
        place="runs",
    )  # fmt: skip


def cohort_facts(results: StudyResults) -> list[tuple[str, str]]:
    """Sizes of the cohort's sections and of what was scored, and the labelled scans of each fraction and seed."""
    lines = []
    try:
        lines += _section_sizes(results.plan.cohort)
    except InputError as error:
        lines.append(("cohort", f"its file could not be read ({error.found})"))
    for section, rows in results.rows.items():
        scans, subjects = len(set(zip(rows.subjects, rows.scans, strict=True))), len(set(rows.subjects))
        lines.append(
            (
                f"scored, {section}",
                ", ".join([counted(subjects, "subject"), counted(scans, "scan"), counted(len(rows.scans), "slice")]),
            )
        )
    for fraction in results.fractions:
        found = {
            run.seed: run.labelled_scans
            for run in results.select(fraction=fraction)
            if run.labelled_scans is not None and results.methods[run.method].group != "outside"
        }
        words = [f"seed {seed}: {_scan_list(names)}" for seed, names in sorted(found.items())]
        if words:
            lines.append((f"labelled at {fraction_text(fraction)}", "; ".join(words)))
    return lines


def _scan_list(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} scans"


def _section_sizes(cohort: Path | None) -> list[tuple[str, str]]:
    from grn_monai.data.cohort import SECTIONS, load_cohort
    from grn_monai.data.names import item_names

    if cohort is None:
        return [("cohort", "not named by study.json")]
    content, _ = load_cohort(cohort)
    lines = []
    for section in SECTIONS:
        names = [item_names(item) for item in content[section]]
        if names:
            lines.append(
                (
                    f"cohort, {section}",
                    f"{counted(len({s for s, _ in names}), 'subject')}, {counted(len(names), 'scan')}",
                )
            )
    return lines


def _shortened(command: Any, study: Path) -> str:
    """A recorded command without the disk it ran on: paths below the study's folder start with STUDY."""
    root = str(study.resolve())
    words = []
    for word in map(str, command if isinstance(command, list) else str(command).split()):
        if word.startswith(root):
            word = "STUDY" + word[len(root) :]
        elif word.startswith("/"):
            word = Path(word).name
        words.append(f'"{word}"' if " " in word or "[" in word else word)
    if words and words[0] == "__main__.py":
        words[:1] = ["python", "-m", "monai.bundle"]
    return " ".join(words)


def provenance_facts(results: StudyResults) -> dict[str, Any]:
    """Commands (one for each method), versions and commits of all trainings, as JSON-ready values.

    Returns:
        `commands`: method title to the first command there is; `versions`: package to its versions; `commits`: commit
        (with changed files: `COMMIT with N changed files`) to number of trainings; `machines` likewise.
    """
    commands: dict[str, str] = {}
    versions: dict[str, Counter[str]] = {}
    commits: Counter[str] = Counter()
    machines: Counter[str] = Counter()
    for run in results.runs:
        if not run.record:
            continue
        if run.record.get("command"):
            commands.setdefault(results.methods[run.method].title, _shortened(run.record["command"], results.folder))
        for name, version in (run.record.get("versions") or {}).items():
            if version:
                versions.setdefault(name, Counter())[str(version)] += 1
        git = run.record.get("git") or {}
        changed = git.get("changed_files")
        if git.get("commit"):
            commits[str(git["commit"])[:12] + (f" with {changed} changed files" if changed else "")] += 1
        machine = [run.record.get("platform"), run.record.get("cuda")]
        threads = run.record.get("threads")
        machines[", ".join(map(str, filter(None, [*machine, threads and f"{threads} threads"])))] += 1
    return {
        "commands": commands,
        "versions": {name: dict(found) for name, found in versions.items()},
        "commits": dict(commits),
        "machines": {name: count for name, count in machines.items() if name},
    }


def misprints() -> list[str]:
    """Known misprints and contradictions of the papers' tables, each with its tables."""
    found: dict[tuple[str, str], list[int]] = {}
    for paper, numbers in (("GRN", range(2, 7)), ("GRN+", range(2, 5))):
        for table in numbers:
            for text in printed_notes(f"{paper} Table {table}"):
                found.setdefault((paper, text), []).append(table)
    return [
        f"{paper} Table{'s' * (len(tables) > 1)} {', '.join(map(str, tables))}: {text}"
        for (paper, text), tables in found.items()
    ]
