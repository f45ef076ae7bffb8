"""Source files that were cut off or had bits flipped: a segmentation is written whole, or an error names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from grn_monai.data.readers.base import CheckedReader, SourceVolume
from grn_monai.data.readers.enhanced import EnhancedUltrasoundReader
from grn_monai.data.readers.ultrasound import UltrasoundReader
from grn_monai.dicom import write_dicom_seg
from grn_monai.errors import InputError
from tests.data.readers.dicom_files import region, save_enhanced, save_ultrasound

CASES = 25


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(whole)
    how = rng.integers(4)
    if how == 0:
        return bytes(data[: rng.integers(len(data))])
    first, last = (0, len(data)) if how == 1 else (128, min(len(data), 2600))
    for place in rng.integers(first, last, rng.integers(1, 12)):
        data[place] ^= 1 << rng.integers(8)
    if how == 3:
        place = int(rng.integers(first, last - 4))
        data[place : place + 4] = rng.bytes(4)
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sweep", "enhanced"])
def test_damage_ends_in_a_whole_file_or_an_error_that_names_the_source(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(11)
    pixels = rng.integers(0, 255, (4, 12, 16), dtype=np.uint8)
    path, out = tmp_path / "source.dcm", tmp_path / "out.dcm"
    reader: CheckedReader
    if kind == "sweep":
        reader = UltrasoundReader(frame_spacing=1)
        save_ultrasound(path, pixels, [region((2, 1, 13, 10))])
    else:
        reader = EnhancedUltrasoundReader()
        save_enhanced(path, pixels, [(0, 0, 0.5 * k) for k in range(4)])
    volume = reader.read(path)
    assert isinstance(volume, SourceVolume)
    labels = np.ones(volume.voxels.shape, np.uint8)
    whole = path.read_bytes()
    ended = {"written": 0, "refused": 0}
    for _ in range(CASES):
        path.write_bytes(damaged(whole, rng))
        out.unlink(missing_ok=True)
        try:
            write_dicom_seg(labels, [path], out, volume.affine, volume.placement)
        except InputError as error:
            message = str(error)
            ended["refused"] += 1
            names = [p.name for p in tmp_path.iterdir()]
            if names != ["source.dcm"] or not ("source.dcm" in message or "labels" in message):
                pytest.fail(f"{names}: {message}")
        else:
            assert pydicom.dcmread(out).pixel_array.any()
            ended["written"] += 1
    assert min(ended.values()) > 3, ended
