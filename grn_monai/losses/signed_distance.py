"""Signed distance maps of label images, and the loss of a network that predicts them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import nn

from grn_monai.errors import InputError

__all__ = ["SignedDistanceLoss", "signed_distance_maps"]


def signed_distance_maps(labels: torch.Tensor, num_classes: int, empty: float = 1.0) -> torch.Tensor:
    """Normalised signed distance of every pixel to the boundary of each foreground class, from the class's own mask.

    Outside: the distance to the class over its largest value in the image. On the inner boundary (pixels of the class
    with one of their four neighbours outside): 0. Further inside: minus the distance to the rest over its largest
    value. Distances are Euclidean, in pixels. A layer of one or two pixels' thickness is all boundary, and so has no
    negative values. The image's rim is no boundary.

    Args:
        labels: ``(B, 1, H, W)`` class numbers, 0 = background.
        num_classes: number of classes, with the background.
        empty: value of the whole map of a class that an image lacks. 1 says "outside"; 0 would say "boundary" of all
            pixels.

    Returns:
        ``(B, num_classes - 1, H, W)`` float32 in [-1, 1] on the device of ``labels``; -1 everywhere where a class
        fills its image.

    Source: Li et al., "Shape-aware Semi-supervised 3D Semantic Segmentation for Medical Images" (SASSNet), 2020,
    which has one class.
    """
    classes = torch.arange(1, num_classes, device=labels.device).reshape(1, -1, 1, 1)
    masks = (labels == classes).flatten(0, 1)
    distances = _distances_scipy if labels.device.type == "cpu" else _distances_torch
    outside, inside = distances(~masks), distances(masks)
    # A distance of 1 is a pixel of the rest among the four neighbours: the inner boundary.
    inside = torch.where(inside > 1, inside, 0) / inside.amax((1, 2), keepdim=True)
    maps = outside / outside.amax((1, 2), keepdim=True) - inside
    maps = maps.masked_fill(~masks.any(-1, keepdim=True).any(-2, keepdim=True), empty)
    maps = maps.masked_fill(masks.all(-1, keepdim=True).all(-2, keepdim=True), -1.0)
    return maps.reshape(len(labels), num_classes - 1, *labels.shape[2:])


def _distances_scipy(masks: torch.Tensor) -> torch.Tensor:
    """Distance of each pixel of a mask to the nearest one that is not, 0 elsewhere: ``(N, H, W)`` float32.

    Meaningless for a mask without pixels of both kinds.
    """
    result = np.zeros(masks.shape, np.float32)
    for mask, distance in zip(masks.numpy(), result, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            # What is nearest lies in the mask's box or in the one-pixel frame around it.
            box = (slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2))
            distance[box] = distance_transform_edt(mask[box])
    return torch.from_numpy(result)


def _distances_torch(masks: torch.Tensor) -> torch.Tensor:
    """The same on an accelerator, where scipy's transform would take longer than the training step.

    Along columns by running maxima, then along rows by comparing each pair of columns: exact, since the squared
    distance is the sum of both parts and float32 holds its integers.
    """
    height, width = masks.shape[1:]
    far = float(height + width)  # further away than any pixel
    row = torch.arange(height, device=masks.device, dtype=torch.float32).reshape(1, -1, 1)
    above = torch.where(masks, -far, row).cummax(1).values
    below = torch.where(masks, height + far, row).flip(1).cummin(1).values.flip(1)
    vertical = torch.minimum(row - above, below - row).square()
    column = torch.arange(width, device=masks.device, dtype=torch.float32)
    horizontal = (column[:, None] - column).square()
    # One mask at a time: H x W x W values.
    return torch.stack([(v[:, None, :] + horizontal).amin(-1) for v in vertical]).sqrt()


class SignedDistanceLoss(nn.Module):
    """Mean squared error between predicted maps and the signed distance maps of the labels.

    Args:
        empty: what an image says of a class that it lacks. ``one``: all of it is outside; ``zero``: the map is 0, as
            in the reference; ``ignore``: nothing, the pair is left out of the mean.

    Raises:
        InputError: for another value.
    """

    def __init__(self, empty: str = "one") -> None:
        super().__init__()
        if empty not in ("one", "zero", "ignore"):
            raise InputError("empty", repr(empty), "one, zero or ignore", "Correct the option.")
        self.empty = empty

    def forward(self, maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """0-d mean over images, foreground classes and pixels; 0 where every pair is left out.

        Args:
            maps: predicted, ``(B, num_classes - 1, H, W)`` in [-1, 1].
            labels: ``(B, 1, H, W)`` class numbers, 0 = background.
        """
        target = signed_distance_maps(labels, maps.shape[1] + 1, 0.0 if self.empty == "zero" else 1.0)
        each = (maps - target.to(maps.dtype)).square().mean((2, 3))
        if self.empty != "ignore":
            return each.mean()
        present = torch.stack([(labels == k).flatten(1).any(1) for k in range(1, maps.shape[1] + 1)], 1)
        return (each * present).sum() / present.sum().clamp(min=1)
