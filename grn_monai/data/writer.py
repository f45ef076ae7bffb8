"""Writes NIfTI files so that a reader never meets half a file."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
from monai.data import NibabelWriter
from monai.data.image_writer import logger
from monai.utils import convert_to_numpy

from grn_monai.files import replacing

__all__ = ["AtomicNibabelWriter"]


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's ``NibabelWriter``, except that the file appears complete or not at all.

    It writes to a hidden temporary name in the same folder and renames. The header carries the affine as both sform
    and qform (code 1, scanner) and says that positions are in mm. For use as
    ``SaveImaged(..., writer=AtomicNibabelWriter)`` with ``output_ext=".nii.gz"``; ``SaveImaged`` wraps any error of
    its writer in a RuntimeError that quotes it.
    """

    output_dtype: Any

    def write(self, filename: str | PathLike[str], verbose: bool = False, **obj_kwargs: Any) -> None:
        """Writes the volume that ``set_data_array`` and ``set_metadata`` were given.

        Args:
            filename: the file to make or to replace, ending in ``.nii`` or ``.nii.gz``.
            verbose: log the name.
            obj_kwargs: passed to ``create_backend_obj``.

        Raises:
            InputError: the folder is not writable, or the disk is full.
        """
        path = Path(filename)
        with replacing(path) as temporary:
            super().write(temporary, **obj_kwargs)
        if verbose:
            logger.info(f"wrote: {path}")

    def set_metadata(self, meta_dict: Mapping[str, Any] | None, resample: bool = True, **options: Any) -> None:
        """As in ``NibabelWriter``; without resampling the affine is taken as it is.

        MONAI 1.6.1 goes through its resampler all the same, which takes a volume without channel axis for
        two-dimensional and then calls an affine that permutes the axes singular.
        """
        if resample:
            super().set_metadata(meta_dict, resample, **options)
            return
        _, affine, _ = self.get_meta_info(meta_dict)
        self.affine = convert_to_numpy(affine)
        self.data_obj: Any = convert_to_numpy(self.data_obj)
        if self.output_dtype is None:
            self.output_dtype = self.data_obj.dtype

    @classmethod
    def create_backend_obj(cls, *args: Any, **kwargs: Any) -> nib.Nifti1Image:
        """As in ``NibabelWriter``, with the unit of length stated."""
        image: nib.Nifti1Image = super().create_backend_obj(*args, **kwargs)
        image.header.set_xyzt_units("mm")
        return image
