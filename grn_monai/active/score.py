"""How much a scan would teach the network, told by predictions that inference makes anyway."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor

from grn_monai.errors import InputError

__all__ = ["SOURCES", "disagreement_score", "mean_entropy"]

SOURCES = ("plane_disagreement", "sge_disagreement")
"""The two disagreements of a quality record: sagittal against transverse plane, S(x) against S(G(x))."""


def disagreement_score(quality: Mapping[str, Any], sources: Sequence[str] = SOURCES) -> float | None:
    """Disagreement of a scan's predictions, 0 (all agree) to 1 (none do): the mean of 1 − mean Dice of the pairs.

    Each pair of predictions is compared by the mean over the layers of their Dice. A share of voxels would be a score
    of muscle and fat, which fill most of a scan; in the mean Dice a fascia of 1 mm counts as much as they do, as it
    does where the segmentation is judged. The two pairs count alike: both are Dice, so neither needs a weight that
    would have to be fitted on labels.

    A pair that was not compared is left out: a bundle without generator has planes only, a scan of one slice has S(x)
    against S(G(x)) only. The score then is that of the other pair, and compares with scans of the same kind.

    Args:
        quality: what `grn_monai.transforms.ScanQualityd` makes, or the content of a NAME_quality.json.
        sources: which pairs to use, of `SOURCES`.

    Returns:
        The score, or None where no pair was compared or none found tissue: such a scan is empty, or the network knows
        nothing of it yet, and the predictions cannot tell which.

    Raises:
        InputError: an unknown source, or none; `quality` is no mapping, or a mean Dice is no number from 0 to 1.
    """
    unknown = [name for name in sources if name not in SOURCES]
    if unknown or not sources:
        raise InputError(
            "sources", ", ".join(unknown) or "none", f"some of {', '.join(SOURCES)}", "Correct the option."
        )
    if not isinstance(quality, Mapping):
        mend = "Give the content of a NAME_quality.json."
        raise InputError("quality", f"a {type(quality).__name__}", "a record of quality numbers", mend)
    parts = [1 - dice for name in sources if (dice := _mean_dice(quality, name)) is not None]
    return math.fsum(parts) / len(parts) if parts else None


def _mean_dice(quality: Mapping[str, Any], name: str) -> float | None:
    """The mean Dice of one pair, or None where it was not compared or holds no tissue."""
    pair = quality.get(name)
    dice = pair.get("mean_dice") if isinstance(pair, Mapping) else pair
    if dice is None:
        return None
    if isinstance(dice, bool) or not isinstance(dice, int | float) or not 0 <= dice <= 1:
        mend = "Run the inference again with quality numbers (--quality true)."
        raise InputError(f"{name}.mean_dice", repr(dice)[:40], "a number from 0 to 1", mend)
    return float(dice)


def mean_entropy(probabilities: torch.Tensor) -> float | None:
    """Mean predictive entropy −Σ p·ln p of a scan in nats, 0 (sure) to ln K (knows nothing).

    The mean is over the voxels of the A-lines in which the prediction finds tissue, and over all their depth: A-lines
    that lie outside the picture or have no contact are surely background, and would lower the mean of a scan by their
    number. It is the usual measure of uncertainty, here to compare with; one pass and one probability volume are all
    it needs.

    Args:
        probabilities: (K, X, Y, Z) class probabilities, channel 0 the background, Z = depth; on any device. Worked on
            in float64, one slab (K, Y, Z) at a time, so that memory does not grow with X.

    Returns:
        The entropy, or None where no A-line has tissue.

    Raises:
        InputError: not four axes, fewer than two classes, or a value that is NaN or outside 0 to 1.
    """
    values = probabilities.as_tensor() if isinstance(probabilities, MetaTensor) else torch.as_tensor(probabilities)
    if values.ndim != 4 or len(values) < 2:
        found = f"data of shape {tuple(values.shape)}"
        raise InputError("mean_entropy", found, "(K, X, Y, Z) with K of 2 or more", "Take one scan out of the batch.")
    total, voxels = 0.0, 0
    for slab in values.unbind(1):
        p = slab.double()
        if not bool(((p >= 0) & (p <= 1 + 1e-4)).all()):  # a NaN fails too
            mend = "Give probabilities, not logits."
            raise InputError("mean_entropy", "values outside 0 to 1, or NaN", "probabilities", mend)
        lines = (p[1:].amax(0) > p[0]).any(-1)
        entropy = -torch.special.xlogy(p, p).sum(0)
        total += float(entropy[lines].sum())
        voxels += int(lines.sum()) * p.shape[-1]
    # Rounding may bring a sum of float32 probabilities a hair above 1, and the entropy of a sure voxel below 0.
    return max(total / voxels, 0.0) if voxels else None
