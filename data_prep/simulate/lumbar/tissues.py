"""What the phantom is made of."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["FAT", "Tissue"]


class Tissue(IntEnum):
    """Codes of a noiseless tissue map."""

    AIR = 0
    SKIN = 1
    SUBCUTANEOUS_FAT = 2
    FAT = 3
    """Visceral, retroperitoneal and intermuscular fat."""
    MUSCLE = 4
    """Of the labelled muscles."""
    MUSCLE_FAT = 5
    """Fat within the fascia of a labelled muscle: it belongs to the muscle's label, as annotators outline."""
    OTHER_MUSCLE = 6
    """Abdominal wall and quadratus lumborum; never labelled."""
    FASCIA = 7
    CORTICAL_BONE = 8
    CANCELLOUS_BONE = 9
    ANNULUS = 10
    NUCLEUS = 11
    CSF = 12
    NERVE = 13
    VESSEL = 14
    KIDNEY = 15
    LIVER = 16
    BOWEL = 17
    GAS = 18
    CALCIFICATION = 19
    TABLE_SHELL = 20
    TABLE_FOAM = 21


FAT = (Tissue.SUBCUTANEOUS_FAT, Tissue.FAT, Tissue.MUSCLE_FAT)
