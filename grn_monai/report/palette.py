"""Colours of layers and methods: distinguishable with any common colour vision, and the same in every picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_COLOURS, LAYERS

__all__ = ["ERROR_COLOUR", "LAYER_COLOURS", "layer_lut", "method_colours"]

ERROR_COLOUR = "#FF4D4D"
"""Marks voxels where prediction and truth differ, over a grey scan."""

# Tol's bright scheme: none of it is a layer's colour.
_METHODS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#BBBB33", "#66CCEE", "#888888")


def method_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each method, by position; more than seven start again."""
    return {name: _METHODS[i % len(_METHODS)] for i, name in enumerate(names)}


def layer_lut() -> npt.NDArray[np.uint8]:
    """(7, 3) RGB 0–255 of labels 0–6; background is black."""
    lut = np.zeros((len(LAYERS) + 1, 3), np.uint8)
    for label, colour in LAYER_COLOURS.items():
        lut[label] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return lut
