"""Top-level values of a YAML file set in place: comments, order and every other line stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from grn_monai.errors import InputError
from grn_monai.files import write_whole

__all__ = ["read_yaml", "set_values"]


def read_yaml(path: Path) -> dict[str, Any]:
    """The file's mapping, expressions and references (``$…``, ``@…``) as their texts.

    Raises:
        InputError: no such file, or not a mapping in YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise InputError(path, f"no readable YAML ({reason})", "a bundle's config", "Mend or restore it.") from error
    if not isinstance(content, dict):
        raise InputError(path, f"a {type(content).__name__}", "a mapping of ids", "Mend or restore the file.")
    return content


def _written(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).removesuffix("...\n").strip()


def _padded(text: str, old: int, new: int) -> str:
    """The rest of a line whose value got longer or shorter: a comment stays in its column where it can."""
    rest, newline, following = text.partition("\n")
    comment = rest.lstrip(" ")
    if comment.startswith("#"):
        rest = " " * max(1, len(rest) - len(comment) + old - new) + comment
    return rest + newline + following


def set_values(path: Path, values: Mapping[str, Any]) -> None:
    """Set top-level values of a YAML file, each of which stands on one line there.

    Args:
        path: the file; it is replaced whole.
        values: the new values by their id.

    Raises:
        InputError: an id is not in the file, or its value takes several lines; nothing is written then.
    """
    before = read_yaml(path)
    text = path.read_text(encoding="utf-8")
    document = yaml.compose(text, yaml.SafeLoader)
    nodes = {key.value: value for key, value in document.value} if isinstance(document, yaml.MappingNode) else {}
    for name in values:
        if name not in nodes or nodes[name].start_mark.line != nodes[name].end_mark.line:
            found = "no such id" if name not in nodes else f"{name!r} with a value over several lines"
            raise InputError(path, found, f"{name!r} with a value on one line", "Edit the bundle's config by hand.")
    for name in sorted(values, key=lambda n: nodes[n].start_mark.index, reverse=True):
        start, end = nodes[name].start_mark.index, nodes[name].end_mark.index
        new = _written(values[name])
        text = text[:start] + new + _padded(text[end:], end - start, len(new))
    if yaml.safe_load(text) != {**before, **values}:
        raise RuntimeError(f"{path}: setting {sorted(values)} would have changed other ids")
    write_whole(path, text)
