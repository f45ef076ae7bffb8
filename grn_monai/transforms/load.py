"""Loads scans and labels for a transform chain, with the checks of :mod:`grn_monai.data.volume`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from os import PathLike
from typing import Any, Literal

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ensure_tuple

from grn_monai.data.checks import LabelValues, check_modality_name, label_mapping
from grn_monai.data.volume import check_same_geometry, read_volume
from grn_monai.labels import NUM_CLASSES

__all__ = ["LoadScan", "LoadScand"]


class LoadScan(Transform):
    """Reads one volume; see :func:`grn_monai.data.volume.read_volume`.

    Args:
        kind: ``"image"`` (float32 grey values) or ``"label"`` (uint8 class numbers).
        num_classes: for labels, the number of classes with background.
        modality: for images, ``"CT"`` or ``"MR"`` where it has to be that; None takes any.
        label_values: for labels, file value to class (others are background), or the name ``"totalsegmentator"``;
            None: the values are the classes.
    """

    def __init__(
        self,
        kind: Literal["image", "label"] = "image",
        num_classes: int = NUM_CLASSES,
        modality: str | None = None,
        label_values: LabelValues = None,
    ) -> None:
        self.kind: Literal["image", "label"] = kind
        self.num_classes, self.modality, self.label_values = _checked(num_classes, modality, label_values)

    def __call__(self, path: str | PathLike[str]) -> MetaTensor:
        """Returns the volume ``(1, X, Y, Z)`` in the voxel order of the file, or folder of a DICOM series.

        Raises:
            InputError: the file cannot be read, or does not hold a valid volume.
        """
        return read_volume(path, self.kind, self.num_classes, self.modality, self.label_values)


def _checked(
    num_classes: int, modality: str | None, label_values: LabelValues
) -> tuple[int, str | None, dict[int, int] | None]:
    """The options, checked now rather than at the first scan."""
    check_modality_name(modality)
    return num_classes, modality, label_mapping(label_values)


class LoadScand(MapTransform):
    """Dictionary twin of :class:`LoadScan` that also checks that labels lie on the grid of their image.

    Args:
        keys: keys that hold file names (or folders of DICOM series), images and labels alike.
        label_keys: those of ``keys`` that are labels. They are checked against the first image of the item.
        num_classes: for labels, the number of classes with background.
        modality: see :class:`LoadScan`.
        label_values: see :class:`LoadScan`.
        allow_missing_keys: pass over keys that an item does not have (an unlabelled scan).
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: KeysCollection = ("label",),
        num_classes: int = NUM_CLASSES,
        allow_missing_keys: bool = False,
        modality: str | None = None,
        label_values: LabelValues = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_keys: tuple[Hashable, ...] = ensure_tuple(label_keys)
        self.num_classes, self.modality, self.label_values = _checked(num_classes, modality, label_values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replaces file names by volumes ``(1, X, Y, Z)``.

        Raises:
            InputError: a file cannot be read, or a label does not lie on the grid of its image.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            kind: Literal["image", "label"] = "label" if key in self.label_keys else "image"
            d[key] = read_volume(d[key], kind, self.num_classes, self.modality, self.label_values)
        loaded = list(self.key_iterator(d))
        image = next((key for key in loaded if key not in self.label_keys), None)
        if image is not None:
            for key in (key for key in loaded if key in self.label_keys):
                check_same_geometry(d[image], d[key], data[image], data[key])
        return d
