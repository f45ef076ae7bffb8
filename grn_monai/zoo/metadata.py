"""A bundle's metadata.json against the schema beside this file, and what a schema cannot say."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError

__all__ = ["load_schema", "read_metadata"]


def load_schema() -> dict[str, Any]:
    """This project's schema of ``metadata.json`` (JSON Schema, draft 2020-12); MONAI's own is another."""
    return dict(json.loads(resources.files("grn_monai.zoo").joinpath("schema.json").read_text(encoding="utf-8")))


def read_metadata(path: Path) -> dict[str, Any]:
    """A bundle's metadata, checked.

    Args:
        path: the file ``metadata.json``.

    Raises:
        InputError: no such file or no JSON, a field is missing or wrong, the version is not in the changelog, or the
            channels of an input or output are not all described; or the package jsonschema is not installed.
    """
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number, parse_float=_finite)
    except (OSError, ValueError) as error:
        raise InputError(path, f"no readable JSON ({error})", "a bundle's metadata", "Mend or restore it.") from error
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import best_match
    except ImportError as error:
        mend = "Install it: pip install 'grn-monai[zoo]'"
        raise InputError("checking a bundle's metadata", "no package jsonschema", "it installed", mend) from error
    wrong = best_match(Draft202012Validator(load_schema()).iter_errors(metadata))
    if wrong is not None:
        place = "#".join(str(part) for part in wrong.absolute_path)
        if wrong.validator == "required":
            missing = next(name for name in wrong.validator_value if name not in wrong.instance)
            found, expected = f"no {missing!r}" + (f" in {place}" if place else ""), "every field of the zoo's bundles"
        elif wrong.validator == "additionalProperties" and not place:
            known, patterns = set(wrong.schema["properties"]), wrong.schema["patternProperties"]
            extra = [k for k in wrong.instance if k not in known and not any(re.search(p, k) for p in patterns)]
            near = difflib.get_close_matches(extra[0], known, 1)
            expected = f"{near[0]!r}, or no such field" if near else "fields of the zoo's bundles alone"
            found = f"the unknown field {extra[0]!r}"
        else:
            found, expected = f"{place or 'the whole'}: {_short(repr(wrong.instance))}", _expected(wrong)
        mend = "Mend metadata.json; grn_monai/zoo/schema.json tells what each field has to be."
        raise InputError(path, found, expected, mend)
    for place, found, expected in _inconsistent(metadata):
        raise InputError(path, f"{place}: {found}", expected, "Mend metadata.json.")
    return dict(metadata)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not in JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is too large")
    return value


def _expected(wrong: Any) -> str:
    """What the schema says in words of the place that an error is about, or else the rule."""
    words = wrong.schema.get("description") if isinstance(wrong.schema, dict) else None
    return words or _short(f"{wrong.validator} {json.dumps(wrong.validator_value)}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else line[:157] + "..."


def _inconsistent(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Place, what is there and what is expected, of fields that contradict each other."""
    version = metadata["version"]
    if version not in metadata["changelog"]:
        yield "changelog", f"no entry {version!r}", "an entry for the version"
    dimensions: set[int] = set()
    for side in ("inputs", "outputs"):
        for name, tensor in metadata["network_data_format"][side].items():
            place, count = f"network_data_format#{side}#{name}", tensor["num_channels"]
            if set(tensor["channel_def"]) != {str(i) for i in range(count)}:
                yield f"{place}#channel_def", f"channels {', '.join(tensor['channel_def'])}", f"0 to {count - 1}"
            dimensions.add(len(tensor["spatial_shape"]))
            if tensor["value_range"] and tensor["value_range"][0] >= tensor["value_range"][1]:
                yield f"{place}#value_range", str(tensor["value_range"]), "the lowest value, then the highest"
    if len(dimensions) > 1:
        found = f"spatial_shape of {' and '.join(map(str, sorted(dimensions)))} sizes"
        yield "network_data_format", found, "as many for each input and output"
