"""Values of a client's request: refused where they could be more than values, and read where they are text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from monailabel.utils.others.generic import device_map

from grn_monai.errors import InputError

__all__ = ["device_of", "number", "refuse_expressions", "whole_number"]

MEND = "Correct the option."
_SHOWN = 60


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def refuse_expressions(request: Mapping[str, Any]) -> None:
    """Refuse a request that holds something that a bundle's configuration would evaluate.

    ``monai.bundle`` runs texts that begin with ``$`` as Python, replaces those that begin with ``@`` or ``%``, and
    builds whatever a ``_target_`` names. Options of a request reach it as they are.

    Args:
        request: options and their values, with lists and mappings to any depth.

    Raises:
        InputError: naming the option.
    """
    for name, value in request.items():
        _refuse(str(name), name)
        _refuse(str(name), value)


def _refuse(option: str, value: Any) -> None:
    if isinstance(value, str):
        text = value.strip()
        if text[:1] in ("$", "@", "%") or text == "_target_":
            raise InputError(_shortened(option).strip("'"), _shortened(value), "a plain value", MEND)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse(option, key)
            _refuse(option, inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            _refuse(option, inner)


def number(option: str, value: Any) -> float:
    """A number that may have come as text.

    Raises:
        InputError: it is none, or not finite.
    """
    try:
        read = float("none" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        read = math.nan
    if not math.isfinite(read):
        raise InputError(option, _shortened(value), "a number", MEND)
    return read


def whole_number(option: str, value: Any, least: int) -> int:
    """A whole number of at least ``least`` that may have come as text, such as ``"50"``.

    Raises:
        InputError: it is none, or too small.
    """
    expected = f"a whole number of {least} or more"
    try:
        read = number(option, value)
    except InputError as error:
        raise InputError(option, error.found, expected, MEND) from None
    if read != int(read) or read < least:
        raise InputError(option, _shortened(value), expected, MEND)
    return int(read)


def device_of(value: Any) -> str:
    """The torch device of a request: a name of torch's, or one that MONAI Label lists to its clients.

    Args:
        value: ``"cpu"``, ``"cuda"`` (the CPU where there is no GPU), ``"cuda:1"``, a GPU's name, a list with one of
            these first, or nothing for ``"cuda"``.

    Raises:
        InputError: it names no device of this machine.
    """
    first = value[0] if isinstance(value, list | tuple) and value else value
    given = "cuda" if first is None or first == "" or first == [] or first == () else first
    shown = device_map()
    known = ["cpu", "cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *shown]
    if not isinstance(given, str) or given not in known:
        names = ", ".join(dict.fromkeys(known))
        raise InputError("device", _shortened(value), f"one of {names}", MEND)
    if given.startswith("cuda") and not torch.cuda.is_available():
        return "cpu"
    return str(shown.get(given, given))
