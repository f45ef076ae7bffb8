"""The check of trainers whose network has parts that serve training alone."""

from __future__ import annotations

from typing import Any

from torch import nn

from grn_monai.errors import InputError

from .._common import check_optimizer, unwrapped

__all__ = ["check_training_network"]


def check_training_network(trainer: Any, cls: type[nn.Module]) -> None:
    """Check that a trainer's network is of a class, and that its optimizer steps all of it.

    Raises:
        InputError: for another network: without its further outputs the method would silently be the baseline.
        ValueError: for an optimizer of the plain network alone.
    """
    network = unwrapped(trainer.network)
    if not isinstance(network, cls):
        raise InputError(
            "network",
            type(network).__name__,
            f"a {cls.__name__}, which {type(trainer).__name__} trains",
            f"Wrap the U-Net: grn_monai.networks.{cls.__name__}.",
        )
    check_optimizer("optimizer", trainer.optimizer, {"network": trainer.network}, {})
