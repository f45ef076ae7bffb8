"""The numeric arrays of a MATLAB file, v5 to v7.3, by the names one would type in MATLAB, and read one at a time.

``pymatreader.read_mat`` reads the same files, and the tests compare with it. It is not used here because it loads a
whole workspace (gigabytes of channel data beside the one volume) and squeezes axes of length one, after which a cine
loop of planes ``(z, x, 1, frames)`` looks like a volume.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from grn_monai.data.readers._hdf5 import check_dataset, child, is_hdf5, open_hdf5, read_array
from grn_monai.data.readers.base import check_claimed_size
from grn_monai.errors import InputError

if TYPE_CHECKING:
    import h5py

__all__ = ["MatArray", "open_mat"]

# A workspace of a scanner holds struct arrays of thousands of events: their first elements are enough for a choice.
_MAX_ELEMENTS = 64
_MAX_DEPTH = 8
_MAX_ARRAYS = 20_000
_NUMERIC = {"double", "single", "logical"} | {f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)}
_EXPORT_AGAIN = "Export or copy the file again."


@dataclass(frozen=True)
class MatArray:
    """One array of numbers (or, of kind ``U``, one line of text) in a MATLAB file.

    Attributes:
        name: as one would type it, such as ``ImgData{1}``, ``Scan.volume`` or ``PData(2).PDelta``.
        shape: in MATLAB's order.
        kind: NumPy's letter: i, u, f, c, b or U.
        read: gives the values in MATLAB's order, text as a str array without axes.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    read: Callable[[], npt.NDArray[Any]]


def _labels(shape: tuple[int, ...], brackets: str) -> Iterator[tuple[int, str]]:
    """Flat positions and names of the first elements of a cell or struct array in MATLAB's (column-major) count."""
    count = math.prod(shape)
    for i in range(min(count, _MAX_ELEMENTS)):
        yield i, "" if count == 1 and brackets == "()" else f"{brackets[0]}{i + 1}{brackets[1]}"


