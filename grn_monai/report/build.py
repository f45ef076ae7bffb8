"""A run folder to one self-contained `report.html` and a `report.json`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.files import write_whole
from grn_monai.labels import LAYER_NAMES
from grn_monai.metrics.files import json_text
from grn_monai.metrics.statistics import PairedDifference
from grn_monai.report import figures, tables
from grn_monai.report.enhancement import EnhancementSection, enhancement_section
from grn_monai.report.load import RunFolder, read_run
from grn_monai.report.page import facts, page_template
from grn_monai.report.palette import ERROR_COLOUR, LAYER_COLOURS, method_colours
from grn_monai.report.panels import PlaneView, load_scan, plane_view

__all__ = ["build_report"]


@dataclass(frozen=True)
class _ScanSection:
    """Everything shown of one scan."""

    subject: str
    scan: str
    role: str
    views: Sequence[PlaneView]
    thickness: str | None


def _choose_scans(run: RunFolder, kind: str | None, count: int) -> list[tuple[tuple[str, str], str]]:
    """Scans to show with their role: those asked for, else the worst, the median and the best by mean Dice."""
    if run.scans:
        chosen = [key for key in run.items if key[1] in run.scans]
        run.notes += [
            f"Scan {s} of report.yaml is not in the cohort." for s in run.scans if s not in {k[1] for k in chosen}
        ]
        return [(key, "") for key in chosen]
    if kind is None or count < 1:
        return []
    table = tables.scan_table(run.methods, kind)
    ranked = [(cells[0].text, scan) for scan, cells in table.rows]
    ranked = [key for key in ranked if key in run.items]
    if not ranked:
        return []
    last = len(ranked) - 1
    roles = {last // 2: "median Dice", 0: "lowest Dice", last: "highest Dice"} if last else {0: ""}
    picked = dict(list(roles.items())[:count])
    return [(ranked[i], picked[i]) for i in sorted(picked)]


def _scan_sections(run: RunFolder, kind: str | None, count: int) -> list[_ScanSection]:
    sections = []
    for key, role in _choose_scans(run, kind, count):
        try:
            scan = load_scan(run.items[key], run.methods, *run.depth)
        except (ValueError, OSError) as error:
            run.notes.append(f"Scan {key[1]} is not shown: {error}")
            continue
        run.notes += [f"Scan {key[1]}: {note}" for note in scan.notes]
        shown = [method for method in run.methods if method.name in scan.predictions]
        views = [plane_view(scan, plane, shown) for plane in ("sagittal", "transverse")]
        sections.append(_ScanSection(*key, role, views, figures.thickness_figure(scan, shown, f"thickness-{key}")))
    return sections


def _provenance(run: RunFolder) -> dict[str, Any]:
    from grn_monai.handlers.record import provenance

    cohort = {k: v for k, v in run.cohort.items() if not isinstance(v, list)}
    cohort["scans"] = {k: len(v) for k, v in run.cohort.items() if isinstance(v, list)}
    return {
        "runs": {training.name: training.record for training in run.trainings},
        "cohort": cohort if run.cohort else None,
        "report": {**provenance(), "written": time.strftime("%Y-%m-%dT%H:%M:%S%z")},
    }


def _plain_differences(change: Mapping[str, Mapping[str, PairedDifference]], name: str) -> dict[str, Any]:
    return {kind: difference._asdict() for kind, difference in change.get(name, {}).items()}


def _enhancement_entry(section: EnhancementSection | None) -> dict[str, Any]:
    if section is None:
        return {}
    return {"enhancement": {**section.content, "claims": [asdict(claim) for claim in section.claims]}}


def _render(
    run: RunFolder,
    change: Mapping[str, Any],
    enhancements: Mapping[str, EnhancementSection],
    provenance: Mapping[str, Any],
    count: int,
) -> str:
    kind = tables.best_kind(run.methods)
    layers = [
        (heading, table)
        for key, heading in tables.KINDS.items()
        if key in ("slice", "volume", "decoded") and (table := tables.layer_table(run.methods, key))
    ]
    scans = _scan_sections(run, kind, count)
    # One map for both plots: a training has the colour of the evaluation of its name.
    colours = method_colours(list(dict.fromkeys([m.name for m in run.methods] + [t.name for t in run.trainings])))
    first = run.methods[0].metrics
    sizes: Mapping[str, Any] = next((first[k] for k in ("slice", "decoded", "volume") if k in first), {})
    return page_template("report.html.j2").render(
        run=run,
        sizes=sizes,
        kind_title=tables.KINDS.get(kind or "", ""),
        overall=tables.overall_table(run.methods, change),
        planes=tables.plane_table(run.methods),
        layers=layers,
        distances=tables.distance_table(run.methods, kind) if kind else [],
        dice_figure=figures.dice_figure(run.methods, kind, colours) if kind else None,
        scan_table=tables.scan_table(run.methods, kind) if kind else None,
        scans=scans,
        enhancements=list(enhancements.values()),
        curves=figures.training_figures(run.trainings, colours),
        legend=[(LAYER_NAMES[label], colour) for label, colour in LAYER_COLOURS.items()],
        error_colour=ERROR_COLOUR,
        facts={training.title: facts(training.record) for training in run.trainings if training.record},
        report_facts=facts(provenance["report"]),
        provenance_json=json_text(provenance),
        written=provenance["report"]["written"],
    )


def build_report(
    run_dir: str | PathLike[str],
    cohort: str | PathLike[str] | None = None,
    out_dir: str | PathLike[str] | None = None,
    scans: int = 3,
    seed: int = 0,
    depth_axis: int | str | None = None,
    depth_reversed: bool | None = None,
) -> Path:
    """Write `report.html` (one file, no network) and `report.json` of a run folder.

    Args:
        run_dir: run folder, laid out as `grn_monai.report.load` describes.
        cohort: cohort folder or file; default RUN_DIR/cohort.
        out_dir: where to write; default `run_dir`.
        scans: how many scans to picture, 0 to 3: the median, then the worst, then the best one by mean Dice.
        seed: seed of the bootstrap intervals of the differences.
        depth_axis: where depth runs in the files, see `grn_monai.transforms.DepthLast`; default report.yaml's, or 2.
        depth_reversed: whether depth decreases along that axis; default report.yaml's, or False.

    Returns:
        The path of `report.html`. What was missing stands in its notes.

    Raises:
        InputError: if the folder holds no evaluation, or an option or the named cohort is faulty.
    """
    run = read_run(run_dir, cohort)
    run.depth = (
        run.depth[0] if depth_axis is None else depth_axis,
        run.depth[1] if depth_reversed is None else depth_reversed,
    )
    change = tables.differences(run.methods, seed)
    provenance = _provenance(run)
    enhancements = {m.name: section for m in run.methods if (section := enhancement_section(m, run.notes))}
    html = _render(run, change, enhancements, provenance, scans)
    content = {
        "title": run.title,
        "simulated": run.simulated,
        "methods": {
            method.name: {
                "title": method.title,
                **{kind: scores for kind, scores in method.metrics.items() if kind != "conventions"},
                "difference_to_first": _plain_differences(change, method.name),
                **_enhancement_entry(enhancements.get(method.name)),
            }
            for method in run.methods
        },
        "conventions": run.methods[0].metrics.get("conventions"),
        "notes": run.notes,
        "provenance": provenance,
    }
    target = Path(out_dir) if out_dir is not None else run.folder
    write_whole(target / "report.json", json_text(content))
    return write_whole(target / "report.html", html)
