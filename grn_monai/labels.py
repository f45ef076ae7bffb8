"""What is labelled, and by which values: the tissue layers of the low back, and the lumbar muscles in CT and MR."""

from __future__ import annotations

__all__ = [
    "CT_MUSCLES",
    "LAYERS",
    "LAYER_COLOURS",
    "LAYER_NAMES",
    "LUMBAR_MUSCLE",
    "MRI_MUSCLES",
    "MUSCLE_COLOURS",
    "NUM_CLASSES",
    "TOTALSEGMENTATOR_MUSCLES",
]

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

LUMBAR_MUSCLE: dict[int, str] = {0: "background", 1: "lumbar muscle"}
"""The one class of the published lumbar CT U-Net."""

CT_MUSCLES: dict[int, str] = {
    0: "background",
    1: "autochthon left",
    2: "autochthon right",
    3: "iliopsoas left",
    4: "iliopsoas right",
}
"""Muscles that public CT label sets hold. Left and right are the person's own, here and below."""

TOTALSEGMENTATOR_MUSCLES: dict[int, int] = {86: 1, 87: 2, 88: 3, 89: 4}
"""Value in TotalSegmentator's label maps (class map "total", version 2) to value in `CT_MUSCLES`."""

MRI_MUSCLES: dict[int, str] = {
    0: "background",
    1: "multifidus left",
    2: "multifidus right",
    3: "erector spinae left",
    4: "erector spinae right",
    5: "psoas left",
    6: "psoas right",
}
"""The six muscles of the published paraspinal MRI networks (Sci Rep 2022)."""

MUSCLE_COLOURS: dict[str, str] = {
    "lumbar muscle": "#0072B2",
    "autochthon left": "#0072B2",
    "autochthon right": "#56B4E9",
    "iliopsoas left": "#D55E00",
    "iliopsoas right": "#E69F00",
    "multifidus left": "#009E73",
    "multifidus right": "#F0E442",
    "erector spinae left": "#0072B2",
    "erector spinae right": "#56B4E9",
    "psoas left": "#D55E00",
    "psoas right": "#E69F00",
}
"""Muscle to its colour in every picture, of Okabe and Ito (2008): a muscle's two sides differ in lightness."""