def _checked_elements(path: Path) -> None:
    """Refuses a v5 file whose top-level elements do not lie within it: SciPy would take the memory they claim."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(128)
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128], "")
        if not order:
            raise InputError(path, "no MATLAB file", "a .mat file, v5 to v7.3", "Save it in MATLAB with save -v7.3.")
        at = 128
        while at < size:
            file.seek(at)
            tag = file.read(8)
            kind, count = struct.unpack(order + "II", tag) if len(tag) == 8 else (0, 0)
            if kind not in (14, 15) or at + 8 + count > size:  # miMATRIX, miCOMPRESSED
                raise InputError(path, "a damaged or cut-off MATLAB file", "a whole file", _EXPORT_AGAIN)
            at += 8 + count


class _Version5:
    """A file of MATLAB v5 to v7 through SciPy, which reads only numbers and text: no object is ever built."""

    def __init__(self, path: Path, wanted: frozenset[str] | None) -> None:
        from scipy.io import whosmat
        from scipy.io.matlab import MatlabFunction, MatlabOpaque

        self.path = path
        self.foreign = (MatlabFunction, MatlabOpaque)
        self.arrays: dict[str, MatArray] = {}
        _checked_elements(path)
        nested = []
        for name, shape, kind in whosmat(path):
            if wanted is not None and name not in wanted:
                continue
            if kind in ("struct", "cell", "char"):
                nested.append(name)
            elif kind in _NUMERIC:
                # A complex array shows only when it is read.
                self.arrays[name] = MatArray(name, tuple(shape), "f", partial(self._variable, name, tuple(shape)))
        if nested:
            for name, value in self._load(nested).items():
                self._walk(name, value, 0)

    def _load(self, names: list[str]) -> dict[str, Any]:
        from scipy.io import loadmat

        loaded = loadmat(self.path, variable_names=names, squeeze_me=False, struct_as_record=True)
        return {name: loaded[name] for name in names if name in loaded}

    def _variable(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        check_claimed_size(self.path, shape, 1)
        values = np.asarray(self._load([name])[name])
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def _walk(self, name: str, value: Any, depth: int) -> None:
        if not isinstance(value, np.ndarray) or isinstance(value, self.foreign):
            return  # a sparse matrix, an object, a function handle
        if depth > _MAX_DEPTH or len(self.arrays) > _MAX_ARRAYS:
            return
        if value.dtype.names is not None:
            flat = value.ravel(order="F")
            for i, label in _labels(value.shape, "()"):
                for field in value.dtype.names:
                    self._walk(f"{name}{label}.{field}", flat[i][field], depth + 1)
        elif value.dtype.kind == "O":
            flat = value.ravel(order="F")
            for i, label in _labels(value.shape, "{}"):
                self._walk(f"{name}{label}", flat[i], depth + 1)
        elif value.dtype.kind == "U" and value.size == 1:
            self.arrays[name] = MatArray(name, (), "U", lambda: value.reshape(()))
        elif value.dtype.kind in "iufcb":
            native = value.dtype.newbyteorder("=")
            self.arrays[name] = MatArray(name, value.shape, value.dtype.kind, lambda: value.astype(native, copy=False))


class _Version73:
    """A file of MATLAB v7.3, which is HDF5 with the axes in reverse."""

    def __init__(self, path: Path, file: h5py.File, wanted: frozenset[str] | None) -> None:
        self.path, self.file = path, file
        self.arrays: dict[str, MatArray] = {}
        for name in file:
            # '#refs#' and '#subsystem#' hold the contents of cells and of objects.
            if not name.startswith("#") and (wanted is None or name in wanted):
                self._walk(name, child(file, name), 0)

    def _walk(self, name: str, node: h5py.Group | h5py.Dataset | None, depth: int) -> None:
        import h5py

        if node is None or depth > _MAX_DEPTH or len(self.arrays) > _MAX_ARRAYS:
            return
        given = node.attrs.get("MATLAB_class", b"")
        kind = given.decode("ascii", "replace") if isinstance(given, bytes) else str(given)
        if isinstance(node, h5py.Group):
            if kind in ("struct", "") and "MATLAB_sparse" not in node.attrs:
                for field in node:
                    self._field(name, field, child(node, field), depth)
        elif "MATLAB_empty" in node.attrs or node.shape is None:
            return
        elif h5py.check_ref_dtype(node.dtype) is not None:
            if kind == "cell":
                self._elements(node, "{}", lambda label, held: self._walk(f"{name}{label}", held, depth + 1))
        elif kind == "char" and node.dtype.kind == "u" and node.size <= 4096:
            self.arrays[name] = MatArray(name, (), "U", lambda: self._text(node))
        elif kind in _NUMERIC or (not kind and (node.dtype.kind in "iufc" or node.dtype.names)):
            self.arrays[name] = MatArray(
                name, node.shape[::-1], "c" if node.dtype.names else node.dtype.kind, lambda: self._numbers(node)
            )

    def _field(self, name: str, field: str, node: h5py.Group | h5py.Dataset | None, depth: int) -> None:
        import h5py

        if (
            isinstance(node, h5py.Dataset)
            and h5py.check_ref_dtype(node.dtype) is not None
            and "MATLAB_class" not in node.attrs
        ):
            # A struct array keeps each field as an array of references to the values of its elements.
            self._elements(node, "()", lambda label, held: self._walk(f"{name}{label}.{field}", held, depth + 1))
        else:
            self._walk(f"{name}.{field}", node, depth + 1)

    def _elements(self, node: h5py.Dataset, brackets: str, visit: Callable[[str, Any], None]) -> None:
        check_dataset(self.path, node)
        # MATLAB counts column by column, which in the reversed axes of the file is row by row.
        references = node[()].ravel()
        for i, label in _labels(node.shape, brackets):
            if references[i]:
                visit(label, self.file[references[i]])

    def _numbers(self, node: h5py.Dataset) -> npt.NDArray[Any]:
        return read_array(self.path, node).T

    def _text(self, node: h5py.Dataset) -> npt.NDArray[Any]:
        return np.array("".join(chr(code) for code in read_array(self.path, node).ravel()))


@contextlib.contextmanager
def open_mat(path: Path, wanted: frozenset[str] | None = None) -> Iterator[dict[str, MatArray]]:
    """The arrays of a MATLAB file by name, readable while the context lasts.

    Structs, struct arrays and cells are entered (to 64 elements and 8 levels); objects, tables, function handles and
    sparse matrices are passed over. Nothing in the file is evaluated or unpickled.

    Args:
        path: a ``.mat`` file of v5 to v7.3.
        wanted: top-level variables to look at; all if left out.

    Raises:
        InputError: the file is no MATLAB file, is damaged, or claims more than it can hold.
    """
    if is_hdf5(path):
        with open_hdf5(path) as file:
            yield _Version73(path, file, wanted).arrays
    else:
        yield _Version5(path, wanted).arrays
