"""A torch data set of axial slices from CT volumes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import Compose, Orientation
from torch.utils.data import Dataset

from grn_monai.data.cache import VolumeCache
from grn_monai.data.checks import LabelValues, check_modality_name, label_mapping
from grn_monai.data.names import image_of, item_names
from grn_monai.data.volume import VolumeHeader, check_same_geometry, read_header, read_volume
from grn_monai.errors import InputError
from grn_monai.labels import CT_MUSCLES
from grn_monai.transforms.fit import SliceFit, slice_fit

__all__ = ["AxialSliceDataset", "AxialVolumeCache", "axial_grid"]


def axial_grid(header: VolumeHeader) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Voxels along R, A and S, and their size in mm, of a volume turned to RAS."""
    axes = nib.orientations.io_orientation(header.affine)[:, 0].argsort()
    spacing = np.linalg.norm(header.affine[:3, :3], axis=0)
    return tuple(header.shape[axis] for axis in axes), tuple(float(spacing[axis]) for axis in axes)


class AxialVolumeCache(VolumeCache):
    """Volumes turned to RAS as memory maps ``(Z, X, Y)``, so that an axial slice is one stretch of its file.

    CT is kept as int16 Hounsfield units (what scanners store; of resampled values half a unit is lost to rounding).
    Windowed to 8 bits it would be half as large, but every other window would decode the cohort anew. Other images
    are float32, labels uint8.

    Args:
        folder: see `VolumeCache`.
        modality: see `grn_monai.data.read_volume`.
        num_classes: for labels, the number of classes with background.
        label_values: see `grn_monai.data.read_volume`.
        max_open: see `VolumeCache`.
    """

    def __init__(
        self,
        folder: str | PathLike[str] | None = None,
        modality: str | None = "CT",
        num_classes: int = len(CT_MUSCLES),
        label_values: LabelValues = None,
        max_open: int = 16,
    ) -> None:
        super().__init__(folder, num_classes=num_classes, max_open=max_open)
        check_modality_name(modality)
        self.modality, self.label_values = modality, label_mapping(label_values)
        self.turn = Orientation(axcodes="RAS", labels=None)

    def _options(self, kind: Literal["image", "label"]) -> tuple[Any, ...]:
        pairs = sorted((self.label_values or {}).items())
        return ("axial", (self.num_classes, pairs) if kind == "label" else self.modality)

    def _decode(self, path: str | PathLike[str], kind: Literal["image", "label"]) -> npt.NDArray[Any]:
        volume = self.turn(read_volume(path, kind, self.num_classes, self.modality, self.label_values))
        voxels = np.asarray(volume.as_tensor()[0].permute(2, 0, 1))
        if kind == "image" and self.modality == "CT":
            voxels = np.clip(np.rint(voxels), -32768, 32767).astype(np.int16)
        return np.ascontiguousarray(voxels)


class _Scan(NamedTuple):
    image: str
    label: str | None
    image_entry: Path
    label_entry: Path | None
    subject: str
    scan: str
    fit: SliceFit
    positions: Sequence[int]


