"""A torch data set of volumes that go through the deterministic part of their transforms once, not in every epoch."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.data.utils import pickle_hashing
from monai.transforms import Compose
from torch.utils.data import Dataset

from grn_monai.data.cache import _temporary_folder
from grn_monai.data.names import image_of, item_names
from grn_monai.data.volume import check_same_geometry, read_header
from grn_monai.errors import InputError
from grn_monai.files import file_stamps, replacing

__all__ = ["PreparedDataset", "check_patch"]

_FORMAT = 1  # raise it when the contents of the files change, so that older ones are not used


class PreparedDataset(Dataset[Any]):
    """Volumes, each prepared once and never held in memory.

    The first request for a volume sends it through ``prepare`` and writes the tensors of the result, uncompressed;
    every later one, in any process, maps that file, so that a crop costs the reading of its own bytes and memory does
    not grow with the number of volumes. MONAI's ``CacheDataset`` would hold them all, its ``PersistentDataset`` read a
    whole volume for each crop. Files hold tensors only (``weights_only``); they are named by a digest of the sources'
    paths, times and sizes and of the transforms, so that a changed source or chain is prepared anew.

    Args:
        data: items with the file name ``"image"``, optionally ``"label"``, ``"subject"`` and ``"scan"``, by default
            see :func:`grn_monai.data.names.item_names`.
        prepare: deterministic dictionary transforms, beginning with ``LoadScand``.
        transform: applied to each item then, such as a random crop.
        cache_dir: folder for the prepared volumes, which then stay for the next run; ``None`` for a temporary folder
            that is removed when the process ends.
        length: items of one pass; above the number of volumes these come again, each time with other random crops.
            ``None``: each volume once.
        max_open: files held open at a time, in each worker.

    Raises:
        InputError: no items, an item without image, a bad header, or a label whose grid differs from that of its image.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        prepare: Compose,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        cache_dir: str | PathLike[str] | None = None,
        length: int | None = None,
        max_open: int = 16,
    ) -> None:
        if not data:
            mend = "Check the section and the fraction of the cohort that were asked for."
            raise InputError("PreparedDataset", "no scans", "at least one", mend)
        if length is not None and length < 1:
            raise InputError("length", str(length), "a whole number from 1", "Correct the option.")
        self.data, self.prepare, self.transform = data, prepare, transform
        self.folder = _temporary_folder() if cache_dir is None else Path(cache_dir).absolute()
        self.length, self.max_open = length, max_open
        self._chain = pickle_hashing([(type(t).__name__, vars(t)) for t in prepare.flatten().transforms])
        self._open: OrderedDict[Path, dict[str, torch.Tensor]] = OrderedDict()
        self._entries = [self._entry(self._files(number, item)) for number, item in enumerate(data)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # a worker opens its own

    @staticmethod
    def _files(number: int, item: Mapping[str, Any]) -> dict[str, str]:
        files = {"image": image_of(number, item, "PreparedDataset")}
        return files if item.get("label") is None else files | {"label": str(item["label"])}

    def _entry(self, files: Mapping[str, str]) -> Path:
        header = read_header(files["image"])
        if "label" in files:
            check_same_geometry(header, read_header(files["label"]), files["image"], files["label"])
        stamps = [(key, str(Path(path).absolute()), file_stamps(path)) for key, path in files.items()]
        digest = hashlib.sha256(repr((_FORMAT, stamps, self._chain)).encode()).hexdigest()
        return self.folder / f"{digest[:32]}.pt"

    def __len__(self) -> int:
        return len(self.data) if self.length is None else self.length

    def __getitem__(self, index: int) -> Any:
        """One item: the tensors that ``prepare`` made, ``"subject"`` and ``"scan"``, passed through ``transform``.

        Raises:
            InputError: a volume, met for the first time, is not valid, or the cache folder cannot be written.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        number = index % len(self) % len(self.data)
        subject, scan = item_names(self.data[number])
        item = {**self._get(number), "subject": subject, "scan": scan}
        return item if self.transform is None else self.transform(item)

    def _get(self, number: int) -> dict[str, torch.Tensor]:
        entry = self._entries[number]
        tensors = self._open.get(entry)
        if tensors is None:
            tensors = self._map(entry)
            if tensors is None:
                self._fill(number, entry)
                tensors = self._map(entry)
            assert tensors is not None
            self._open[entry] = tensors
            while len(self._open) > self.max_open:
                self._open.popitem(last=False)
        self._open.move_to_end(entry)
        return dict(tensors)

    @staticmethod
    def _map(entry: Path) -> dict[str, torch.Tensor] | None:
        if not entry.is_file():
            return None
        try:
            tensors: dict[str, torch.Tensor] = torch.load(entry, map_location="cpu", mmap=True, weights_only=True)
        except (RuntimeError, EOFError, ValueError):  # cut short by a crash of the machine: make it again
            entry.unlink(missing_ok=True)
            return None
        return tensors

    def _fill(self, number: int, entry: Path) -> None:
        made = self.prepare(dict(self._files(number, self.data[number])))
        tensors = {}
        for key, value in made.items():
            plain = value.as_tensor() if isinstance(value, MetaTensor) else value
            if isinstance(plain, torch.Tensor):
                tensors[str(key)] = plain.clone(memory_format=torch.contiguous_format)  # of a view, all would be saved
        with replacing(entry) as temporary:
            torch.save(tensors, temporary)


def check_patch(patch_size: Any, spatial_dims: int, divisor: int) -> None:
    """Refuse a patch size that a network which halves its maps cannot put together again.

    Args:
        patch_size: sides in voxels.
        spatial_dims: 2 or 3, how many there have to be.
        divisor: every side has to be a multiple of it: the product of the network's strides.

    Raises:
        InputError: naming the nearest larger size that fits.
    """
    try:
        sides = [int(side) for side in patch_size]
    except (TypeError, ValueError):
        sides = []
    if len(sides) != spatial_dims or min(sides) < 1:
        mend = f"Give such as `--patch_size [{','.join(['256', '256', '32'][:spatial_dims])}]`."
        raise InputError("patch_size", repr(patch_size), f"{spatial_dims} whole numbers from 1", mend)
    fitting = [math.ceil(side / divisor) * divisor for side in sides]
    if sides != fitting:
        mend = f"Give `--patch_size [{','.join(map(str, fitting))}]`."
        raise InputError("patch_size", f"{sides}", f"multiples of {divisor}, the network's strides together", mend)
