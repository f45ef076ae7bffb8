"""Decodes each volume once into an uncompressed file, from which single slices are then read."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from grn_monai.data.volume import read_volume
from grn_monai.errors import InputError
from grn_monai.files import file_stamps, replacing
from grn_monai.labels import NUM_CLASSES
from grn_monai.transforms.depth import DepthLast
from grn_monai.transforms.echo import echo_range, scale_echo

try:
    import fcntl
except ImportError:  # not on Windows; two workers may then decode the same volume, which costs time only
    fcntl = None  # type: ignore[assignment]

__all__ = ["VolumeCache"]

_FORMAT = 1  # raise it when the contents of the files change, so that older ones are not used

_process_folder: Path | None = None


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # a forked worker inherits the exit handler, but not the folder
        shutil.rmtree(folder, ignore_errors=True)


def _temporary_folder() -> Path:
    """One folder for this process, removed when it ends."""
    global _process_folder
    if _process_folder is None:
        _process_folder = Path(tempfile.mkdtemp(prefix="grn-monai-slices-"))
        atexit.register(_remove_own, _process_folder, os.getpid())
    return _process_folder


class VolumeCache:
    """Volumes in the scan frame as memory maps ``(1, X, Y, Z)``.

    The first request for a volume reads and checks it, brings it to the scan frame and writes it uncompressed; every
    later one, in any process, maps that file. Images with 8 bits stay uint8, others are scaled to [−1, 1] and kept as
    float16; labels are uint8. A file is named by a digest of path, time, size and options of its source, so a changed
    source is decoded anew. Entries appear by renaming, and a lock keeps workers from decoding the same volume twice.

    Args:
        folder: where the files go; ``None`` for a temporary folder that is removed when the process ends.
        depth_axis: see :class:`grn_monai.transforms.DepthLast`.
        depth_reversed: see :class:`grn_monai.transforms.DepthLast`.
        mode: see :class:`grn_monai.transforms.ScaleEcho`.
        lower: see :class:`grn_monai.transforms.ScaleEcho`.
        upper: see :class:`grn_monai.transforms.ScaleEcho`.
        num_classes: for labels, the number of classes with background.
        max_open: memory maps held open at a time.
    """

    def __init__(
        self,
        folder: str | PathLike[str] | None = None,
        depth_axis: int | str = 2,
        depth_reversed: bool = False,
        mode: str = "auto",
        lower: float = 0.5,
        upper: float = 99.5,
        num_classes: int = NUM_CLASSES,
        max_open: int = 16,
    ) -> None:
        echo_range(torch.tensor([0.0, 1.0]), mode, lower, upper)  # checks the options
        self.folder = _temporary_folder() if folder is None else Path(folder).absolute()
        self.depth_last = DepthLast(depth_axis, depth_reversed)
        self.mode, self.lower, self.upper = mode, lower, upper
        self.num_classes, self.max_open = num_classes, max_open
        self._open: OrderedDict[Path, npt.NDArray[Any]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would be the whole volume; a worker opens its own.
        return {**self.__dict__, "_open": OrderedDict()}

    def entry(self, path: str | PathLike[str], kind: Literal["image", "label"]) -> Path:
        """The file that holds, or will hold, the decoded volume.

        Raises:
            InputError: the source cannot be found.
        """
        source = Path(path).absolute()
        stamps = file_stamps(source)
        digest = hashlib.sha256(repr((_FORMAT, str(source), stamps, kind, *self._options(kind))).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.{kind}.npy"

    def _options(self, kind: Literal["image", "label"]) -> tuple[Any, ...]:
        """What the decoded voxels depend on, beside the source."""
        depth = (self.depth_last.depth_axis, self.depth_last.depth_reversed)
        return depth, (self.num_classes,) if kind == "label" else (self.mode, self.lower, self.upper)

    def get(self, path: str | PathLike[str], kind: Literal["image", "label"], entry: Path) -> npt.NDArray[Any]:
        """The volume ``(1, X, Y, Z)`` in the scan frame, as a read-only memory map.

        Args:
            path: the source.
            kind: what it is.
            entry: what :meth:`entry` gave for it.

        Raises:
            InputError: the source is not valid, or the cache folder cannot be written.
        """
        volume = self._open.get(entry)
        if volume is None:
            volume = self._map(entry)
            if volume is None:
                self._fill(path, kind, entry)
                volume = np.load(entry, mmap_mode="r")
            self._open[entry] = volume
            while len(self._open) > self.max_open:
                self._open.popitem(last=False)
        self._open.move_to_end(entry)
        return volume

    @staticmethod
    def _map(entry: Path) -> npt.NDArray[Any] | None:
        try:
            volume: npt.NDArray[Any] = np.load(entry, mmap_mode="r")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, EOFError):  # cut short by a crash of the machine: make it again
            entry.unlink(missing_ok=True)
            return None
        return volume

    def _fill(self, path: str | PathLike[str], kind: Literal["image", "label"], entry: Path) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(entry):
                if entry.exists():  # another worker was faster
                    return
                array = self._decode(path, kind)
                with replacing(entry) as temporary, open(temporary, "wb") as file:
                    np.save(file, array)
        except OSError as err:
            mend = "Free space on the disk, or set cache_dir to another folder."
            raise InputError(self.folder, f"that writing fails ({err})", "a writable cache folder", mend) from err

    @contextlib.contextmanager
    def _lock(self, entry: Path) -> Iterator[None]:
        if fcntl is None:
            yield
            return
        with open(entry.with_suffix(".lock"), "wb") as file:
            with contextlib.suppress(OSError):  # some network folders cannot lock; see the import above
                fcntl.flock(file, fcntl.LOCK_EX)  # freed by the system when the process ends, however it ends
            yield

    def _decode(self, path: str | PathLike[str], kind: Literal["image", "label"]) -> npt.NDArray[Any]:
        voxels = self.depth_last(read_volume(path, kind, self.num_classes)).as_tensor()  # type: ignore[attr-defined]
        if kind == "image":
            ends = echo_range(voxels, self.mode, self.lower, self.upper)
            if ends == (0.0, 255.0) and bool((voxels == voxels.round()).all()):
                voxels = voxels.to(torch.uint8)
            else:
                voxels = scale_echo(voxels, *ends).half()
        array: npt.NDArray[Any] = voxels.numpy()
        return array
