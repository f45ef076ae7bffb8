"""The order in which to annotate scans."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from grn_monai.active.score import SOURCES, disagreement_score
from grn_monai.errors import InputError
from grn_monai.measure.agreement import QUALITY_FORMAT

__all__ = ["rank", "score_folder"]

_ENDING = "_quality.json"


def rank(scores: Mapping[str, float | None]) -> list[str]:
    """Names of scans, highest score first; equal ones by name; those without a score (None or NaN) last, by name.

    Args:
        scores: name of a scan to its score.
    """

    def key(name: str) -> tuple[bool, float, str]:
        score = scores[name]
        known = score is not None and not math.isnan(score)
        return (not known, -score if known and score is not None else 0.0, name)

    return sorted(scores, key=key)


def score_folder(folder: str | PathLike[str], sources: Sequence[str] = SOURCES) -> dict[str, float | None]:
    """Score of each scan of a folder of predictions, by the name of the scan's file.

    Args:
        folder: holds the NAME_quality.json that inference writes beside its label volumes.
        sources: see `disagreement_score`.

    Returns:
        NAME to score, in order of names; None where a scan has no score.

    Raises:
        InputError: no such folder, no such file in it, or a file that is not what inference wrote.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(path, "no such folder", "a folder of predictions", "Check the path.")
    files = sorted(file for file in path.glob(f"*{_ENDING}") if file.name[0] != ".")
    if not files:
        mend = "Run a bundle's inference with quality numbers (--quality true) into it."
        raise InputError(path, f"no NAME{_ENDING}", "the quality numbers of predictions", mend)
    return {file.name.removesuffix(_ENDING): _score_file(file, sources) for file in files}


def _score_file(file: Path, sources: Sequence[str]) -> float | None:
    mend = "Run the inference of this scan again."
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(file, f"no readable JSON ({error})", "quality numbers", mend) from error
    if not isinstance(content, dict) or content.get("format") != QUALITY_FORMAT:
        raise InputError(file, "another kind of JSON", f"the format {QUALITY_FORMAT!r}", mend)
    try:
        return disagreement_score(content, sources)
    except InputError as error:
        if error.where == "sources":
            raise
        raise InputError(f"{file}: {error.where}", error.found, error.expected, mend) from error