class AxialSliceDataset(Dataset[dict[str, Any]]):
    """Axial slices of scans, each scan decoded once and never held in memory.

    The twin of `SliceDataset` for CT: volumes are turned to RAS first, whatever the order of their voxels, so that a
    slice is ``(H, W)`` = (left to right, posterior to anterior); the grey values go through a window of Hounsfield
    units; and slices are fitted with their proportions kept. At construction only headers are read (with
    `only_labelled`, labels too). Memory does not grow with the number of scans. The order is scan by scan, from
    inferior to superior.

    Args:
        data: items as for `SliceDataset`; an image may be the folder of a DICOM series.
        size: ``(H, W)`` of the slices.
        window: grey values that become −1 and 1; those outside are clipped.
        pixel_mm: see `grn_monai.transforms.fit.slice_fit`.
        transform: applied to each item; a sequence is composed.
        only_labelled: leave out slices of labelled scans whose label is all background.
        step: take every ``step``-th slice.
        cache_dir: see `SliceDataset`.
        modality: see `grn_monai.data.read_volume`.
        num_classes: the number of classes with background.
        label_values: see `grn_monai.data.read_volume`.
        max_open: memory maps held open at a time, in each worker.

    Raises:
        InputError: no items or slices, an item without image, a bad option, a bad header, or a label whose grid differs
            from that of its image; with `only_labelled`, a bad label.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        size: Sequence[int] = (256, 256),
        window: Sequence[float] = (-160.0, 240.0),
        pixel_mm: float | None = None,
        transform: Callable[[dict[str, Any]], Any] | Sequence[Callable[..., Any]] | None = None,
        only_labelled: bool = False,
        step: int = 1,
        cache_dir: str | PathLike[str] | None = None,
        modality: str | None = "CT",
        num_classes: int = len(CT_MUSCLES),
        label_values: LabelValues = None,
        max_open: int = 16,
    ) -> None:
        low, high = (float(end) for end in window)
        if not low < high:
            raise InputError("hu_window", repr(list(window)), "a lower and a higher value", "Correct the option.")
        if step < 1:
            raise InputError("step", str(step), "a whole number from 1", "Correct the option.")
        self.data, self.size, self.window, self.pixel_mm = data, tuple(size), (low, high), pixel_mm
        self.only_labelled, self.step = only_labelled, step
        self.transform = Compose(transform) if isinstance(transform, Sequence) else transform
        self.cache = AxialVolumeCache(cache_dir, modality, num_classes, label_values, max_open)
        self._scans = [self._inspect(number, item) for number, item in enumerate(data)]
        self._ends: list[int] = np.cumsum([len(scan.positions) for scan in self._scans], dtype=int).tolist()
        if not self._ends or not self._ends[-1]:
            found = "no slice with a label" if self._ends else "no scans"
            mend = "Check the section, the fraction and the labels of the cohort that were asked for."
            raise InputError("AxialSliceDataset", found, "at least one", mend)

    def _inspect(self, number: int, item: Mapping[str, Any]) -> _Scan:
        image, label = image_of(number, item, "AxialSliceDataset"), item.get("label")
        header = read_header(image, self.cache.modality)
        if label is not None:
            check_same_geometry(header, read_header(label), image, label)
        shape, spacing = axial_grid(header)
        entry = None if label is None else self.cache.entry(label, "label")
        positions: Sequence[int] = range(0, shape[2], self.step)
        if self.only_labelled and label is not None and entry is not None:
            marked = self.cache.get(label, "label", entry)
            positions = [k for k in positions if marked[k].any()]
        return _Scan(
            image,
            None if label is None else str(label),
            self.cache.entry(image, "image"),
            entry,
            *item_names(item),
            slice_fit(shape[:2], spacing[:2], self.size, self.pixel_mm),
            positions,
        )

    def __len__(self) -> int:
        return self._ends[-1]

    def locate(self, index: int) -> tuple[int, int]:
        """Number of the scan, and position of the slice counted from the most inferior one.

        Raises:
            IndexError: there is no such slice.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        index %= len(self)
        number = bisect_right(self._ends, index)
        positions = self._scans[number].positions
        return number, int(positions[index - self._ends[number] + len(positions)])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One slice.

        Returns:
            ``"image"`` ``(1, H, W)`` float32 in [−1, 1]; where the scan has one, ``"label"`` ``(1, H, W)`` uint8;
            ``"subject"``, ``"scan"`` and ``"index"``; all passed through ``transform``. Plain tensors.

        Raises:
            InputError: a volume, met for the first time, is not valid.
        """
        number, position = self.locate(index)
        scan = self._scans[number]
        low, high = self.window
        grey = torch.from_numpy(self.cache.get(scan.image, "image", scan.image_entry)[position].astype(np.float32))
        image = ((grey - low) / ((high - low) / 2) - 1).clamp_(-1, 1)
        item: dict[str, Any] = {"image": scan.fit.apply(image[None, None], -1.0)[0]}
        if scan.label is not None and scan.label_entry is not None:
            label = np.array(self.cache.get(scan.label, "label", scan.label_entry)[position])
            item["label"] = scan.fit.apply(torch.from_numpy(label)[None, None], 0, "nearest")[0]
        item.update(subject=scan.subject, scan=scan.scan, index=position)
        return item if self.transform is None else self.transform(item)

    def describe(self) -> dict[str, int]:
        """Counts: ``"scans"``, ``"labelled"`` scans and ``"slices"``."""
        labelled = sum(scan.label is not None for scan in self._scans)
        return {"scans": len(self._scans), "labelled": labelled, "slices": len(self)}
