"""Write files whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from grn_monai.files import replacing, write_whole

__all__ = ["relative_items", "write_json", "write_nifti"]

_GZIP_LEVEL = 4  # speckle hardly compresses: level 9 takes three times as long for 1 % less


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented UTF-8 JSON."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_nifti(path: Path, data: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write a gzipped NIfTI in mm whose bytes depend on the data and the affine alone.

    Beside the data it takes memory for one slab only.

    Args:
        path: ends in .nii.gz.
        data: (X, Y, Z) in a type that NIfTI knows.
        affine: voxel to world, RAS+ mm.
    """
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    with (
        replacing(path) as temporary,
        temporary.open("wb") as target,
        # Without fixed name and time, gzip's header would differ between runs.
        gzip.GzipFile(filename="", mode="wb", fileobj=target, compresslevel=_GZIP_LEVEL, mtime=0) as file,
    ):
        image.to_stream(file)


def relative_items(items: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Make the items' absolute paths relative to the folder of the JSON file that will list them."""
    base = folder.resolve()
    return [
        {
            key: Path(os.path.relpath(value, base)).as_posix() if key in ("image", "label") else value
            for key, value in item.items()
        }
        for item in items
    ]
