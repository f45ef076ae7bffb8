"""Colours of layers and methods: distinguishable with any common colour vision, and the same in every picture."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYER_COLOURS, LAYER_NAMES, LAYERS

__all__ = ["ERROR_COLOUR", "LAYER_COLOURS", "label_colours", "layer_lut", "lut_of", "method_colours"]

ERROR_COLOUR = "#FF4D4D"
"""Marks voxels where prediction and truth differ, over a grey scan."""

# Tol's bright scheme: none of it is a layer's colour.
_METHODS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#BBBB33", "#66CCEE", "#888888")


def method_colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each method, by position; more than seven start again."""
    return {name: _METHODS[i % len(_METHODS)] for i, name in enumerate(names)}


def label_colours(names: Mapping[int, str]) -> dict[int, str]:
    """A colour for each label value of any label set.

    The six layers keep theirs. Other labels take the same six by position, then hues that are a golden angle apart in
    three lightnesses, so that neighbours differ in both.

    Args:
        names: label value, 1 to 255, to name.

    Returns:
        Label value to `#RRGGBB`.
    """
    if names and all(LAYER_NAMES.get(value) == name for value, name in names.items()):
        return {value: LAYER_COLOURS[value] for value in names if value in LAYER_COLOURS}
    first = list(LAYER_COLOURS.values())
    colours = {}
    for i, value in enumerate(names):
        if i < len(first):
            colours[value] = first[i]
            continue
        rgb = colorsys.hls_to_rgb((0.05 + i * 0.381966) % 1.0, (0.45, 0.62, 0.75)[i % 3], 0.7)
        colours[value] = "#" + "".join(f"{round(255 * part):02X}" for part in rgb)
    return colours


def lut_of(colours: Mapping[int, str], size: int = 256) -> npt.NDArray[np.uint8]:
    """(size, 3) RGB 0–255 of label values 0 to size − 1; a value without a colour is black."""
    lut = np.zeros((size, 3), np.uint8)
    for value, colour in colours.items():
        lut[value] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return lut


def layer_lut() -> npt.NDArray[np.uint8]:
    """(7, 3) RGB 0–255 of labels 0–6; background is black."""
    return lut_of(LAYER_COLOURS, len(LAYERS) + 1)
