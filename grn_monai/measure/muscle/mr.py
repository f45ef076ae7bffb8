"""Fat in MR: bias field, the region in which the threshold is looked for, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813  (the field's name for it)
from scipy import ndimage

from grn_monai.errors import InputError
from grn_monai.measure.muscle.threshold import FatThreshold

__all__ = ["correct_bias", "mr_fat_numbers", "threshold_region"]

_N4_SIZE = 32
_N4_ITERATIONS = (20, 20)
_DARK_PERCENTILE = 5
_MOST_BELOW_ZERO = 0.01


def correct_bias(grey: npt.NDArray[Any], spacing_mm: Sequence[float]) -> npt.NDArray[np.float32]:
    """Takes the slow change of brightness out of an MR: N4 (Tustison et al., IEEE TMI 2010;29:1310) by SimpleITK.

    The field is fitted to a coarse copy (32 to 63 pixels along a slice's axes), in the voxels that the triangle
    threshold tells from the dark background, and divided out.

    Args:
        grey: (X, Y, Z) grey values; the few below 0 that resampling leaves are set to 0.
        spacing_mm: voxel size.

    Returns:
        (X, Y, Z) corrected grey values.

    Raises:
        InputError: more than 1 % of the values are below 0, as in a normalised scan: a field multiplies values from 0
            on, and has no meaning there.
    """
    if np.count_nonzero(grey < 0) > _MOST_BELOW_ZERO * grey.size:
        found = f"{100 * np.count_nonzero(grey < 0) / grey.size:.0f} % of the grey values below 0, as if normalised"
        mend = "Give the scan as exported, or leave --bias-correction out."
        raise InputError("bias correction", found, "grey values from 0 on", mend)
    image = sitk.GetImageFromArray(np.maximum(grey, 0).astype(np.float32).T)
    image.SetSpacing([float(step) for step in spacing_mm])
    factors = [max(1, size // _N4_SIZE) for size in image.GetSize()[:2]] + [1]
    small = sitk.Shrink(image, factors)
    mask = sitk.TriangleThreshold(small, 0, 1, 256)
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    # A level halves the control grid's step, which needs a few slices.
    n4.SetMaximumNumberOfIterations(_N4_ITERATIONS if min(small.GetSize()) >= 8 else _N4_ITERATIONS[:1])
    n4.Execute(small, mask)
    field = sitk.Cast(sitk.Exp(n4.GetLogBiasFieldAsImage(image)), sitk.sitkFloat32)
    corrected: npt.NDArray[np.float32] = sitk.GetArrayFromImage(image / field).T
    return corrected


def threshold_region(
    labels: npt.NDArray[np.integer], grey: npt.NDArray[Any], spacing_mm: Sequence[float], margin_mm: float
) -> npt.NDArray[np.float32]:
    """Grey values of all muscles and of what lies around them, where there is fat to compare with.

    Around them, voxels darker than nineteen in twenty of the muscles' own are left out: air, cortical bone and tendon
    are neither muscle nor fat, and would make a peak of their own.

    Args:
        labels: (X, Y, Z) labels, 0 outside of the muscles.
        grey: (X, Y, Z) grey values.
        spacing_mm: voxel size.
        margin_mm: how far around, from centre to centre of voxels.

    Returns:
        (N,) values; none where there is no muscle.
    """
    muscle = labels > 0
    box = ndimage.find_objects(muscle.astype(np.uint8))
    if not box:
        return np.zeros(0, np.float32)
    wide = tuple(
        slice(max(0, part.start - reach), part.stop + reach)
        for part, reach in zip(box[0], (int(np.ceil(margin_mm / step)) for step in spacing_mm), strict=True)
    )
    muscle, values = muscle[wide], grey[wide]
    inside = values[muscle]
    if not margin_mm:
        return inside.astype(np.float32)
    near = ndimage.distance_transform_edt(~muscle, sampling=spacing_mm) <= margin_mm
    around = values[near & ~muscle]
    around = around[around >= np.percentile(inside, _DARK_PERCENTILE)]
    return np.concatenate([inside, around]).astype(np.float32)


def mr_fat_numbers(values: npt.NDArray[Any], found: FatThreshold | None) -> dict[str, float | None]:
    """Fat in the voxels of one muscle: ``fat_percent``, the share of them above the threshold; None of no voxel.

    Args:
        values: (N,) grey values.
        found: the scan's threshold, None without muscle.
    """
    if not values.size or found is None:
        return {"fat_percent": None}
    return {"fat_percent": 100 * np.count_nonzero(values > found.value) / values.size}
