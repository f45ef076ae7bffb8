"""The check of a bundle's config that names its semi-supervised method and has the options of that method."""

from __future__ import annotations

import inspect
import re
from pydoc import locate
from typing import Any

from grn_monai.errors import InputError
from grn_monai.handlers.record import calling_parser

from ..semi_supervised_trainer import SemiSupervisedTrainer

__all__ = ["check_method", "known_methods"]

_OF_OVERLAYS = ("infer_with", "two_network", "discriminator_learning_rate")
"""Options of the overlays that are no arguments of a trainer."""


def known_methods(base: type[SemiSupervisedTrainer] = SemiSupervisedTrainer) -> dict[str, type[SemiSupervisedTrainer]]:
    """The trainer of each method that is imported, by the name that a config has for it."""
    found: dict[str, type[SemiSupervisedTrainer]] = {}
    for cls in base.__subclasses__():
        found |= {cls.method: cls} if vars(cls).get("method") else {}
        found |= known_methods(cls)
    return found


def _options() -> dict[str, list[str]]:
    """Options that not every method has, each with the methods that have it as an argument."""
    common = inspect.signature(SemiSupervisedTrainer).parameters
    owners: dict[str, list[str]] = {name: [] for name in _OF_OVERLAYS}
    for method, cls in known_methods().items():
        for base in cls.__mro__[: cls.__mro__.index(SemiSupervisedTrainer)]:
            for name in inspect.signature(base).parameters:
                if name not in common and method not in owners.setdefault(name, []):
                    owners[name].append(method)
    return owners


def _texts(node: Any) -> list[str]:
    """All texts of a config."""
    if isinstance(node, dict):
        return [text for value in node.values() for text in _texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in _texts(value)]
    return [node] if isinstance(node, str) else []


def check_method(name: str, trainer: str) -> None:
    """Refuse a config that says another method than it trains, or has an option that its method does not read.

    For the list ``initialize`` of a bundle's config: an option on the command line reaches the config whether or not
    the overlay that reads it is there.

    Args:
        name: the method that the config names, which its records and checkpoints repeat.
        trainer: dotted name of the trainer's class.

    Raises:
        InputError: for a name that is not the class's ``method``, and (called from a config's expression) for an
            option of another method.
    """
    cls = locate(trainer)
    trained = getattr(cls, "method", None)
    if trained != name:
        overlay = f"Give the overlay configs/method_{name}.yaml, or leave `method` out."
        mend = overlay if name in known_methods() else f"Set `method` alike in the overlay and in the class {trainer}."
        raise InputError("method", repr(name), f"{trained!r}, which {trainer} trains", mend)
    parser = calling_parser()
    config = {} if parser is None else parser.get()
    texts = "\n".join(_texts(config))
    for option, owners in _options().items():
        if option in config and not re.search(rf"@{option}\b", texts):
            mend = f"Give the overlay of the method ({', '.join(f'method_{o}' for o in owners)})" if owners else ""
            mend = f"{mend or 'Give the overlay of a method that has it'}, or leave the option out."
            raise InputError(option, repr(config[option]), f"no such option: {name} is trained without it", mend)
