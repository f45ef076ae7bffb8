"""The tissue layers of the low back, from the skin inwards, and their label values."""

from __future__ import annotations

__all__ = ["LAYERS", "LAYER_COLOURS", "LAYER_NAMES", "NUM_CLASSES"]

LAYER_NAMES: dict[int, str] = {
    0: "background",
    1: "dermis",
    2: "superficial fat",
    3: "superficial fascial membrane",
    4: "deep fat",
    5: "deep fascial membrane",
    6: "muscle",
}
"""Label value to name, in the order in which an A-line meets the layers."""

LAYERS: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
"""The six foreground labels, superficial to deep."""

LAYER_COLOURS: dict[int, str] = dict(
    zip(LAYERS, ("#CC79A7", "#F0E442", "#D55E00", "#56B4E9", "#009E73", "#0072B2"), strict=True)
)
"""Layer label to its colour in every picture: Okabe and Ito (2008), which any colour vision can tell apart, ordered
so that neighbours along an A-line differ in lightness as well as in hue."""

NUM_CLASSES = len(LAYER_NAMES)
