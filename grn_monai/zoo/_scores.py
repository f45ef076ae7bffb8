"""The scores of packed weights: read from an evaluation of them, and written into the bundle's page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from grn_monai.errors import InputError
from grn_monai.handlers.record import sha256
from grn_monai.options import flag

__all__ = ["Scores", "performance", "read_scores"]

KINDS = ("slice", "volume", "decoded")
"""Predictions of layers that are scored; of muscles, it is the volume alone."""
_MEND = "Give the folder that the bundle's evaluate config wrote for these weights."


class Scores(NamedTuple):
    """What one evaluation of packed weights measured."""

    weights: str
    """Name of the file with the weights, such as ``model.pt``."""
    section: str
    """Section of the cohort, such as ``test``."""
    sge: bool | None
    """Whether S(G(x)) was scored; None for a bundle without G."""
    scans: int | None
    means: dict[str, float]
    """Mean Dice (0 to 1) by kind of prediction: slice, fused volume, decoded volume; of muscles, volume alone."""

    @property
    def metrics(self) -> dict[str, float]:
        """As ``eval_metrics`` names them: ``test_mean_dice_sge_decoded``, without ``sge`` of S(x)."""
        middle = "_sge" if self.sge else ""
        return {f"{self.section}_mean_dice{middle}_{kind}": round(mean, 4) for kind, mean in self.means.items()}


def read_scores(evaluation: Path, digests: Mapping[str, str], name: str) -> Scores:
    """The scores of an evaluation, if it is one of these weights.

    Args:
        evaluation: the folder that it wrote (``metrics.json``, ``run.json``).
        digests: name of the file with the weights by its SHA-256 digest.
        name: what the bundle's metadata has as ``name``.

    Raises:
        InputError: the folder holds no finished evaluation, or that of another bundle or of other weights, or cannot
            tell of which weights it is.
    """
    file, known = Path(evaluation) / "metrics.json", Path(evaluation) / "run.json"
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))
        means = {kind: float(scores[kind]["mean"]) for kind in _kinds(scores)}
        if not all(math.isfinite(mean) for mean in means.values()):
            raise ValueError("NaN")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(file, f"no scores ({type(error).__name__})", "scores of an evaluation", _MEND) from error
    try:
        record = json.loads(known.read_text(encoding="utf-8"))
        config, resolved = dict(record["config"]), dict(record.get("resolved") or {})
        settings = {**config, **resolved}
        section = settings["section"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(known, f"no record ({type(error).__name__})", "that of an evaluation", _MEND) from error
    if record.get("status") != "completed":
        found = f"an evaluation with the status {record.get('status')!r}"
        raise InputError(known, found, "a completed one", "Evaluate again.")
    theirs = (config.get("_meta_") or {}).get("name")
    if theirs is not None and theirs != name:
        raise InputError(known, f"an evaluation of the bundle {theirs!r}", repr(name), _MEND)
    digest = _digest(known, record, resolved)
    if digest not in digests:
        found = f"an evaluation of other weights ({resolved.get('ckpt_path')}, SHA-256 {digest[:12]}…)"
        packed = ", ".join(f"{file} {key[:12]}…" for key, file in digests.items())
        raise InputError(known, found, f"one of {packed}", _MEND)
    scans = record.get("scans")
    sge = flag(settings["sge"]) if "sge" in settings else None
    return Scores(digests[digest], str(section), sge, len(scans) if isinstance(scans, list) else None, means)


def _kinds(scores: Mapping[str, Any]) -> tuple[str, ...]:
    """What an evaluation scores: one of muscles says so in its entry ``volume``."""
    return ("volume",) if "muscles" in scores["volume"] else KINDS


def _digest(known: Path, record: Mapping[str, Any], resolved: Mapping[str, Any]) -> str:
    """Of the weights that were scored; of records without it, that of the file as it lies there now."""
    if isinstance(record.get("ckpt_sha256"), str):
        return str(record["ckpt_sha256"])
    path = resolved.get("ckpt_path")
    if not isinstance(path, str) or not Path(path).is_file():
        found = f"no digest of the weights, and no file {path} any more"
        raise InputError(known, found, "an evaluation that tells its weights", "Evaluate again.")
    return sha256(path)


def performance(scores: Sequence[Scores]) -> str:
    """What a pack's page says of its weights."""
    if not scores:
        return "Not measured for these weights."
    kinds = list(scores[0].means)
    muscles = kinds == ["volume"]
    predicts = {None: "S(x)", False: "S(x)", True: "S(G(x))"}
    heads = {"slice": "slices", "volume": "Dice" if muscles else "fused", "decoded": "decoded"}
    rows = [["weights", "predicts", "section", "scans", *(heads[kind] for kind in kinds)]]
    rows.append(["---"] * 3 + ["---:"] * (1 + len(kinds)))
    for one in scores:
        cells = [f"`{one.weights}`", predicts[one.sge], f"`{one.section}`", str(one.scans or "")]
        rows.append(cells + [f"{100 * one.means[kind]:.1f}" for kind in kinds])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    what = "Mean Dice of the six layers in percent, of the weights in this pack: of slices, of the fused\nand of the"
    what += " decoded volumes."
    if muscles:
        what = "Mean Dice of the muscles in percent, of the weights in this pack, over whole volumes."
    return (
        f"{table}\n\n{what} `data_source` in `metadata.json` says on what data; `eval_metrics`\n"
        "there holds the same numbers as fractions."
    )
