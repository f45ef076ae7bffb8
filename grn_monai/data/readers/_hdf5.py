"""HDF5 as an untrusted file: nothing outside the file is opened, and no array is larger than the file can hold."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers.base import check_claimed_size
from grn_monai.errors import InputError

if TYPE_CHECKING:
    import h5py

__all__ = ["check_dataset", "child", "is_hdf5", "open_hdf5", "read_array"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_INSTALL = 'pip install "grn-monai[scans]"'
_PAIRS = (("real", "imag"), ("r", "i"))


def is_hdf5(path: Path) -> bool:
    """Whether the signature of HDF5 stands at the start of the file or, as in MATLAB v7.3, after 512 bytes."""
    with path.open("rb") as file:
        head = file.read(520)
    return head.startswith(_SIGNATURE) or head[512:520] == _SIGNATURE


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Opens an HDF5 file for reading.

    Raises:
        InputError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(path, "no h5py, which reads HDF5", "h5py installed", _INSTALL) from error
    _check_heaps(path)
    # Not locked: files on network drives often cannot be.
    with h5py.File(path, "r", locking=False) as file:
        yield file


def _check_heaps(path: Path) -> None:
    """Refuses a file whose global heaps are broken: HDF5 follows their chain of objects without end.

    A heap (file format specification 3.0, III.E) is "GCOL", its size, and objects of a 16-byte header (index, count,
    size) and their bytes, padded to 8; index 0 is the free space at the end, whose size counts its header.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = -1
        while (at := data.find(b"GCOL\x01\0\0\0", at + 1)) >= 0:
            end = at + int.from_bytes(data[at + 8 : at + 16], "little")
            place, index = at + 16, 1
            while index and place + 16 <= end <= len(data):
                index = int.from_bytes(data[place : place + 2], "little")
                size = int.from_bytes(data[place + 8 : place + 16], "little")
                place += (size + 7) // 8 * 8 + (16 if index else 0)
                if index == 0 and size == 0:
                    place = end + 1
            if not place <= end <= len(data):
                mend = "Export or copy the file again."
                raise InputError(path, "a damaged HDF5 file (a broken heap)", "a whole, readable file", mend)


def child(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """The member of a group, or None where it is missing or a link to elsewhere.

    Neither MATLAB nor USTB writes soft or external links; an external one would open another file of the reader's user.
    """
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return None
    found = group.get(name)
    return found if isinstance(found, h5py.Group | h5py.Dataset) else None


def check_dataset(path: Path, dataset: h5py.Dataset) -> None:
    """Refuses a data set whose voxels lie outside its file, or that claims more than the file can hold.

    Raises:
        InputError: one of the two.
    """
    if dataset.external or dataset.is_virtual:
        found = f"a data set {dataset.name} that keeps its values in other files"
        raise InputError(path, found, "all values in the file itself", "Save the volume into one file.")
    check_claimed_size(path, dataset.shape or (1,), dataset.dtype.itemsize)


def read_array(path: Path, dataset: h5py.Dataset, index: Any = ()) -> npt.NDArray[Any]:
    """The numbers of a data set, a compound of two equal reals as complex numbers.

    Args:
        path: the file, for errors.
        dataset: real, complex or a compound (real, imag) of two floats.
        index: what of it to read; all if left out.

    Raises:
        InputError: as :func:`check_dataset`; or the values are no numbers.
    """
    check_dataset(path, dataset)
    names = dataset.dtype.names
    if names is not None:
        parts = [dataset.dtype[name] for name in names]
        if tuple(names) not in _PAIRS or parts[0] != parts[1] or parts[0] not in (np.float32, np.float64):
            raise InputError(path, f"a data set of {dataset.dtype}", "numbers", "Choose another data set.")
        # Two reals side by side are the layout of a complex number: a view, not a copy.
        return np.asarray(dataset[index]).view(np.complex64 if parts[0].itemsize == 4 else np.complex128)
    if dataset.dtype.kind not in "iufcb":
        raise InputError(path, f"a data set of {dataset.dtype}", "numbers", "Choose another data set.")
    values = np.asarray(dataset[index])
    return values.astype(values.dtype.newbyteorder("="), copy=False)
