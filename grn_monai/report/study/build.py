"""A study to `report.html`, `report.md`, `report.json`, and its tables and figures as files."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.files import make_folder, write_whole
from grn_monai.metrics.files import json_text
from grn_monai.report.page import page_template
from grn_monai.report.study.collect import StudyResults, load_study
from grn_monai.report.study.content import SECTIONS, Content, gather
from grn_monai.report.study.facts import origin_text
from grn_monai.report.study.formats import StudyTable, csv_table, html_table, markdown_table, tex_table
from grn_monai.report.study.markdown import Picture, provenance_lines, report_markdown

__all__ = ["build_study_report"]


def _json_table(table: StudyTable) -> dict[str, Any]:
    rows = [
        {
            "name": name,
            "cells": [
                {"value": c.value, "shown": c.shown, "half": c.half, "best": c.best, "marks": c.marks, **dict(c.parts)}
                for c in cells
            ],
        }
        for name, cells in table.rows
    ]
    return {"title": table.title, "columns": list(table.columns), "rows": rows, "notes": list(table.notes)}


def _json_runs(results: StudyResults) -> list[dict[str, Any]]:
    return [
        {
            "method": run.method,
            "fraction": run.fraction,
            "seed": run.seed,
            "state": run.state,
            "reason": run.reason or None,
            "left_out": run.faults,
            "labelled_scans": run.labelled_scans,
            "epochs": run.epochs,
            "iterations": run.iterations,
            "seconds": run.seconds,
            "commit": (run.record.get("git") or {}).get("commit"),
            "mean_dice": {key: float(e.dice.mean()) for key, e in run.evaluations.items()},
        }
        for run in results.runs
    ]


def _json(content: Content, pictures: Sequence[Picture], files: Sequence[str], margin: float) -> dict[str, Any]:
    plan = content.results.plan
    return {
        "name": plan.name,
        "title": plan.title,
        "simulated": plan.simulated,
        "section": content.section,
        "state": content.state,
        "margin": margin,
        "methods": {key: {**asdict(method)} for key, method in content.results.methods.items()},
        "fractions": list(content.results.fractions),
        "seeds": list(plan.seeds),
        "cohort": dict(content.cohort),
        "headline": content.headline,
        "verdicts": [asdict(verdict) for verdict in content.verdicts],
        "scores": content.scores,
        "tables": {table.key: _json_table(table) for table in content.all_tables},
        "figures": [{"title": title, "file": f"figures/{path.name}", "caption": c} for title, path, c in pictures],
        "runs": _json_runs(content.results),
        "problems": content.problems,
        "conventions": dict(content.conventions),
        "misprints": content.misprints,
        "provenance": content.provenance,
        "files": list(files),
    }


def _html(content: Content, pictures: Sequence[Picture]) -> str:
    plan = content.results.plan
    return page_template("study.html.j2").render(
        title=plan.title,
        origin=origin_text(plan.simulated),
        content=content,
        verdicts=[verdict for verdict in content.verdicts if verdict.verdict != "not tested"],
        sections=[
            (place, SECTIONS.get(place, place.capitalize()), [(t, html_table(t)) for t in tables])
            for place, tables in content.tables.items()
            if place != "runs"
        ],
        runs=[(t, html_table(t)) for t in content.tables.get("runs", [])],
        pictures=[
            (title, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(), caption)
            for title, path, caption in pictures
        ],
        provenance=provenance_lines(content),
        commands=content.provenance["trainings"]["commands"],
        written=content.provenance["report"]["written"],
    )


def _earlier_files(target: Path) -> list[str]:
    """Tables and figures that the report before this one wrote there."""
    try:
        files = json.loads((target / "report.json").read_text(encoding="utf-8"))["files"]
        return [name for name in files if name.startswith(("tables/", "figures/")) and ".." not in name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def build_study_report(
    study: str | PathLike[str],
    out_dir: str | PathLike[str] | None = None,
    figures: bool = True,
    margin: float = 0.01,
    seed: int = 0,
    progress: Callable[[str], Any] = lambda line: None,
) -> Path:
    """Write the report of a study, finished or not.

    Args:
        study: the study's folder or YAML file.
        out_dir: where to write; default `report` in the study's folder. Gets `report.html` (one file, no network),
            `report.md`, `report.json` (every number), `tables/NAME.csv|.tex|.md` and `figures/*.png`.
        figures: whether to draw the figures.
        margin: margin of "not inferior", Dice fraction above 0.
        seed: seed of bootstrap and resampling.
        progress: told what is being done.

    Returns:
        The path of `report.html`.

    Raises:
        InputError: there is no study, nothing has been scored, the margin is out of range, or the folder cannot be
            written to.
    """
    if not 0 < margin < 1:
        raise InputError("margin", f"{100 * margin:g} points of Dice", "above 0, below 100", "Choose a margin.")
    progress("reading the runs")
    results = load_study(study)
    target = Path(out_dir) if out_dir is not None else results.folder / "report"
    make_folder(target)
    progress("tests and tables")
    content = gather(results, margin, seed)
    pictures: list[Picture] = []
    if figures:
        from grn_monai.report.study.figures import study_figures

        progress("figures")
        pictures = study_figures(results, target / "figures")
    before = _earlier_files(target)
    files = [f"figures/{path.name}" for _, path, _ in pictures]
    for table in content.all_tables:
        for ending, write in (("csv", csv_table), ("tex", tex_table), ("md", markdown_table)):
            files.append(f"tables/{table.key}.{ending}")
            write_whole(target / files[-1], write(table))
    for name in sorted(set(before) - set(files)):  # a table that this study has no more would be taken for its own
        (target / name).unlink(missing_ok=True)
    write_whole(target / "report.md", report_markdown(content, pictures, target))
    write_whole(target / "report.json", json_text(_json(content, pictures, files, margin)))
    return write_whole(target / "report.html", _html(content, pictures))
