"""What is called muscle, low density and fat, and how; ranges in common use by default."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from grn_monai.errors import InputError

__all__ = ["METHODS", "MODALITIES", "MuscleSettings"]

MODALITIES = ("ct", "mri")
METHODS = ("otsu", "gaussian")
"""Ways to find the threshold between muscle and fat in MR."""

Range = tuple[float, float]


@dataclass(frozen=True)
class MuscleSettings:
    """Options of the measurement; all ranges include both ends, in whole HU.

    Fat −190…−30 HU and muscle −29…150 HU: Aubrey et al., Acta Physiol 2014;210:489 (a review of the ranges in use),
    after cadaver work of Mitsiopoulos et al., J Appl Physiol 1998;85:115. Muscle of low and of normal attenuation as
    classes: Kim et al., JMIR Med Inform 2020;8:e23049; the cut between them at 30 HU is the one in common use. That a
    lower density means more lipid: Goodpaster et al., J Appl Physiol 2000;89:104.

    Attributes:
        normal_hu: muscle of normal attenuation.
        low_hu: muscle of low attenuation.
        fat_hu: adipose tissue.
        threshold: of fat in MR: "otsu", "gaussian" (mixture of two), or a grey value above which a voxel is fat.
        margin_mm: how far around the muscles grey values are taken for that threshold, ≥ 0.
        bias_correction: take out the bias field of an MR first (N4).
        erode_mm: voxels this near to one outside of their muscle (from centre to centre, within the slice) do not
            count for density and fat; areas and volumes keep them. 0 keeps all.
        average: slices on each side of a level's own that are averaged with it.
    """

    normal_hu: Range = (30, 150)
    low_hu: Range = (-29, 29)
    fat_hu: Range = (-190, -30)
    threshold: str | float = "otsu"
    margin_mm: float = 5.0
    bias_correction: bool = False
    erode_mm: float = 0.0
    average: int = 0

    def __post_init__(self) -> None:
        """Refuses options that contradict each other.

        Raises:
            InputError: ranges that are empty or overlap, negative lengths, or an unknown way to find the threshold.
        """
        bounds = [*self.fat_hu, *self.low_hu, *self.normal_hu]
        ordered = all(math.isfinite(bound) and bound == round(bound) for bound in bounds) and (
            bounds[0] <= bounds[1] < bounds[2] <= bounds[3] < bounds[4] <= bounds[5]
        )
        if not ordered:
            found = ", ".join(f"{low:g} to {high:g}" for low, high in (self.fat_hu, self.low_hu, self.normal_hu))
            expected = "fat below low below normal attenuation, in whole HU that do not overlap"
            raise InputError("ranges of HU", found, expected, "Correct --fat-hu, --low-hu or --normal-hu.")
        if isinstance(self.threshold, str) and self.threshold not in METHODS:
            mend = "Correct --threshold."
            raise InputError("--threshold", repr(self.threshold), f"{', '.join(METHODS)} or a grey value", mend)
        lengths: Sequence[tuple[str, float]] = (("--margin-mm", self.margin_mm), ("--erode-mm", self.erode_mm))
        for name, value in (*lengths, ("--average", self.average)):
            if not (math.isfinite(value) and value >= 0):
                raise InputError(name, f"{value:g}", "0 or more", "Correct the option.")
        if not isinstance(self.threshold, str) and not math.isfinite(self.threshold):
            raise InputError("--threshold", f"{self.threshold:g}", "a finite grey value", "Correct the option.")

    @property
    def muscle_hu(self) -> Range:
        """Muscle of low and normal attenuation together."""
        return self.low_hu[0], self.normal_hu[1]
