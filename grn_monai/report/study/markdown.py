"""A study's report as one Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grn_monai.report.study.content import SECTIONS, Content
from grn_monai.report.study.facts import origin_text
from grn_monai.report.study.formats import escape_markdown, markdown_table
from grn_monai.report.study.plan import counted

__all__ = ["provenance_lines", "report_markdown"]

Picture = tuple[str, Path, str]


def _list(lines: Sequence[str]) -> list[str]:
    return [f"* {escape_markdown(line)}" for line in lines]


def _facts(lines: Sequence[tuple[str, str]]) -> list[str]:
    return [f"* **{escape_markdown(name)}**: {escape_markdown(value)}" for name, value in lines]


def report_markdown(content: Content, pictures: Sequence[Picture], folder: Path) -> str:
    """The report.

    Args:
        content: what to show.
        pictures: title, PNG file below `folder`, and caption.
        folder: where the file will lie; pictures are named relative to it.
    """
    results = content.results
    origin = origin_text(results.plan.simulated)
    lines = [f"# {escape_markdown(results.plan.title)}", ""]
    lines += [f"**{origin}** For research use only, not for diagnosis." if origin else "For research use only.", ""]
    lines += [escape_markdown(f"{content.state} Scores of the {content.section} section."), ""]
    lines += [*_facts(content.cohort), ""]
    if content.verdicts:
        lines += ["## The papers’ claims, put to this study", ""]
        lines += [f"**{escape_markdown(content.headline[0])}**", ""]
        lines += [line for text in content.headline[1:] for line in (escape_markdown(text), "")]
        lines += _facts([(v.claim, v.text) for v in content.verdicts if v.verdict != "not tested"])
        lines += ["", "What the abstracts say, of another cohort:", ""]
        lines += [*_facts(list(content.says.items())), ""]
    for place, tables in content.tables.items():
        if place == "runs":
            continue
        lines += [f"## {SECTIONS.get(place, place.capitalize())}", ""]
        for table in tables:
            lines += [markdown_table(table), ""]
    if pictures:
        lines += ["## Figures", ""]
        for title, path, caption in pictures:
            name = path.relative_to(folder).as_posix()
            lines += [f"### {escape_markdown(title)}", "", f"![{escape_markdown(title)}]({name})", ""]
            lines += [escape_markdown(caption), ""]
    lines += ["## Trainings and failures", ""]
    for table in content.tables.get("runs", []):
        lines += [markdown_table(table), ""]
    lines += [*(_list(content.problems) or ["Every planned run is done."]), ""]
    lines += ["## What the numbers mean", "", *_facts(content.conventions), ""]
    lines += ["Known misprints of the papers, which stand beside our numbers as printed:", ""]
    lines += [*_list(content.misprints), ""]
    lines += ["## Where the numbers come from", "", *_facts(provenance_lines(content)), ""]
    lines += ["The first command of each method (STUDY: this study’s folder):", "", "```"]
    lines += [
        f"# {' '.join(title.split())}\n{command}"
        for title, command in content.provenance["trainings"]["commands"].items()
    ]
    lines += ["```", ""]
    return "\n".join(lines)


def provenance_lines(content: Content) -> list[tuple[str, str]]:
    """Commits, versions and machines of the trainings, and what wrote the report."""
    trainings, report = content.provenance["trainings"], content.provenance["report"]
    git = report.get("git") or {}
    changed = git.get("changed_files")
    commit = str(git.get("commit", ""))[:12] + (f" with {counted(changed, 'changed file')}" if changed else "")

    def each(found: dict[str, int]) -> str:
        return "; ".join(
            f"{name} ({counted(count, 'training')})" if len(found) > 1 else name for name, count in found.items()
        )

    lines = [
        ("source of the trainings", each(trainings["commits"])),
        ("machines", each(trainings["machines"])),
        ("versions", ", ".join(f"{name} {' and '.join(found)}" for name, found in trainings["versions"].items())),
        ("report", f"grn-monai report, {commit or 'source unknown'}, {report['written']}"),
    ]
    return [(name, value) for name, value in lines if value]
