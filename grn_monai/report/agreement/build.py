"""Runs to `agreement.html`, `agreement.md`, `agreement.json`, tables and figures."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError, listed
from grn_monai.files import make_folder, write_whole
from grn_monai.metrics.files import json_text
from grn_monai.metrics.muscle_summary import MUSCLE_CONVENTIONS
from grn_monai.report.agreement.anova import Anova, analyse, needs_pingouin
from grn_monai.report.agreement.load import AgreementData, load_runs
from grn_monai.report.agreement.posthoc import PostHoc, compare_with_best
from grn_monai.report.agreement.tables import (
    TITLES,
    anova_tables,
    comparison_table,
    post_hoc_table,
    score_tables,
    volume_tables,
)
from grn_monai.report.agreement.volumes import VolumeAgreement, volume_agreement
from grn_monai.report.page import page_template
from grn_monai.report.study.formats import (
    StudyTable,
    csv_table,
    escape_markdown,
    html_table,
    markdown_table,
    tex_table,
)

__all__ = ["ANALYSED", "CONVENTIONS", "build_agreement_report"]

ANALYSED = ("dice", "jaccard", "conformity", "tpr", "tnr", "ppv", "hd95_mm", "asd_mm")
"""The measures that can be analysed: of each, more or less is better."""

SECTIONS = {
    "scores": "Overlap, volumes and distances",
    "volumes": "Agreement of the volumes",
    "anova": "Analysis of variance",
    "post-hoc": "The best model against the others",
}

CONVENTIONS: dict[str, str] = {
    "unit": "the subject: several scans of one are averaged first",
    **{key: MUSCLE_CONVENTIONS[key] for key in ("overlap", "undefined", "tnr", "volume", "surface")},
    "icc": "ICC(2,1): two-way random, absolute agreement, single (Shrout and Fleiss 1979), truth and prediction as the "
    "two raters; intervals by F (McGraw and Wong 1996) and by Fisher's z, tanh(artanh ICC ± 1.96/√(n − 3))",
    "bland_altman": "bias = mean of prediction − truth, limits bias ± 1.96·SD (N − 1); intervals by Student's t, "
    "standard errors after Bland and Altman 1999",
    "anova": "all factors within subjects; subjects with a missing, undefined or infinite cell are left out; partial "
    "η² = F·df1/(F·df1 + df2)",
    "corrected": "Greenhouse–Geisser: both degrees of freedom times ε; Mauchly's W tests sphericity (p < 0.05: take "
    "the corrected p)",
    "post_hoc": "two-sided paired t-tests over subjects, α = 0.05",
}
"""What the numbers mean, written beside them."""

Picture = tuple[str, Path, str]
"""Title, PNG file and caption."""


def _figures(
    data: AgreementData, volumes: Sequence[Mapping[str, VolumeAgreement]], anova: Anova, folder: Path
) -> list[Picture]:
    from grn_monai.report.agreement.figures import bland_altman_figure, correlation_figure, qq_figure

    pictures = []
    for c, found in enumerate(volumes):
        name = data.name(c)
        path = write_whole(folder / f"bland-altman-{data.key(c)}.png", bland_altman_figure(found))
        caption = (
            "Volumes in ml. Lines: bias and limits of agreement with their 95 % bands (of the limits by Bland and "
            "Altman's approximation of 1986; the table has the exact ones); light line: no difference."
        )
        pictures.append((f"Bland–Altman: {name}", path, caption))
        path = write_whole(folder / f"correlation-{data.key(c)}.png", correlation_figure(found))
        pictures.append((f"Predicted and true volumes: {name}", path, "Dashed: prediction = truth."))
    if anova.normality is not None:
        path = write_whole(folder / f"qq-{anova.measure}.png", qq_figure(anova.normality.residuals))
        title = f"Residuals of the analysis of variance, {TITLES[anova.measure]}"
        pictures.append((title, path, "Left: quantiles against those of a normal distribution; right: histogram."))
    return pictures


def _facts(data: AgreementData, measure: str) -> list[tuple[str, str]]:
    factors = "; ".join(f"{name} ({', '.join(levels)})" for name, levels in data.factors.items())
    return [
        ("models", "; ".join(data.name(c) for c in range(len(data.conditions)))),
        ("factors", factors or "none: one model"),
        ("subjects", str(len(data.subjects))),
        ("muscles", ", ".join(data.muscles)),
        ("analysed measure", TITLES[measure]),
    ]


def _notes(data: AgreementData, anova: Anova, post_hoc: PostHoc | None) -> list[str]:
    notes = list(data.notes)
    for c in range(len(data.conditions)):
        for m, muscle in enumerate(data.muscles):
            for measure, what in (("truth_volume_ml", "true"), ("volume_ml", "predicted")):
                empty = [s for s, v in zip(data.subjects, data.of(measure)[c, :, m], strict=True) if v == 0]
                if empty:
                    notes.append(f"{data.name(c)}: no {what} {muscle} in {listed(empty)}.")
    if anova.note:
        notes.append(f"No analysis of variance of {TITLES[anova.measure]}: {anova.note}")
    if anova.left_out:
        who = "; ".join(f"{subject} ({why})" for subject, why in anova.left_out.items())
        notes.append(f"Left out of the analysis of variance: {who}.")
    if post_hoc is None and len(data.conditions) > 1:
        notes.append(f"No post-hoc tests: a model has no finite {TITLES[anova.measure]} at all.")
    return notes


def _markdown(
    facts: Sequence[tuple[str, str]], notes: Sequence[str], tables: Sequence[StudyTable], pictures: Sequence[Picture]
) -> str:
    lines = ["# Agreement of muscle segmentations with the truth", "", "For research use only, not for diagnosis.", ""]
    lines += [f"* **{escape_markdown(name)}**: {escape_markdown(value)}" for name, value in facts]
    if notes:
        lines += ["", "## Notes", "", *(f"* {escape_markdown(note)}" for note in notes)]
    for place, heading in SECTIONS.items():
        chosen = [table for table in tables if table.place == place]
        if chosen:
            lines += ["", f"## {heading}", "", *(markdown_table(table) for table in chosen)]
    if pictures:
        lines += ["", "## Figures", ""]
        for title, path, caption in pictures:
            lines += [f"### {escape_markdown(title)}", "", f"![{title}](figures/{path.name})", "", caption, ""]
    lines += ["", "## What the numbers mean", ""]
    lines += [f"* **{escape_markdown(name)}**: {escape_markdown(text)}" for name, text in CONVENTIONS.items()]
    return "\n".join(lines) + "\n"


def _earlier_files(target: Path) -> list[str]:
    """Tables and figures that the report before this one wrote there."""
    try:
        files = json.loads((target / "agreement.json").read_text(encoding="utf-8"))["files"]
        return [name for name in files if name.startswith(("tables/", "figures/")) and ".." not in name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _json(
    data: AgreementData,
    volumes: Sequence[Mapping[str, VolumeAgreement]],
    anova: Anova,
    post_hoc: PostHoc | None,
    notes: Sequence[str],
    files: Sequence[str],
) -> dict[str, Any]:
    names = [data.name(c) for c in range(len(data.conditions))]
    return {
        "factors": data.factors,
        "models": {name: [str(path) for path in paths] for name, paths in zip(names, data.files, strict=True)},
        "subjects": data.subjects,
        "muscles": data.muscles,
        "volumes": {
            name: {muscle: asdict(agreement) for muscle, agreement in found.items()}
            for name, found in zip(names, volumes, strict=True)
        },
        "anova": asdict(anova),
        "post_hoc": None if post_hoc is None else {"best_model": names[post_hoc.best], **asdict(post_hoc)},
        "notes": list(notes),
        "conventions": CONVENTIONS,
        "files": list(files),
    }


def build_agreement_report(
    runs: Sequence[str],
    out_dir: str | PathLike[str],
    measure: str = "dice",
    figures: bool = True,
) -> Path:
    """Write the agreement report of one or more evaluations of muscle cohorts.

    Args:
        runs: `FOLDER` or `FACTOR=LEVEL,…:FOLDER`, see `grn_monai.report.agreement.load.parse_run`.
        out_dir: gets `agreement.html` (one file, no network), `agreement.md`, `agreement.json` (every number),
            `tables/NAME.csv|.tex|.md` and `figures/*.png`.
        measure: what the analysis of variance and the post-hoc tests take, one of `ANALYSED`.
        figures: whether to draw the figures.

    Returns:
        The path of `agreement.html`.

    Raises:
        InputError: runs that cannot be read together, an unknown measure, no pingouin, or an unwritable folder.
    """
    if measure not in ANALYSED:
        raise InputError("measure", repr(measure), f"one of {', '.join(ANALYSED)}", "Choose one of them.")
    needs_pingouin()
    data = load_runs(runs)
    target = Path(out_dir)
    make_folder(target)
    before = _earlier_files(target)
    truth, predicted = data.of("truth_volume_ml"), data.of("volume_ml")
    volumes = [
        {
            muscle: volume_agreement(*(values[c, data.present[c, :, m], m] for values in (truth, predicted)))
            for m, muscle in enumerate(data.muscles)
        }
        for c in range(len(data.conditions))
    ]
    anova, post_hoc = analyse(data, measure), compare_with_best(data, measure)
    comparison = comparison_table(data, measure)
    tables = [
        *([comparison] if comparison else []),
        *score_tables(data),
        *volume_tables(data, volumes),
        *anova_tables(anova),
        *([post_hoc_table(data, measure, post_hoc)] if post_hoc else []),
    ]
    pictures: list[Picture] = []
    if figures:
        pictures = _figures(data, volumes, anova, target / "figures")
    files = [f"figures/{path.name}" for _, path, _ in pictures]
    for table in tables:
        for ending, write in (("csv", csv_table), ("tex", tex_table), ("md", markdown_table)):
            files.append(f"tables/{table.key}.{ending}")
            write_whole(target / files[-1], write(table))
    for name in sorted(set(before) - set(files)):  # a table that these runs have no more would be taken for theirs
        (target / name).unlink(missing_ok=True)
    facts, notes = _facts(data, measure), _notes(data, anova, post_hoc)
    write_whole(target / "agreement.md", _markdown(facts, notes, tables, pictures))
    write_whole(target / "agreement.json", json_text(_json(data, volumes, anova, post_hoc, notes, files)))
    page = page_template("agreement.html.j2").render(
        facts=facts,
        notes=notes,
        sections=[
            (place, heading, [(table, html_table(table)) for table in tables if table.place == place])
            for place, heading in SECTIONS.items()
            if any(table.place == place for table in tables)
        ],
        pictures=[
            (title, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(), caption)
            for title, path, caption in pictures
        ],
        conventions=list(CONVENTIONS.items()),
        written=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    return write_whole(target / "agreement.html", page)
