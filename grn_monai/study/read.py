"""Read a YAML file strictly, and say where in it something is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grn_monai.errors import InputError, listed

__all__ = ["Place", "close_names", "read_yaml"]


def close_names(name: Any, known: Iterable[Any]) -> str:
    """`Did you mean …?` where a known name is near, else the list of the known ones, as a sentence."""
    names = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known: {listed(names)}."


@dataclass(frozen=True)
class Place:
    """A key of a YAML file, for messages.

    Args:
        file: the file.
        keys: the way to the key, outermost first.
    """

    file: Path
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ": ".join((str(self.file), *self.keys))

    def at(self, key: Any) -> Place:
        """A key below this one."""
        return Place(self.file, (*self.keys, str(key)))

    def error(self, found: str, expected: str, mend: str = "Correct the file.") -> InputError:
        """An error at this key."""
        return InputError(str(self), found, expected, mend)

    def mapping(self, value: Any, known: Iterable[str] | None = None) -> dict[Any, Any]:
        """A mapping (None is an empty one), all of whose keys are known where `known` is given.

        Raises:
            InputError: it is none, or has another key; names the nearest known one.
        """
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.error(repr(value), "names with values (`name: value`)")
        known = None if known is None else list(known)
        for key in value if known is not None else ():
            if key not in (known or ()):
                raise self.at(key).error("an unknown key", "a key that studies have", close_names(key, known or ()))
        return dict(value)

    def text(self, value: Any) -> str:
        """A text that is not empty."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(repr(value), "a text")
        return value

    def sequence(self, value: Any, what: str) -> list[Any]:
        """A list without doubles (one value stands for a list of it), not empty."""
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not values or value is None:
            raise self.error("nothing", f"at least one {what}")
        for i, item in enumerate(values):
            if isinstance(item, list | dict):
                raise self.error(repr(item), f"a {what}")
            if item in values[:i]:
                raise self.error(f"{item!r} twice", f"each {what} once", "Remove one of the two.")
        return values

    def names(self, value: Any, what: str) -> tuple[str, ...]:
        """A list of texts without doubles; it may be empty."""
        if value is None or value == []:
            return ()
        return tuple(self.text(item) for item in self.sequence(value, what))


def read_yaml(file: Path) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: there is no such file, it is no YAML, or it has a key twice (which YAML readers pass over).
    """
    if not file.is_file():
        raise InputError(file, "no such file", "a YAML file", "Check the path.")
    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_doubles(loader, node, Place(file))
        return loader.construct_document(node)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}, line {mark.line + 1}" if mark else str(file)
        found = f"no readable YAML ({getattr(error, 'problem', None) or str(error).splitlines()[0]})"
        raise InputError(where, found, "a YAML file", "Correct the file.") from error


def _refuse_doubles(loader: yaml.SafeLoader, node: yaml.Node, place: Place) -> None:
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_doubles(loader, child, place)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[Any, int] = {}
    for name, child in node.value:
        if not isinstance(name, yaml.ScalarNode):
            raise place.error("a list or mapping as a key", "a name")
        key = name.value if name.tag.endswith(":merge") else loader.construct_object(name)
        line = name.start_mark.line + 1
        if key in seen:
            found = f"the key in line {seen[key]} and again in line {line}"
            raise place.at(key).error(found, "each key once", "Remove one of the two.")
        seen[key] = line
        _refuse_doubles(loader, child, place.at(key))
