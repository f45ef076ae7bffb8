"""Density of muscle in CT: shares of fat, low and normal attenuation, and whether the grey values are HU at all."""

from __future__ import annotations

from os import PathLike

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.measure.muscle.settings import MuscleSettings

__all__ = ["HU_OF_MUSCLE", "check_hu", "ct_numbers"]

HU_OF_MUSCLE = (-150.0, 200.0)
"""A muscle whose median lies outside is none, or its values are no HU."""

_LEAST_SPAN = 300


def check_hu(hu: npt.NDArray[np.floating], path: str | PathLike[str]) -> None:
    """Refuses a CT whose grey values are no HU: every body has fat, and every CT noise and air, below 0 HU.

    Raises:
        InputError: no negative value, or all of them lie within 300.
    """
    low, high = float(hu.min()), float(hu.max())
    expected = "Hounsfield units, with fat and air below 0"
    if low >= 0 and high >= _LEAST_SPAN:
        mend = "Export it again with rescale slope and intercept applied."
        raise InputError(path, f"CT values from {low:g} to {high:g}, as stored without rescaling", expected, mend)
    if high - low < _LEAST_SPAN:
        mend = "Export the HU, not a picture of them; for an MR give --modality mri."
        raise InputError(path, f"CT values from {low:g} to {high:g}, a window or normalised", expected, mend)


def ct_numbers(hu: npt.NDArray[np.floating], settings: MuscleSettings) -> dict[str, float | None]:
    """Density of the voxels of one muscle, which are rounded to whole HU before they are sorted into the ranges.

    Args:
        hu: (N,) Hounsfield units.
        settings: the ranges.

    Returns:
        Shares of all voxels in %: ``fat_percent``, ``low_percent``, ``normal_percent``, ``other_percent`` (the rest),
        together 100. ``low_of_muscle_percent``: low attenuation as a share of low and normal. ``muscle_density_hu``:
        mean of the voxels in the range of muscle. None where there is nothing to share.
    """
    names = ("fat_percent", "low_percent", "normal_percent", "other_percent", "low_of_muscle_percent")
    if not hu.size:
        return dict.fromkeys((*names, "muscle_density_hu"))
    whole = np.rint(hu)

    def within(bounds: tuple[float, float]) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = (whole >= bounds[0]) & (whole <= bounds[1])
        return found

    fat, low, normal = (
        int(np.count_nonzero(within(r))) for r in (settings.fat_hu, settings.low_hu, settings.normal_hu)
    )
    muscle = within(settings.muscle_hu)
    count = int(np.count_nonzero(muscle))
    shares = [100 * n / hu.size for n in (fat, low, normal, hu.size - fat - low - normal)]
    return {
        **dict(zip(names, shares, strict=False)),
        "low_of_muscle_percent": 100 * low / (low + normal) if low + normal else None,
        "muscle_density_hu": float(hu[muscle].mean(dtype=np.float64)) if count else None,
    }
