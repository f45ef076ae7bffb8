"""The README's table of a study, from the report.json that `grn-monai report` wrote."""

from __future__ import annotations

from typing import Any

__all__ = ["study_table"]

SHOWN = ("supervised", "semi-supervised", "grn", "control", "outside")
"""Groups of methods that stand in the README; networks and ablations stand in the report."""


def _cell(score: dict[str, Any] | None, reference: dict[str, Any] | None) -> str:
    """Mean Dice in percent with its spread over seeds.

    Where the seeds are not those of the reference, the difference to it over the seeds that both have: another seed has
    other labelled subjects, so that the means themselves cannot be compared.
    """
    if score is None:
        return "–"
    overall = score["dice"]["overall"]
    spread = f" ± {100 * overall['seed_sd']:.1f}" if overall.get("seed_sd") is not None else ""
    text = f"{100 * overall['mean']:.1f}{spread}"
    other = reference["dice"]["overall"] if reference else overall
    if overall["seeds"] != other["seeds"]:
        means, others = (dict(zip(x["seeds"], x["seed_means"], strict=True)) for x in (overall, other))
        if common := [seed for seed in means if seed in others]:
            change = sum(means[seed] - others[seed] for seed in common) / len(common)
            text += f" ({100 * change:+.1f}, {len(common)} seed{'s' * (len(common) > 1)})".replace("-", "−")
    return text


def study_table(report: dict[str, Any]) -> str:
    """Overall Dice of slices by method and share of the labels, what was scored, and the verdicts that were reached.

    Args:
        report: content of a study's report.json.
    """
    scores = [s for s in report["scores"] if s["section"] == report["section"] and s["group"] in SHOWN and s["dice"]]
    cells = {(s["title"], s["fraction"]): s for s in scores}
    fractions = sorted(report["fractions"])
    heads = [f"{100 * f:g} % of the labels" for f in fractions]
    lines = [f"| method | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    titles = list(dict.fromkeys(s["title"] for s in scores))
    for title in titles:
        row = (_cell(cells.get((title, f)), cells.get((titles[0], f))) for f in fractions)
        lines.append(f"| {title} | {' | '.join(row)} |")
    seeds = sorted({seed for s in scores for seed in s["dice"]["overall"]["seeds"]})
    iterations = {r["iterations"] for r in report["runs"] if r["state"] == "done" and r["iterations"]}
    origin = "simulated " if report["simulated"] else ""
    steps = f", {min(iterations):,} training steps each" if len(iterations) == 1 else ""
    spread = "± standard deviation over seeds" if len(seeds) > 1 else "one seed: a few points mean nothing"
    if any(" (" in cell for line in lines[2:] for cell in line.split("|")[2:]):
        spread += f"; in brackets, of fewer seeds: the difference to {titles[0]} over the same ones"
    cohort, least = report["cohort"], f"labelled at {100 * fractions[0]:g} %"
    scored = cohort[f"scored, {report['section']}"]
    note = (
        f"Mean Dice of the six layers in percent over the slices of {origin}test scans ({scored}; {least}: "
        f"{cohort.get(least, '–')}){steps}; {spread}. {report['state']}"
    )
    reached = [v for v in report["verdicts"] if v["verdict"] not in ("not tested", "not shown")]
    verdicts = [f"* {v['claim']}: {v['text']}" for v in reached]
    return "\n".join([*lines, "", note, *(["", *verdicts] if verdicts else [])])
