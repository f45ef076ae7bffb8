"""A torch data set of 2D slices from volumes, in both planes that contain depth."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Compose
from torch.utils.data import Dataset

from grn_monai.data.cache import VolumeCache
from grn_monai.data.names import image_of, item_names
from grn_monai.data.volume import check_same_geometry, read_header
from grn_monai.errors import InputError
from grn_monai.labels import NUM_CLASSES
from grn_monai.transforms.depth import depth_order
from grn_monai.transforms.echo import scale_echo
from grn_monai.transforms.slices import PLANES, plane_axis, planes_within, resize_slices, take_slice

__all__ = ["SliceDataset"]


class _Scan(NamedTuple):
    image: str
    label: str | None
    image_entry: Path
    label_entry: Path | None
    subject: str
    scan: str


class _Run(NamedTuple):
    """The slices of one plane of one scan."""

    scan: int
    plane: str
    length: int


class SliceDataset(Dataset[dict[str, Any]]):
    """Slices of scans, each scan decoded once and never held in memory.

    At construction only headers are read. A volume is decoded at the first request for one of its slices, see
    :class:`grn_monai.data.cache.VolumeCache`; after that, a slice costs the reading of its own bytes. Memory does not
    grow with the number of scans. The order is scan by scan, plane by plane, slice by slice.

    Args:
        data: items with the file name ``"image"``, optionally ``"label"``, and optionally ``"subject"`` and
            ``"scan"``, by default see :func:`grn_monai.data.names.item_names`.
        planes: which planes to cut, of ``"sagittal"`` and ``"transverse"``; of a single slice, only its own is.
        size: ``(H, W)`` of the slices, H being depth; ``None`` keeps the grid of the volume.
        transform: applied to each item, for example augmentation by MONAI's dictionary transforms; a sequence is
            composed.
        depth_axis: see :class:`grn_monai.transforms.DepthLast`.
        depth_reversed: see :class:`grn_monai.transforms.DepthLast`.
        cache_dir: folder for the decoded volumes, which then stay for the next run; ``None`` for a temporary folder
            that is removed when the process ends.
        step: take every ``step``-th slice of each plane.
        mode: see :class:`grn_monai.transforms.ScaleEcho`.
        lower: see :class:`grn_monai.transforms.ScaleEcho`.
        upper: see :class:`grn_monai.transforms.ScaleEcho`.
        num_classes: the number of classes with background.
        max_open: memory maps held open at a time, in each worker.

    Raises:
        InputError: no items, an item without image, a bad option, a bad header, or a label whose grid differs from
            that of its image.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        planes: Sequence[str] = PLANES,
        size: Sequence[int] | None = (256, 256),
        transform: Callable[[dict[str, Any]], Any] | Sequence[Callable[..., Any]] | None = None,
        depth_axis: int | str = 2,
        depth_reversed: bool = False,
        cache_dir: str | PathLike[str] | None = None,
        step: int = 1,
        mode: str = "auto",
        lower: float = 0.5,
        upper: float = 99.5,
        num_classes: int = NUM_CLASSES,
        max_open: int = 16,
    ) -> None:
        if step < 1:
            raise InputError("step", str(step), "a whole number from 1", "Correct the option.")
        if not data:
            mend = "Check the section and the fraction of the cohort that were asked for."
            raise InputError("SliceDataset", "no scans", "at least one", mend)
        self.data = data
        self.planes = (planes,) if isinstance(planes, str) else tuple(planes)
        for plane in self.planes:
            plane_axis(plane)  # checks the option
        self.size = None if size is None else tuple(size)
        self.step = step
        self.transform = Compose(transform) if isinstance(transform, Sequence) else transform
        self.cache = VolumeCache(
            cache_dir, depth_axis, depth_reversed, mode, lower, upper, num_classes=num_classes, max_open=max_open
        )
        self._scans: list[_Scan] = []
        self._runs: list[_Run] = []
        for number, item in enumerate(data):
            scan, shape = self._inspect(number, item)
            self._scans.append(scan)
            for plane in planes_within(self.planes, shape):
                self._runs.append(_Run(number, plane, len(range(0, shape[plane_axis(plane)], step))))
        self._ends: list[int] = np.cumsum([run.length for run in self._runs]).tolist()

    def _inspect(self, number: int, item: Mapping[str, Any]) -> tuple[_Scan, tuple[int, ...]]:
        image, label = image_of(number, item, "SliceDataset"), item.get("label")
        header = read_header(image)
        if label is not None:
            check_same_geometry(header, read_header(label), image, label)
        order, _ = depth_order(self.cache.depth_last.depth_axis, self.cache.depth_last.depth_reversed, header.affine)
        scan = _Scan(
            image,
            None if label is None else str(label),
            self.cache.entry(image, "image"),
            None if label is None else self.cache.entry(label, "label"),
            *item_names(item),
        )
        return scan, tuple(header.shape[axis] for axis in order)

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, index: int) -> tuple[int, str, int]:
        """Number of the scan, plane, and position along the axis that the plane fixes.

        Raises:
            IndexError: there is no such slice.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        index %= len(self)
        run = bisect_right(self._ends, index)
        first = self._ends[run] - self._runs[run].length
        return self._runs[run].scan, self._runs[run].plane, (index - first) * self.step

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One slice.

        Returns:
            ``"image"`` ``(1, H, W)`` float32 in [−1, 1]; where the scan has one, ``"label"`` ``(1, H, W)`` uint8;
            ``"subject"``, ``"scan"``, ``"plane"`` and ``"index"``; all passed through ``transform``. Plain tensors.

        Raises:
            InputError: a volume, met for the first time, is not valid.
        """
        number, plane, position = self.locate(index)
        scan = self._scans[number]
        image = self._slice(self.cache.get(scan.image, "image", scan.image_entry), plane, position)
        image = scale_echo(image, 0, 255) if image.dtype == torch.uint8 else image.float()
        item: dict[str, Any] = {"image": resize_slices(image[None], self.size)[0]}
        if scan.label is not None and scan.label_entry is not None:
            label = self._slice(self.cache.get(scan.label, "label", scan.label_entry), plane, position)
            item["label"] = resize_slices(label[None], self.size, "nearest")[0]
        item.update(subject=scan.subject, scan=scan.scan, plane=plane, index=position)
        return item if self.transform is None else self.transform(item)

    @staticmethod
    def _slice(volume: np.ndarray, plane: str, position: int) -> torch.Tensor:
        return torch.from_numpy(np.array(take_slice(volume, plane, position), order="C"))

    def describe(self) -> dict[str, int]:
        """Counts: ``"scans"``, ``"labelled"`` scans, ``"slices"``, and the slices of each plane under its name."""
        counts = {plane: sum(run.length for run in self._runs if run.plane == plane) for plane in self.planes}
        labelled = sum(scan.label is not None for scan in self._scans)
        return {"scans": len(self._scans), "labelled": labelled, "slices": len(self), **counts}
