"""What the stages of `benchmarks.active_learning` say together, and the tables of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import ConstantInputWarning, spearmanr

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


def _spearman(left: Mapping[str, Mapping[str, Any]], score: str) -> float | None:
    pairs = [(s[score], s["decoded"]) for s in left.values() if s[score] is not None]
    if len(pairs) < 3:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        value = float(spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic)
    return None if np.isnan(value) else value
