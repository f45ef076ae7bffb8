"""A bundle's configs, YAML or JSON: read, and top-level values set in place, so that comments and order stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from grn_monai.errors import InputError
from grn_monai.files import write_whole

__all__ = ["config_file", "model_options", "read_config", "set_values", "write_json"]


def config_file(bundle: Path, stem: str) -> Path:
    """The config of a bundle by its stem: ``configs/STEM.yaml``, or ``.json`` where the bundle came as a pack.

    Raises:
        InputError: neither or both are there.
    """
    files = [bundle / "configs" / f"{stem}{suffix}" for suffix in (".yaml", ".json")]
    there = [file for file in files if file.is_file()]
    if not there:
        mend = "Give the folder of a bundle, such as bundles/us_layers_grn_plus."
        raise InputError(bundle, f"no configs/{stem}.yaml", "it, or the same as .json", mend)
    if len(there) == 2:
        raise InputError(bundle, f"configs/{stem} as .yaml and as .json", "one of both", "Remove one of them.")
    return there[0]


def write_json(path: Path, content: Any) -> None:
    """Write a config or the metadata as JSON, whole; NaN and infinity, which JSON does not know, are errors."""
    write_whole(path, json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n")


def read_config(path: Path) -> dict[str, Any]:
    """The file's mapping, expressions and references (``$…``, ``@…``) as their texts.

    Raises:
        InputError: no such file, or not a mapping in YAML or, by its ending, JSON.
    """
    kind = "JSON" if path.suffix == ".json" else "YAML"
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if kind == "JSON" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).replace("\n", " ")
        raise InputError(path, f"no readable {kind} ({reason})", "a bundle's config", "Mend or restore it.") from error
    if not isinstance(content, dict):
        raise InputError(path, f"a {type(content).__name__}", "a mapping of ids", "Mend or restore the file.")
    return content


def model_options(parser: ConfigParser) -> dict[str, Any]:
    """What an inference config wants to be as in the training of its weights: ``options`` of its `ModelLoader`."""
    for number, handler in enumerate(parser.get("handlers") or []):
        if isinstance(handler, dict) and str(handler.get("_target_", "")).endswith(".ModelLoader"):
            return dict(parser.get_parsed_content(f"handlers#{number}#options") if "options" in handler else {})
    return {}


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
    """Set top-level values of a config, each of which stands on one line there if it is YAML.

    Args:
        path: the file; it is replaced whole.
        values: the new values by their id.

    Raises:
        InputError: an id is not in the file, or its value takes several lines (in YAML) or is a mapping; nothing is
            written then.
    """
    before = read_config(path)
    if path.suffix == ".json":
        for name in values:
            if name not in before or isinstance(before[name], dict):
                found = "no such id" if name not in before else f"{name!r} with a mapping"
                raise InputError(path, found, f"{name!r} with a value", "Edit the bundle's config by hand.")
        write_json(path, {**before, **values})
        return
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
