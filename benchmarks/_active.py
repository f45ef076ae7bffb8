"""What the stages of `benchmarks.active_learning` say together, and the tables of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import ConstantInputWarning, spearmanr

from benchmarks._pages import markdown, plus_minus
from benchmarks.methods import spread

KINDS = ("slice", "decoded")
SCORES = ("disagreement", "planes", "sge", "entropy", "planes_percent", "sge_percent")
TITLES = {
    "disagreement": "disagreement", "planes": "planes alone", "sge": "S(x) against S(G(x)) alone",
    "entropy": "entropy", "random": "random", "planes_percent": "planes, % of tissue voxels",
    "sge_percent": "S(x) against S(G(x)), % of tissue voxels",
}  # fmt: skip


def summary(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Dice of the test section by strategy and number of scans, and the difference to random of the same seed."""
    base = {(s["seed"], s["scans"]): s["test"] for s in stages if s["strategy"] == "random"}
    result: dict[str, Any] = {}
    for strategy in dict.fromkeys(s["strategy"] for s in stages):
        for size in sorted({s["scans"] for s in stages}):
            group = [s for s in stages if s["strategy"] == strategy and s["scans"] == size]
            if not group:
                continue
            entry: dict[str, Any] = {kind: spread([s["test"][kind] for s in group]) for kind in KINDS}
            paired = [(s["test"], base[key]) for s in group if (key := (s["seed"], size)) in base]
            if paired and strategy != "random":
                entry["minus_random"] = {k: spread([own[k] - other[k] for own, other in paired]) for k in KINDS}
            result.setdefault(strategy, {})[str(size)] = entry
    return result


