"""What all readers share: one kind of result, one kind of error, and MONAI's ``ImageReader`` around them."""

from __future__ import annotations

import contextlib
import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from grn_monai.errors import InputError

__all__ = [
    "CheckedReader",
    "SourceVolume",
    "check_claimed_size",
    "check_spacing",
    "check_volume",
    "decoding",
    "fill_spacing",
    "probe_affine",
]

_EXPORT_AGAIN = "Export or copy the file again."
# Deflate shrinks at most 1032 times; nothing here is stored in a denser way, constant JPEG frames included.
_MAX_RATIO = 1100
_MAX_BYTES = 16 * 2**30
_SPACING_TOLERANCE = 0.01


@dataclass(frozen=True)
class SourceVolume:
    """One volume as a reader found it.

    Attributes:
        voxels: ``(X, Y, Z)``, real or complex, in the type of the file; for ultrasound Z is depth, away from the probe.
        affine: voxel index to position, RAS in mm, ``(4, 4)`` float64.
        path: the file, or the first of several.
        oriented: False where the file says nothing of the patient, so that `affine` is that of `probe_affine`.
        facts: what else is worth recording (JSON types), such as which variable or region was taken. Never anything
            that could tell who was scanned: no names, ids, dates or free text of the file.
        placement: for a volume made from picture frames, where its voxels lie in them:
            ``{"frames": [first, stop], "rows": [first, stop], "columns": [first, stop]}`` with the voxel axes
            (column, frame, row); empty otherwise. Where planes are sorted or axes turned, ``"axes"`` names the frame
            axis along each voxel axis, ``"reversed"`` tells which voxel axes run backwards along it, and ``"frames"``
            lists the frame of each plane.
        private: what the file calls its parts (JSON types), such as the name of the variable that was taken. A user
            may have named it after a person: it belongs into no record that leaves the lab.
    """

    voxels: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    path: Path
    oriented: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)
    placement: Mapping[str, Any] = field(default_factory=dict)
    private: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the three axes in mm."""
        x, y, z = (float(step) for step in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z


def probe_affine(shape: Sequence[int], spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """The affine of a scan whose file does not say how the patient lay.

    It is that of the simulated cohorts, a probe on the back of a prone patient: X to the left, Y towards the head, Z
    (depth) anterior; the origin is the middle of the probe's face. Lengths are true, directions are conventions.

    Args:
        shape: voxels ``(X, Y, Z)``.
        spacing: voxel size ``(X, Y, Z)`` in mm.
    """
    dx, dy, dz = spacing
    affine = np.zeros((4, 4))
    affine[0, 0], affine[2, 1], affine[1, 2], affine[3, 3] = -dx, dy, dz, 1
    affine[:3, 3] = (shape[0] - 1) / 2 * dx, dz / 2, -(shape[1] - 1) / 2 * dy
    return affine


def check_spacing(path: str | PathLike[str], spacing: Any, mend: str) -> tuple[float, float, float]:
    """Three positive lengths in mm, or an error that says how to give them.

    Args:
        path: the file that the spacing is for.
        spacing: what was found: None, or a sequence of three numbers.
        mend: how the user gives the spacing.

    Raises:
        InputError: there is none, or it is not three positive finite numbers below 1000 mm.
    """
    expected = "the voxel size along X, Y and Z in mm"
    if spacing is None:
        raise InputError(path, "no voxel size", expected, mend)
    try:
        values = [float(step) for step in spacing]
    except (TypeError, ValueError):
        values = []
    if len(values) != 3 or not all(math.isfinite(v) and 0 < v < 1000 for v in values):
        raise InputError(path, f"the voxel size {spacing!r}", "three positive numbers of mm", mend)
    return values[0], values[1], values[2]


def fill_spacing(
    path: str | PathLike[str], own: Sequence[float | None], given: Sequence[float | None] | None, mend: str
) -> tuple[float, float, float]:
    """The voxel size that a file has, with what was given where it has none.

    A given length never takes the place of the file's own: where both are there, they have to agree within 1 %, and the
    file's holds.

    Args:
        path: the file.
        own: mm along X, Y, Z in the file; None for each that it does not tell.
        given: the same from the user; None: nothing.
        mend: how the user gives what is missing.

    Raises:
        InputError: one is missing in both, the two differ, or a length is not positive, finite and below 1000 mm.
    """
    told = (None, None, None) if given is None else tuple(given)
    if any(length is not None for length in told):
        # Faults of what was given show, also where the file has its own.
        check_spacing(path, [1.0 if length is None else length for length in told], mend)
    for axis, held, length in zip("XYZ", own, told, strict=True):
        if held is not None and length is not None and abs(length - held) > _SPACING_TOLERANCE * held:
            found = f"spacing {length:g} mm given along {axis}, where the file itself says {held:.6g} mm"
            again = "Leave spacing out for files that have their own; if the file is wrong, correct it there."
            raise InputError(path, found, "one voxel size (the same within 1 %)", again)
    steps = [length if held is None else held for held, length in zip(own, told, strict=True)]
    if missing := [axis for axis, step in zip("XYZ", steps, strict=True) if step is None]:
        found = f"no voxel size along {', '.join(missing)}"
        raise InputError(path, found, "the voxel size along X, Y and Z in mm", mend)
    return check_spacing(path, steps, mend)


def check_volume(path: str | PathLike[str], volume: int | None, count: int) -> int:
    """The number of the volume to read in a file of several, from 1.

    Args:
        path: the file.
        volume: the number asked for, from 1; None: none was.
        count: volumes (frames over time) that the file holds.

    Raises:
        InputError: there is no such volume, or there are several and none was asked for.
    """
    mend = "Choose one of them with the reader's option volume, counted from 1."
    if volume is None and count > 1:
        raise InputError(path, f"{count} volumes (frames over time)", "one, or a choice", mend)
    number = 1 if volume is None else volume
    if not 1 <= number <= count:
        raise InputError(path, f"volume {number} asked for, of {count}", f"a number from 1 to {count}", mend)
    return number


def check_claimed_size(path: str | PathLike[str], shape: Sequence[int], itemsize: int) -> None:
    """Refuse a volume that its file cannot hold, before memory is taken for it.

    Args:
        path: the file.
        shape: voxels that its header claims.
        itemsize: bytes of one.

    Raises:
        InputError: an axis is empty or negative; or the claim is above 16 GiB or 1100 times the size of the file, which
            no compression in use reaches.
    """
    axes = " × ".join(map(str, shape))
    if not shape or min(shape) < 1:
        raise InputError(path, f"a volume of {axes or 'no'} voxels", "at least one along each axis", _EXPORT_AGAIN)
    claimed = math.prod(int(n) for n in shape) * itemsize
    if claimed > min(_MAX_BYTES, max(_MAX_RATIO * Path(path).stat().st_size, 2**20)):
        found = f"a header that claims {axes} voxels ({claimed / 2**20:.3g} MiB) in {Path(path).stat().st_size} bytes"
        raise InputError(path, found, "a header that suits the file, up to 16 GiB", _EXPORT_AGAIN)


@contextlib.contextmanager
def decoding(path: str | PathLike[str]) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one `InputError` that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged file gives pages of them
            yield
    except InputError:
        raise
    except MemoryError as error:
        found = "a volume that does not fit into memory"
        raise InputError(path, found, "a smaller volume", "Use a machine with more memory, or crop it.") from error
    except Exception as error:  # the libraries raise dozens of unrelated types
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        lines = [line for line in lines if "Exception thrown in" not in line] or lines  # ITK's place in its source
        reason = f"{type(error).__name__}: {(lines or ['no reason given'])[0][:200]}"
        raise InputError(
            path, f"a file that cannot be decoded ({reason})", "a whole, readable file", _EXPORT_AGAIN
        ) from error


@dataclass(frozen=True)
class _Refused:
    """What stands for a volume that `CheckedReader.read` refused."""

    error: InputError


class CheckedReader(ImageReader):
    """A MONAI reader whose errors are `InputError` and whose result is one grey volume with its affine.

    Subclasses set `suffixes` and write `_read`. For use as ``LoadImaged(reader=...)``; ``LoadImage`` wraps any error of
    a reader, and :func:`grn_monai.errors.find_input_error` finds it again.

    Attributes:
        suffixes: endings of the file names it takes, lower case.
        many: whether several files together are one volume (a series, a stack).
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    many: ClassVar[bool] = False

    def verify_suffix(self, filename: Sequence[str | PathLike[str]] | str | PathLike[str]) -> bool:
        """Whether all names have an ending that this reader takes."""
        return all(Path(name).name.lower().endswith(self.suffixes) for name in ensure_tuple(filename))

    def read(
        self, data: Sequence[str | PathLike[str]] | str | PathLike[str], **kwargs: Any
    ) -> SourceVolume | list[SourceVolume] | _Refused:
        """Reads the named file (several: a list; for a reader of `many`, one volume).

        ``LoadImage``, which names files in a tuple, takes an error of `read` as leave to try MONAI's own readers, and
        those read a series with a missing slice or a raw file of unknown spacing without a word. So what is refused
        there is handed on, and raised by `get_data`.

        Raises:
            InputError: a file is missing, empty or damaged, or does not hold what this reader takes.
        """
        paths = [Path(path) for path in ensure_tuple(data)]
        try:
            if self.many:
                return self.load(paths)
            volumes = [self.load([path]) for path in paths]
        except InputError as error:
            if isinstance(data, tuple):
                return _Refused(error)
            raise
        return volumes[0] if len(volumes) == 1 else volumes

    def load(self, paths: Sequence[Path]) -> SourceVolume:
        """Reads one volume from its files, with the checks that all formats share."""
        for path in paths:
            if not path.exists():
                raise InputError(path, "no such file", "a volume", "Check the path.")
            if path.is_dir() and not self.many:
                raise InputError(path, "a folder", "a file", "Name the file itself.")
            if path.is_file() and path.stat().st_size == 0:
                raise InputError(path, "an empty file (0 bytes)", "a volume", _EXPORT_AGAIN)
        with decoding(paths[0]):
            volume = self._read(paths)
        if volume.voxels.ndim != 3:
            found = f"data of shape {volume.voxels.shape}"
            raise InputError(paths[0], found, "a volume of three axes", "Choose one volume of the file.")
        return volume

    @abstractmethod
    def _read(self, paths: Sequence[Path]) -> SourceVolume:
        """Reads the volume; anything may be raised."""

    def get_data(
        self, img: SourceVolume | Sequence[SourceVolume] | _Refused
    ) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Voxels ``(X, Y, Z)`` and MONAI's meta data; several volumes become channels ``(C, X, Y, Z)``.

        Raises:
            InputError: several volumes that do not have one shape, or what `read` refused.
        """
        if isinstance(img, _Refused):
            raise img.error
        volumes = [img] if isinstance(img, SourceVolume) else list(img)
        first = volumes[0]
        for other in volumes[1:]:
            if other.voxels.shape != first.voxels.shape:
                expected = f"the shape of {first.path.name}, {first.voxels.shape}"
                raise InputError(other.path, f"shape {other.voxels.shape}", expected, "Load such scans one by one.")
        meta = {
            MetaKeys.AFFINE: first.affine,
            MetaKeys.ORIGINAL_AFFINE: first.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(first.voxels.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel" if len(volumes) == 1 else 0,
            MetaKeys.SPACE: SpaceKeys.RAS,
            "filename_or_obj": str(first.path),
        }
        return (first.voxels if len(volumes) == 1 else np.stack([v.voxels for v in volumes])), meta
