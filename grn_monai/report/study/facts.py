"""What stands beside the tables of scores: what the runs took, failures, the cohort, and where all comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.report.numbers import number
from grn_monai.report.study.collect import Run, StudyResults
from grn_monai.report.study.formats import Entry, StudyTable, text_entry
from grn_monai.report.study.plan import counted, fraction_text
from grn_monai.report.study.printed import printed_notes

__all__ = ["cohort_facts", "misprints", "origin_text", "problems", "provenance_facts", "runs_table"]


def origin_text(simulated: bool | None) -> str:
    """What must stand above every number of a study."""
    if simulated:
        return "Simulated cohort. All scans were made by a simulator; the figures say nothing about patients."
    if simulated is None:
        return "Origin unknown. The study does not say whether its scans are simulated."
    return ""


def problems(results: StudyResults) -> list[str]:
    """Runs that are not done, by reason and method: one line for all that were not run, one for each other reason."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in results.runs:
        if run.reason:
            method = "" if run.reason == "not run" else results.methods[run.method].title
            groups.setdefault((run.reason, method), []).append(run)
    lines = []
    for (reason, title), runs in groups.items():
        if not title:
            every = Counter(run.method for run in results.runs)
            missing = Counter(run.method for run in runs)
            whole = [results.methods[key].title for key in missing if missing[key] == every[key]]
            parts = [f"{results.methods[k].title} {n} of {every[k]}" for k, n in missing.items() if n < every[k]]
            parts += [f"all of {title}" for title in whole]
            lines.append(f"Not run: {len(runs)} of {counted(len(results.runs), 'training')}: {'; '.join(parts)}.")
        else:
            places = "; ".join(
                f"{fraction_text(f)}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
                for f in sorted({run.fraction for run in runs})
                if (seeds := sorted(run.seed for run in runs if run.fraction == f))
            )
            lines.append(f"{title} at {places}: {reason}.")
    return sorted(lines, key=lambda line: line.startswith("Not run: "))


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
        # What was never started is one line of `problems`.
        if (runs := results.select(method.key, fraction)) and any(run.reason != "not run" for run in runs)
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
        same: dict[frozenset[str], list[int]] = {}
        for seed, names in sorted(found.items()):
            same.setdefault(frozenset(names), []).append(seed)
        alike = [seeds for seeds in same.values() if len(seeds) > 1]
        if alike and fraction < 1:
            which = " and ".join(f"seeds {', '.join(map(str, seeds))}" for seeds in alike)
            text = f"{which} label the same scans: their spread shows nothing of which subjects are labelled"
            lines.append((f"note on {fraction_text(fraction)}", text))
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


_PROGRAMS = {
    "__main__.py": "python -m monai.bundle",
    "nnunet.py": "python -m grn_monai.study.outside.nnunet",
}


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
    if words:  # the record has the program's file name only
        words[:1] = _PROGRAMS.get(words[0], words[0]).split(" ")
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
            commits[str(git["commit"])[:12] + (f" with {counted(changed, 'changed file')}" if changed else "")] += 1
        machine = [run.record.get("platform"), run.record.get("cuda")]
        threads = run.record.get("threads")
        machines[", ".join(map(str, filter(None, [*machine, threads and counted(threads, "thread")])))] += 1
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