def correlations(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rank correlation of each score with the true Dice (decoded) over the scans left in the pool, by size.

    Stages that strategies share (that of the first scan) count once.
    """
    models = {(s["seed"], *s["labelled"]): s for s in stages}
    result: dict[str, Any] = {}
    for size in sorted({s["scans"] for s in stages}):
        group = [s for s in models.values() if s["scans"] == size]
        found = {score: [r for s in group if (r := _spearman(s["left"], score)) is not None] for score in SCORES}
        result[str(size)] = {score: spread(values) for score, values in found.items() if values}
    return result


def chosen_dice(stages: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """True Dice (decoded) that the chosen scans, and all they were chosen from, had before: means by strategy."""
    before = {(s["strategy"], s["seed"], s["scans"]): s for s in stages}
    sizes = sorted({s["scans"] for s in stages})
    found: dict[str, list[tuple[float, float]]] = {}
    for smaller, size in pairwise(sizes):
        for (strategy, seed, scans), stage in before.items():
            if scans == size and (earlier := before.get((strategy, seed, smaller))):
                left = {name: values["decoded"] for name, values in earlier["left"].items()}
                if own := [left[name] for name in stage["labelled"] if name in left]:
                    found.setdefault(strategy, []).append((fmean(own), fmean(left.values())))
    return {strategy: (fmean(a for a, _ in pairs), fmean(b for _, b in pairs)) for strategy, pairs in found.items()}


def _spearman(left: Mapping[str, Mapping[str, Any]], score: str) -> float | None:
    pairs = [(s[score], s["decoded"]) for s in left.values() if s[score] is not None]
    if len(pairs) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        value = float(spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic)
    return None if np.isnan(value) else value


def active_table(result: Mapping[str, Any]) -> str:
    """Dice after each size by strategy, the paired differences to random, and what the scores tell."""
    sizes = [str(size) for size in result["settings"]["sizes"]]
    return "\n\n".join((_dice(result, sizes), _differences(result, sizes), _correlations(result, sizes)))


def _dice(result: Mapping[str, Any], sizes: Sequence[str]) -> str:
    rows = [["strategy", *(_counted(n, "scan") for n in sizes)], ["---"] + ["---:"] * len(sizes)]
    seeds = _count(result)
    for kind in ("decoded", "slice"):
        for strategy, by_size in result["summary"].items():
            cells = [_spread(by_size[n][kind]) + _fewer(by_size[n][kind], seeds) if n in by_size else "" for n in sizes]
            rows.append([f"{TITLES[strategy]}, {'slices' if kind == 'slice' else kind}", *cells])
    settings, cohort = result["settings"], result["cohort"]
    kind = "simulated " if result["simulated"] else ""
    note = (
        f"Mean Dice of the six layers in percent on {cohort['test']} {kind}test scans with S(G(x)), after annotating "
        f"that many of {cohort['training']} {kind}scans: mean ± standard deviation over {_counted(seeds, 'seed')}. "
        f"Each training starts anew: GRN+ with a generator of width {settings['base_channels']}, about "
        f"{settings['iterations']} iterations of {settings['batch']} slices of {settings['size']} × "
        f"{settings['size']}, the better of {settings['validations']} checkpoints by {cohort['validation']} validation "
        "scans. The first scan, drawn by the seed, is the same for all strategies."
    )
    return markdown(rows) + "\n\n" + note


def _differences(result: Mapping[str, Any], sizes: Sequence[str]) -> str:
    later = sizes[1:]
    rows = [["minus random", *(f"{n} scans" for n in later)], ["---"] + ["---:"] * len(later)]
    for kind in ("decoded", "slice"):
        for strategy, by_size in result["summary"].items():
            if strategy == "random":
                continue
            cells = []
            for n in later:
                change = by_size.get(n, {}).get("minus_random")
                cells.append(_spread(change[kind], "+", each=True) if change else "")
            rows.append([f"{TITLES[strategy]}, {'slices' if kind == 'slice' else kind}", *cells])
    note = (
        "Difference in percentage points to random of the same seed: mean ± standard deviation, in brackets that of "
        "each seed. "
    )
    return markdown(rows) + "\n\n" + note + _verdict(result)


def _verdict(result: Mapping[str, Any]) -> str:
    """In how many comparisons a strategy was above another, and how bad the scans were that it chose."""
    names, stages = list(result["summary"]), result["stages"]
    pairs = [(name, "random") for name in names if name != "random"] + [("disagreement", "entropy")]
    sentences = [text for one, other in pairs if (text := _above(stages, one, other))]
    text = f"Decoded, {'; '.join(sentences)}." if sentences else ""
    if chosen := chosen_dice(stages):
        dice = ", ".join(f"{TITLES[s]} {100 * own:.1f} (of {100 * pool:.1f})" for s, (own, pool) in chosen.items())
        text += f" Mean Dice, before their annotation, of the scans chosen (of all that were left): {dice}."
    return text


def _above(stages: Sequence[Mapping[str, Any]], one: str, other: str) -> str:
    """How often, seed by seed and size by size, a strategy was above another; the first scan is the same for all."""
    first = min(s["scans"] for s in stages)
    dice = {(s["strategy"], s["seed"], s["scans"]): s["test"]["decoded"] for s in stages if s["scans"] > first}
    found = [v - dice[other, *key] for (name, *key), v in dice.items() if name == one and (other, *key) in dice]
    if not found:
        return ""
    equal = sum(abs(value) < 1e-9 for value in found)
    same = f" and the same in {equal}" if equal else ""
    above = sum(value >= 1e-9 for value in found)
    return f"{TITLES[one]} was above {TITLES[other]} in {above} of {len(found)} comparisons{same}"


def _correlations(result: Mapping[str, Any], sizes: Sequence[str]) -> str:
    found = result["correlations"]
    models = {n: max((values["n"] for values in found[n].values()), default=0) for n in sizes if n in found}
    rows = [["score", *(f"{_counted(n, 'scan')} ({_counted(k, 'model')})" for n, k in models.items())]]
    rows.append(["---"] + ["---:"] * len(models))
    for score in SCORES:
        cells = [_spread(found[n][score], "+", 1, 2) if score in found[n] else "" for n in models]
        rows.append([TITLES[score], *cells])
    note = (
        "Spearman correlation of each score with the true Dice (decoded) over the scans not annotated yet, by the "
        "number of scans that the model was trained on: mean ± standard deviation over models. −1 is a score that "
        "finds the worst scans without fail, 0 one that knows nothing."
    )
    return markdown(rows) + "\n\n" + note


def _count(result: Mapping[str, Any]) -> int:
    return max(entry["decoded"]["n"] for by_size in result["summary"].values() for entry in by_size.values())


def _counted(count: str | int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (str(count) != "1")


def _fewer(values: Mapping[str, Any], seeds: int) -> str:
    """Where a run is not finished yet."""
    return "" if values["n"] == seeds else f" ({_counted(values['n'], 'seed')})"


def _spread(values: Mapping[str, Any], sign: str = "", factor: float = 100, digits: int = 1, each: bool = False) -> str:
    single = ", ".join(f"{factor * value:{sign}.{digits}f}" for value in values["values"])
    return plus_minus(values, sign, factor, digits) + (f" ({single})" if each else "")
