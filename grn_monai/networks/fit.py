"""Whether a network takes the slices and the batches that a run will give it, asked before the run starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from grn_monai.errors import InputError

__all__ = ["check_fit", "check_name"]

_NAMED: dict[str, tuple[str, tuple[int, ...]]] = {
    "unet": ("UNet", (16, 32, 64, 128, 256)),
    "wide": ("UNet", (41, 82, 164, 328, 656)),
    "wide_flops": ("UNet", (36, 72, 144, 288, 576)),
    "full_resolution": ("UNet", (16, 32, 64, 128, 256, 512)),
    "segresnet": ("SegResNet", ()),
    "vnet": ("VNet", ()),
    "swin_unetr_2d": ("SwinUNETR", ()),
    "deeplabv3": ("Sequential", ()),
    "deeplabv3plus": ("DeepLabV3Plus", ()),
    "one_stage": ("Sequential", ()),
}
"""Class, and channels where names share one, of the networks that us_layers_supervised names."""

_DIVISORS = (2, 4, 8, 16, 32, 64)


def _fault(network: nn.Module, size: Sequence[int]) -> str | None:
    """Why a network does not segment one image of ``(H, W)``, in one line; None if it does."""
    weight = next(network.parameters(), torch.empty(0))
    modes = {part: part.training for part in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            out = network(torch.zeros(1, 1, *size, dtype=weight.dtype, device=weight.device))
    except (RuntimeError, ValueError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
    finally:
        for part, training in modes.items():
            part.training = training
    return None if out.shape[-2:] == tuple(size) else f"an output of {tuple(out.shape[-2:])}"


def check_fit(
    network: nn.Module, slice_size: Any, batch_size: int = 1, min_batch: int = 1, name: str = "the network"
) -> None:
    """Refuse a slice size or a batch size that a network cannot train with.

    Networks that halve their maps need sides that are multiples of a power of 2. One image of zeros goes through the
    network in evaluation mode; its mode, its buffers and the random generators stay as they are.

    Args:
        network: maps ``(B, 1, H, W)`` to ``(B, classes, H, W)``; on its device.
        slice_size: ``(H, W)``.
        batch_size: images of a training step.
        min_batch: fewest images that the network trains with: 2 where BatchNorm has one value per image and channel.
        name: of the network, for the message.

    Raises:
        InputError: naming the nearest larger slice size that fits, or the smallest batch size.
    """
    try:
        size = [int(side) for side in slice_size]
    except (TypeError, ValueError):
        size = []
    if len(size) != 2 or min(size) < 1:
        mend = "Give such as `--slice_size [256,256]`."
        raise InputError("slice_size", repr(slice_size), "two whole numbers from 1", mend)
    if batch_size < min_batch:
        expected = f"at least {min_batch}: {name} normalises over the images of a batch"
        raise InputError("batch_size", str(batch_size), expected, f"Give `--batch_size {min_batch}` or more.")
    fault = _fault(network, size)
    if fault is None:
        return
    rounded = dict.fromkeys(tuple(-(-side // d) * d for side in size) for d in _DIVISORS)
    fitting = next((other for other in rounded if _fault(network, other) is None), None)
    if fitting is None:
        mend = "Give a larger slice_size, or mend network_def."
        raise InputError("slice_size", f"{size}, which {name} does not take ({fault})", "one that it takes", mend)
    given = ",".join(map(str, fitting))
    raise InputError(
        "slice_size", f"{size}, which {name} does not take", f"{list(fitting)}", f"Give `--slice_size [{given}]`."
    )


def check_name(network: nn.Module, name: str) -> None:
    """Refuse a network that has the name of another one of us_layers_supervised.

    An option on the command line changes the name alone, an overlay the network too: a run that trained another
    network than its records and checkpoints say would be compared as what it is not. Names that the bundle does not
    have are the user's own.

    Args:
        network: as it is trained.
        name: what the config calls it.

    Raises:
        InputError: naming what was found.
    """
    if name not in _NAMED:
        return
    kind, channels = _NAMED[name]
    found = type(network).__name__
    widths = tuple(getattr(network, "channels", ())) if channels else ()
    if (found, widths) != (kind, channels):
        what = f"{found} of channels {list(widths)}" if widths else found
        wanted = f"{kind} of channels {list(channels)}" if channels else kind
        mend = f"Give the overlay configs/network_{name}.yaml, or the network a name of its own."
        raise InputError("network_name", f"{name!r} of a {what}", f"a {wanted}", mend)
