"""Says in the log which structures a segmentation did not find, rather than to hand on an empty map in silence."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from grn_monai.data.volume import scan_name

__all__ = ["ReportMissingd"]

logger = logging.getLogger(__name__)


class ReportMissingd(MapTransform):
    """Logs a warning for a label map without any of its structures, or without some of them; changes nothing.

    Args:
        keys: label maps ``(1, …)``.
        labels: label value to name, with 0 for background.
        image_key: the image whose file names the scan, where it has one.
        allow_missing_keys: pass over keys that an item does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: Mapping[int, str],
        image_key: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = {int(value): name for value, name in labels.items() if int(value) != 0}
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Looks at every key."""
        for key in self.key_iterator(dict(data)):
            present = set(torch.unique(torch.as_tensor(data[key])).long().tolist())
            missing = [name for value, name in self.labels.items() if value not in present]
            if len(missing) == len(self.labels):
                logger.warning("%s: nothing found: no voxel of %s", self._name(data), ", ".join(missing))
            elif missing:
                logger.warning("%s: not found: %s", self._name(data), ", ".join(missing))
        return dict(data)

    def _name(self, data: Mapping[Hashable, Any]) -> str:
        image = data.get(self.image_key)
        file = image.meta.get("filename_or_obj") if isinstance(image, MetaTensor) else None
        return scan_name(file) if file else "scan"
