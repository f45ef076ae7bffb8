"""Class probabilities to a label map in which the layers of every A-line come in anatomical order."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_tensor

from grn_monai.errors import InputError
from grn_monai.labels import LAYERS

__all__ = ["OrderedLayers", "OrderedLayersd", "decode_ordered"]

# A-lines at a time, over all states. On a CPU, below torch's grain size of 32768: the many small steps then run on one
# thread without waiting for others, and stay in its cache. Elsewhere, as many as a modest memory allows.
_CHUNK_STATES = {"cpu": 28_000}
_CHUNK_STATES_ELSEWHERE = 2**19


def _refuse_nan(values: torch.Tensor) -> None:
    if bool(values.isnan().any()):
        raise InputError(
            "OrderedLayers", "NaN among the probabilities", "numbers", "Look for the cause in the network."
        )


def _decode_lines(log_p: torch.Tensor) -> torch.Tensor:
    """Best ordered labelling of A-lines: ``(Z, C, n)`` log-probabilities to ``(Z, n)`` labels.

    Viterbi over the states 0 (background above), 1 … C − 1 (layers) and C (background below), where a state may follow
    itself or any earlier one. "Best of all earlier states" is a running maximum over states, so that a step along
    depth costs C pairwise maxima, and one bit per state and voxel remembers who won.
    """
    depth, classes, lines = log_p.shape
    score = log_p.new_full((classes + 1, lines), -math.inf)
    score[0] = 0
    states = score.unbind(0)
    earlier_won = torch.zeros((depth, classes + 1, lines), dtype=torch.bool, device=log_p.device)
    for z in range(depth):
        won = earlier_won[z].unbind(0)
        for s in range(1, classes + 1):
            torch.gt(states[s - 1], states[s], out=won[s])
            torch.maximum(states[s - 1], states[s], out=states[s])
        # Relative to the leader, scores stay small where it matters and float32 loses nothing to their size.
        score -= states[-1].clone()
        score[:-1] += log_p[z]
        score[-1] += log_p[z, 0]
    # The next step's maxima carry a NaN into every state, but that of the last sample stays in its own.
    _refuse_nan(score)

    previous = torch.empty((depth, classes + 1, lines), dtype=torch.uint8, device=log_p.device)
    previous[:, 0] = 0
    for s in range(1, classes + 1):
        own = torch.tensor(s, dtype=torch.uint8, device=log_p.device)
        torch.where(earlier_won[:, s], previous[:, s - 1], own, out=previous[:, s])
    state = score.argmax(0, keepdim=True)
    labels = torch.empty((depth, lines), dtype=torch.uint8, device=log_p.device)
    for z in range(depth - 1, -1, -1):
        labels[z] = state[0]
        state = previous[z].gather(0, state).long()
    return labels.masked_fill_(labels == classes, 0)


def decode_ordered(
    probabilities: torch.Tensor, depth_dim: int = -1, log_input: bool = False, eps: float = 1e-12
) -> torch.Tensor:
    """Labels every A-line with the most probable sequence background → 1 → 2 → … → background.

    Among all labellings in which the layers come in this order, each at most once and possibly absent, it returns the
    one with the largest sum of log-probabilities, by exact dynamic programming over all A-lines at once. The work is
    linear in the number of voxels and classes; beside the result it needs a fixed amount of memory.

    Args:
        probabilities: ``(C, ...)`` with channel 0 the background and channel s layer s.
        depth_dim: the axis that is depth, increasing away from the probe. Default: the last.
        log_input: the values are log-probabilities.
        eps: probabilities below it count as ``eps``, so that one impossible voxel cannot rule out an A-line.

    Returns:
        uint8 labels ``(1, ...)``.

    Raises:
        InputError: there are fewer than two axes, depth is the channel axis, or a value is NaN.
    """
    depth_dim %= max(probabilities.ndim, 1)
    if probabilities.ndim < 2 or depth_dim == 0:
        found = f"depth_dim {depth_dim} for data of shape {tuple(probabilities.shape)}"
        raise InputError("OrderedLayers", found, "(C, ...) with depth behind C", "Correct depth_dim.")
    moved = probabilities.movedim(depth_dim, -1)
    classes, depth = moved.shape[0], moved.shape[-1]
    flat = moved.reshape(classes, -1, depth)
    lines = flat.shape[1]
    dtype = torch.float64 if flat.dtype == torch.float64 else torch.float32
    labels = torch.empty((lines, depth), dtype=torch.uint8, device=flat.device)
    chunk = max(1, _CHUNK_STATES.get(flat.device.type, _CHUNK_STATES_ELSEWHERE) // (classes + 1))
    for start in range(0, lines, chunk):
        part = flat[:, start : start + chunk]
        log_p = torch.empty((depth, classes, part.shape[1]), dtype=dtype, device=flat.device)
        for c in range(classes):  # a plain 2D transpose has a fast path, a permuted copy has not
            log_p[:, c].copy_(part[c].t())
        if log_input:
            log_p.clamp_(min=math.log(eps))
        else:
            log_p.clamp_(min=eps).log_()
        labels[start : start + chunk] = _decode_lines(log_p).t()
    return labels.reshape(moved.shape[1:]).movedim(-1, depth_dim - 1)[None].contiguous()


class OrderedLayers(Transform):
    """Turns class probabilities into labels whose layers come in anatomical order along depth.

    Args:
        num_layers: layers without background.
        ordered: ``False`` gives the plain argmax instead.
        log_input: the data are log-probabilities.
        depth_dim: the axis that is depth. Default: the last, as in the scan frame; -2 for slices ``(C, H, W)``.
        eps: see :func:`decode_ordered`.
    """

    def __init__(
        self,
        num_layers: int = len(LAYERS),
        ordered: bool = True,
        log_input: bool = False,
        depth_dim: int = -1,
        eps: float = 1e-12,
    ) -> None:
        self.num_layers, self.ordered, self.log_input = num_layers, ordered, log_input
        self.depth_dim, self.eps = depth_dim, eps

    def __call__(self, img: Any) -> torch.Tensor:
        """Maps ``(num_layers + 1, ...)`` to uint8 labels ``(1, ...)``; a MetaTensor keeps its meta and history.

        Raises:
            InputError: the number of channels is not ``num_layers + 1``, or a value is NaN.
        """
        img = convert_to_tensor(img, track_meta=isinstance(img, MetaTensor))
        if img.ndim < 2 or img.shape[0] != self.num_layers + 1:
            found, expected = f"data of shape {tuple(img.shape)}", f"({self.num_layers + 1}, ...)"
            raise InputError("OrderedLayers", found, expected, "Set num_layers to the classes less background.")
        values = img.as_tensor() if isinstance(img, MetaTensor) else img
        if self.ordered:
            labels = decode_ordered(values, self.depth_dim, self.log_input, self.eps)
        else:
            winners = values.argmax(0, keepdim=True)
            _refuse_nan(values.gather(0, winners))  # argmax takes NaN for the largest number
            labels = winners.to(torch.uint8)
        return MetaTensor(labels).copy_meta_from(img) if isinstance(img, MetaTensor) else labels


class OrderedLayersd(MapTransform):
    """Dictionary twin of :class:`OrderedLayers`.

    Args:
        keys: keys of class probabilities ``(num_layers + 1, ...)``.
        num_layers: see :class:`OrderedLayers`.
        ordered: see :class:`OrderedLayers`.
        log_input: see :class:`OrderedLayers`.
        depth_dim: see :class:`OrderedLayers`.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        num_layers: int = len(LAYERS),
        ordered: bool = True,
        log_input: bool = False,
        depth_dim: int = -1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.decode = OrderedLayers(num_layers, ordered, log_input, depth_dim)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replaces probabilities by uint8 labels ``(1, ...)``."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.decode(d[key])
        return d
