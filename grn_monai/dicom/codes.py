"""Codes that say what a segment is: SNOMED CT, as DICOM segmentations name them (PS3.3 C.8.20.4, PS3.16)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["LUMBAR_REGION", "SEGMENT_CODES", "Concept", "SegmentCode", "segment_code"]


class Concept(NamedTuple):
    """A coded concept: Code Value, Coding Scheme Designator, Code Meaning."""

    value: str
    scheme: str
    meaning: str


class SegmentCode(NamedTuple):
    """What a segment shows.

    Attributes:
        category: Segmented Property Category (CID 7150).
        type: Segmented Property Type (baseline CID 7151).
        modifiers: of the type: laterality (CID 244), superficial or deep.
    """

    category: Concept
    type: Concept
    modifiers: tuple[Concept, ...] = ()


TISSUE = Concept("85756007", "SCT", "Tissue")
STRUCTURE = Concept("91723000", "SCT", "Anatomical Structure")
LUMBAR_REGION = Concept("52612000", "SCT", "Lumbar region")
"""Anatomic Region of every segment: the low back (CID 4)."""

LEFT = Concept("7771000", "SCT", "Left")
RIGHT = Concept("24028007", "SCT", "Right")
SUPERFICIAL = Concept("26283006", "SCT", "Superficial")
DEEP = Concept("795002", "SCT", "Deep")

# All are on the lists of PS3.16, but for adipose tissue, multifidus and iliopsoas: these three come from other public
# uses of SNOMED CT.
SKIN = Concept("39937001", "SCT", "Skin")
FAT = Concept("67769002", "SCT", "Subcutaneous adipose tissue")
FASCIA = Concept("120576005", "SCT", "Fascial layer")
MUSCLE = Concept("127954009", "SCT", "Skeletal muscle")
ERECTOR = Concept("44947003", "SCT", "Erector spinae muscle")
MULTIFIDUS = Concept("5709001", "SCT", "Multifidus muscle")
ILIOPSOAS = Concept("68455001", "SCT", "Iliopsoas muscle")

SEGMENT_CODES: Mapping[str, SegmentCode] = {
    # The nearest code of DICOM's own lists: it has skin, but not its layers. The segment label says dermis.
    "dermis": SegmentCode(TISSUE, SKIN),
    "superficial fat": SegmentCode(TISSUE, FAT, (SUPERFICIAL,)),
    # One code for both membranes, told apart by the modifier; there is none for the membranous layer of the back.
    "superficial fascial membrane": SegmentCode(STRUCTURE, FASCIA, (SUPERFICIAL,)),
    "deep fat": SegmentCode(TISSUE, FAT, (DEEP,)),
    "deep fascial membrane": SegmentCode(STRUCTURE, FASCIA, (DEEP,)),
    # The layer holds what lies below the deep membrane, erector spinae and multifidus together.
    "muscle": SegmentCode(STRUCTURE, MUSCLE),
    # TotalSegmentator's "autochthon" is the intrinsic muscles of the back, of which erector spinae is the greatest.
    "autochthon": SegmentCode(STRUCTURE, ERECTOR),
    "erector spinae": SegmentCode(STRUCTURE, ERECTOR),
    "multifidus": SegmentCode(STRUCTURE, MULTIFIDUS),
    "iliopsoas": SegmentCode(STRUCTURE, ILIOPSOAS),
    # The nearest code that could be checked: psoas major is a part of iliopsoas.
    "psoas": SegmentCode(STRUCTURE, ILIOPSOAS),
    "psoas major": SegmentCode(STRUCTURE, ILIOPSOAS),
}
"""Label name to its code, without a side."""

_SIDES = {"left": LEFT, "l": LEFT, "right": RIGHT, "r": RIGHT}


def segment_code(name: str) -> SegmentCode:
    """The code of a label by its name, with the side where the name has one.

    ``autochthon_left`` and ``Left autochthon`` are erector spinae with the modifier left. A name that is not known
    gets category and type "Tissue", and keeps its meaning in the segment's label.

    Args:
        name: label name; case, underscores and hyphens do not matter.
    """
    words = re.sub(r"[_\-]+", " ", name).lower().split()
    sides = [_SIDES[word] for word in words if word in _SIDES]
    plain = " ".join(word for word in words if word not in _SIDES and word != "muscle") or "muscle"
    known = SEGMENT_CODES.get(plain)
    if known is None:
        return SegmentCode(TISSUE, TISSUE, tuple(sides[:1]))
    return known._replace(modifiers=known.modifiers + tuple(sides[:1]))
