"""What the values of a label volume are called."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.labels import CT_MUSCLES, LUMBAR_MUSCLE, MRI_MUSCLES, TOTALSEGMENTATOR_MUSCLES

__all__ = ["NAME_SETS", "foreground", "parse_names"]

NAME_SETS: dict[str, Mapping[int, str]] = {
    "lumbar": LUMBAR_MUSCLE,
    "ct": CT_MUSCLES,
    "mri": MRI_MUSCLES,
    "totalsegmentator": {value: CT_MUSCLES[label] for value, label in TOTALSEGMENTATOR_MUSCLES.items()},
}
"""Sets of names that an option may call by one word."""

_EXPECTED = (
    f"{', '.join(NAME_SETS)}, a JSON file (a cohort's, a bundle's metadata.json, or values to names), or such as "
    "1=psoas left,2=psoas right"
)
_MEND = "Correct --names."


def foreground(names: Mapping[Any, Any], where: str) -> dict[int, str]:
    """Values above 0, in their order, to names.

    Raises:
        InputError: a value that is no whole number from 0 to 255, an empty name, or nothing but background.
    """
    found: dict[int, str] = {}
    for value, name in names.items():
        text = str(value).strip()
        if not re.fullmatch(r"\d{1,3}", text) or int(text) > 255 or not isinstance(name, str) or not name.strip():
            raise InputError(where, f"{value!r}: {name!r}", "a value from 0 to 255 and a name", _MEND)
        found[int(text)] = name.strip()
    found = {value: found[value] for value in sorted(found) if value > 0}
    if not found:
        raise InputError(where, "no name of a value above 0", "at least one muscle", _MEND)
    if len(set(found.values())) < len(found):
        raise InputError(where, "a name of two values", "a name of its own for each value", _MEND)
    return found


def _of_file(path: Path) -> dict[int, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"no valid JSON ({error})", _EXPECTED, _MEND) from error
    if isinstance(content, dict) and "network_data_format" in content:
        try:
            content = content["network_data_format"]["outputs"]["pred"]["channel_def"]
        except (KeyError, TypeError) as error:
            expected = "network_data_format.outputs.pred.channel_def"
            raise InputError(path, f"a bundle's metadata without {error}", expected, _MEND) from error
        if isinstance(content, dict) and set(content) == {"0"}:  # one sigmoid output; its label volumes hold 0 and 1
            content = {"1": content["0"]}
    elif isinstance(content, dict) and "labels" in content:
        content = content["labels"]
    if not isinstance(content, dict):
        raise InputError(path, f"a JSON {type(content).__name__}", _EXPECTED, _MEND)
    return foreground(content, str(path))


def parse_names(text: str) -> dict[int, str]:
    """Label value to name, background left out.

    Args:
        text: one of `NAME_SETS`, a JSON file, or pairs such as ``1=psoas left,2=psoas right``.

    Raises:
        InputError: it is none of these, or names no muscle.
    """
    if text.lower() in NAME_SETS:
        return foreground(NAME_SETS[text.lower()], "--names")
    if "=" in text and not Path(text).is_file():
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        values = [value.strip() for value, _, _ in pairs]
        if len(set(values)) < len(values):
            raise InputError("--names", f"a value twice in {text!r}", "each value once", _MEND)
        return foreground({value: name for value, _, name in pairs}, "--names")
    if not Path(text).is_file():
        raise InputError("--names", repr(text), _EXPECTED, _MEND)
    return _of_file(Path(text))
