"""Picture frames of DICOM files: headers without pixels, and grey frames one at a time so that memory stays flat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers.base import check_claimed_size, decoding
from grn_monai.errors import InputError

__all__ = ["COLOUR_STEP", "Picture", "fill_class", "grey_frames", "has_preamble", "read_header", "read_picture"]

COLOUR_STEP = 32
"""A pixel counts as coloured where its red, green and blue differ by more than this, of 255."""

_SCANS = 'Install the decoders: pip install "grn-monai[scans]".'
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


class Picture(NamedTuple):
    """What a file says about its pixels.

    Attributes:
        frames: number of frames.
        rows: rows of a frame.
        columns: columns of a frame.
        samples: values per pixel, 1 or 3.
        bits: bits stored per value, 1 to 16.
        photometric: Photometric Interpretation.
        syntax: UID of the transfer syntax.
    """

    frames: int
    rows: int
    columns: int
    samples: int
    bits: int
    photometric: str
    syntax: str


def has_preamble(path: Path) -> bool:
    """Whether a file begins as a DICOM file does (PS3.10, 7.1), whatever its name."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def fill_class(dataset: Any) -> None:
    """Put the class and the UID of an object back where the file meta information still has them.

    Anonymisers blank these in the data set and leave them there.
    """
    for name in ("SOPClassUID", "SOPInstanceUID"):
        if not dataset.get(name):
            setattr(dataset, name, dataset.file_meta.get(f"MediaStorage{name}", ""))


def read_header(path: Path) -> Any:
    """The data set of a DICOM file without its pixels.

    Raises:
        InputError: the file is not DICOM or is damaged.
    """
    import pydicom

    with decoding(path):
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError as error:
            found = "a file that is not DICOM (no preamble and 'DICM')"
            raise InputError(path, found, "a DICOM Part 10 file", "Export the scan as DICOM again.") from error
        fill_class(dataset)
        if not dataset.SOPClassUID:
            raise InputError(path, "no SOP Class UID", "a DICOM image", "Export the scan as DICOM again.")
        return dataset


def read_picture(dataset: Any, path: Path) -> Picture:
    """Reads and checks the image pixel module (PS3.3 C.7.6.3).

    Raises:
        InputError: attributes are missing or impossible, or claim more pixels than the file can hold.
    """
    with decoding(path):
        missing = [
            name for name in ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation") if name not in dataset
        ]
        if missing:
            raise InputError(path, f"no {', '.join(missing)}", "an image", "Choose the file that holds the picture.")
        picture = Picture(
            frames=int(dataset.get("NumberOfFrames") or 1),
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            samples=int(dataset.get("SamplesPerPixel") or 1),
            bits=int(dataset.get("BitsStored") or dataset.BitsAllocated),
            photometric=str(dataset.PhotometricInterpretation),
            syntax=str(dataset.file_meta.TransferSyntaxUID),
        )
    if picture.samples not in (1, 3) or dataset.BitsAllocated not in (8, 16) or not 1 <= picture.bits <= 16:
        found = f"{picture.samples} samples per pixel of {dataset.BitsAllocated} bits"
        raise InputError(path, found, "1 or 3 samples of 8 or 16 bits", "Export the scan as grey or RGB picture.")
    values = (picture.frames, picture.rows, picture.columns, picture.samples)
    check_claimed_size(path, values, int(dataset.BitsAllocated) // 8)
    return picture


def _plugin(path: Path, syntax: str) -> str:
    """The decoder to use, or "" for pydicom's own choice.

    Pillow refuses a JPEG stream that ends early, where others fill the rest of the frame.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    if not UID(syntax).is_transfer_syntax:
        raise InputError(path, f"the transfer syntax {syntax!r}", "a DICOM transfer syntax", "Export the file again.")
    if not UID(syntax).is_encapsulated:
        return ""
    try:
        decoder = get_decoder(UID(syntax))
    except NotImplementedError as error:
        found = f"pixels compressed as {UID(syntax).name}"
        mend = "Export the scan uncompressed, or decompress it with gdcmconv --raw."
        raise InputError(path, found, "a still-picture compression such as JPEG, JPEG 2000 or RLE", mend) from error
    if not decoder.is_available:
        raise InputError(path, f"pixels compressed as {UID(syntax).name}", "an installed decoder for it", _SCANS)
    return "pillow" if syntax == _JPEG_BASELINE and "pillow" in decoder.available_plugins else ""


def _grey(frame: npt.NDArray[Any], picture: Picture) -> tuple[npt.NDArray[Any], int]:
    """Grey values of a frame ``(rows, columns)`` or ``(rows, columns, 3)``, and how many of its pixels are coloured."""
    top = 2**picture.bits - 1
    if frame.ndim == 2:
        return (top - frame if picture.photometric == "MONOCHROME1" else frame), 0
    if frame.dtype.itemsize > 1:
        frame = frame >> max(picture.bits - 8, 0) if picture.photometric != "PALETTE COLOR" else frame >> 8
    red, green, blue = (frame[..., channel].astype(np.uint16) for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    coloured = int(np.count_nonzero(spread > COLOUR_STEP))
    # Luma of ITU-R BT.601 in 256ths: red = green = blue gives that very value back.
    grey = (77 * red + 150 * green + 29 * blue + 128) >> 8
    return grey.astype(np.uint8), coloured


def grey_frames(
    path: Path, dataset: Any, picture: Picture, indices: Sequence[int], rows: slice, columns: slice
) -> Iterator[tuple[npt.NDArray[Any], int]]:
    """Decodes frames one after the other, cut to a window.

    Args:
        path: the file.
        dataset: its header.
        picture: as `read_picture` gives it.
        indices: frames to decode, ascending, from 0.
        rows: window to keep.
        columns: window to keep.

    Yields:
        Grey values ``(rows, columns)`` of each frame, uint8 (uint16 for grey pictures of more than 8 bits; colour
        becomes luma, MONOCHROME1 is inverted), and the number of its coloured pixels (see `COLOUR_STEP`).

    Raises:
        InputError: a frame cannot be decoded or is missing.
    """
    from pydicom.pixels import apply_color_lut, iter_pixels

    plugin = _plugin(path, picture.syntax)
    count = 0
    with decoding(path):
        for frame in iter_pixels(path, indices=list(indices), decoding_plugin=plugin):
            frame = frame[rows, columns]
            if picture.photometric == "PALETTE COLOR":
                frame = apply_color_lut(frame, dataset)
            yield _grey(frame, picture)
            count += 1
    if count != len(indices):
        found = f"{count} of {len(indices)} frames"
        raise InputError(path, found, "all frames that the header claims", "Export or copy the file again.")
