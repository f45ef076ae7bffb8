"""Everything a study's report shows, gathered once for its HTML, Markdown and JSON."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from grn_monai.report.study.analysis import COLUMNS, Analysis, analysis_of
from grn_monai.report.study.collect import StudyResults
from grn_monai.report.study.complexity import complexity_table, load_complexity
from grn_monai.report.study.effects import effects_table, not_inferior_table, test_tables
from grn_monai.report.study.entrants import Place, all_entrants
from grn_monai.report.study.facts import cohort_facts, misprints, origin_text, problems, provenance_facts, runs_table
from grn_monai.report.study.formats import StudyTable
from grn_monai.report.study.printed import abstracts
from grn_monai.report.study.tables import ablation_table, control_tables, dice_tables
from grn_monai.report.study.verdicts import Verdict, headline, verdicts
from grn_monai.report.study.volumes import thickness_tables, volume_tables
from grn_monai.report.study.words import conventions

__all__ = ["SECTIONS", "Content", "gather"]

SECTIONS: dict[str, str] = {
    "dice": "Dice",
    "effects": "Effects",
    "ablation": "Ablation",
    "controls": "Controls",
    "volumes": "Volumes and thickness",
    "complexity": "Complexity",
    "tests": "Tests",
    "runs": "Trainings",
}
"""Places of tables in the order of the report, with headings."""


@dataclass(frozen=True)
class Content:
    """A report before it has a format.

    Attributes:
        results: the study.
        section: section of the cohort whose scores the tables show.
        state: one line on how far the study is.
        tables: place to its tables.
        verdicts: the papers' claims.
        headline: what they come to, a few sentences, the main one first.
        says: what the papers' abstracts say, paper to text.
        cohort: facts of the cohort.
        problems: runs that are not done, and everything left out, a sentence each.
        conventions: term and explanation.
        misprints: known misprints of the papers' tables.
        provenance: of the trainings, and of this report.
        scores: every row, fraction and layer with all its numbers, JSON-ready.
    """

    results: StudyResults
    section: str
    state: str
    tables: dict[str, list[StudyTable]]
    verdicts: list[Verdict]
    headline: list[str]
    says: dict[str, str]
    cohort: list[tuple[str, str]]
    problems: list[str]
    conventions: list[tuple[str, str]]
    misprints: list[str]
    provenance: dict[str, Any]
    scores: list[dict[str, Any]]

    @property
    def all_tables(self) -> list[StudyTable]:
        """All tables in the order of the report."""
        return [table for tables in self.tables.values() for table in tables]


def _state_line(results: StudyResults) -> str:
    states = Counter(run.state for run in results.runs)
    parts = [
        f"{states[s]} {s}" for s in ("done", "partial", "running", "failed", "other settings", "missing") if states[s]
    ]
    done = states["done"] == len(results.runs)
    return f"{len(results.runs)} trainings: {', '.join(parts)}." + ("" if done else " The study is not complete.")


def _scores(analysis: Analysis) -> list[dict[str, Any]]:
    rows = []
    for entrant in all_entrants(analysis.results):
        for fraction in analysis.results.fractions:
            place = Place(entrant, fraction)
            if not analysis.results.select(entrant.method.key, fraction):
                continue
            layers = {
                column: asdict(summary)
                for column in COLUMNS
                if (summary := analysis.summary(place, column)) is not None
            }
            rows.append(
                {
                    "method": entrant.method.key,
                    "mode": entrant.mode,
                    "title": entrant.title,
                    "group": entrant.method.group,
                    "fraction": fraction,
                    "section": analysis.section,
                    "dice": layers or None,
                    "note": None if layers else analysis.why_missing(place),
                }
            )
    return rows


def _placed(tables: Sequence[StudyTable]) -> dict[str, list[StudyTable]]:
    found: dict[str, list[StudyTable]] = {place: [] for place in SECTIONS}
    for table in tables:
        found.setdefault(table.place, []).append(table)
    return {place: tables for place, tables in found.items() if tables}


def gather(results: StudyResults, margin: float = 0.01, seed: int = 0) -> Content:
    """Make all tables, tests and verdicts of a study.

    Args:
        results: what `load_study` read.
        margin: margin of "not inferior", Dice fraction.
        seed: seed of bootstrap and resampling.
    """
    from grn_monai.handlers.record import provenance

    section = "test" if "test" in results.rows else next(iter(results.rows))
    analysis = analysis_of(results, section, margin, seed)
    validation = analysis_of(results, "validation", margin, seed)
    complexity = load_complexity(results.folder)
    tables = [
        *dice_tables(analysis),
        effects_table(analysis),
        ablation_table(analysis, validation),
        *control_tables(analysis),
        *volume_tables(analysis),
        *thickness_tables(analysis),
        complexity_table(complexity) if complexity else None,
        *test_tables(analysis),
        not_inferior_table(analysis),
        runs_table(results),
    ]
    lines = problems(results)
    commits = provenance_facts(results)["commits"]
    if len(commits) > 1:
        lines.append(f"The trainings come from {len(commits)} states of the source: {', '.join(commits)}.")
    scored = [analysis_of(results, name, margin, seed) for name in results.rows]
    origin = origin_text(results.plan.simulated)
    found = verdicts(analysis)
    return Content(
        results=results,
        section=section,
        state=_state_line(results),
        tables=_placed([replace(table, origin=origin) for table in tables if table is not None]),
        verdicts=found,
        headline=headline(found, analysis),
        says=abstracts(),
        cohort=cohort_facts(results),
        problems=lines,
        conventions=conventions(analysis),
        misprints=misprints(),
        provenance={
            "trainings": provenance_facts(results),
            "report": {**provenance(), "written": time.strftime("%Y-%m-%dT%H:%M:%S%z")},
        },
        scores=[row for part in scored for row in _scores(part)],
    )
