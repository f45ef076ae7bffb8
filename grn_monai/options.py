"""Options as they come from a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grn_monai.errors import InputError

__all__ = ["check_choice", "flag", "same"]


def flag(value: Any) -> bool:
    """A switch of a bundle as a bool.

    ``monai.bundle`` hands ``--amp false`` over as the text "false", which Python takes for true.

    Args:
        value: bool, 0 or 1, or one of the texts true, false, yes, no, on, off, 1, 0 in any case.

    Raises:
        InputError: for anything else.
    """
    text = str(value).strip().lower()
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise InputError("a switch on the command line", repr(value), "true or false", "Correct the option.")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuse an option that is none of its choices.

    Raises:
        InputError: naming the option.
    """
    if value not in choices:
        raise InputError(name, repr(value), " or ".join(repr(c) for c in choices), "Correct the option.")


def same(value: Any) -> Any:
    """The value itself: lets a config name an object and still list it as a component (``_target_``), as
    `monai.bundle` expects of handlers."""
    return value
