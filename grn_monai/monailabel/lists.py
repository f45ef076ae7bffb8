"""What a DICOM archive has for MONAI Label: series that are volumes, and the latest label of each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from grn_monai.dicom.read import label_value
from grn_monai.dicom.scan import VOLUME_CLASSES
from grn_monai.monailabel.archive import Archive, Series

__all__ = ["ArchiveLists", "StoredLabel"]

logger = logging.getLogger(__name__)


class StoredLabel(NamedTuple):
    """A segmentation in the archive: its series, the instance in it, and when its content was made (DICOM text)."""

    series: Series
    instance: str
    made: str


class ArchiveLists:
    """Lists of an archive, asked for again when they are old.

    Args:
        archive: the DICOMweb service.
        filters: DICOM keyword to value for the search of series; ``Modality`` may be several, separated by commas.
        expiry: seconds for which a list is taken as it was.
        names: label value to name; a segmentation counts if it has a segment of such a name.
    """

    def __init__(self, archive: Archive, filters: Mapping[str, Any], expiry: float, names: Mapping[int, str]) -> None:
        self.archive = archive
        self.expiry = expiry
        self.names = names
        self.refused: dict[str, str] = {}
        """Series that cannot be used, to the reason."""
        self._filters = dict(filters)
        self._sizes: dict[str, int] = {}  # instances of a series when it was refused
        self._kinds: dict[str, str] = {}
        self._known: dict[str, tuple[str, list[StoredLabel]]] = {}
        self._lists: dict[str, tuple[float, Any]] = {}
        self._lock = threading.RLock()

    def scans(self) -> dict[str, Series]:
        """Series that are volumes or have not been found to be none yet, by their UID.

        Raises:
            ArchiveError: the archive does not answer.
        """
        return {
            uid: series for uid, series in self._listed("scans", self._find_scans).items() if uid not in self.refused
        }

    def labels(self) -> dict[str, StoredLabel]:
        """Image to its latest segmentation.

        Raises:
            ArchiveError: the archive does not answer.
        """
        return {
            image: label
            for image, label in self._listed("labels", self._find_labels).items()
            if label.series.uid not in self.refused
        }

    def forget(self) -> None:
        """Ask the archive again the next time."""
        self._lists.clear()

    def refuse(self, series: Series, reason: str) -> None:
        """Leaves a series out until its number of instances changes, and names it in the log."""
        if self.refused.get(series.uid) != reason:
            logger.warning("series %s is left out: %s", series.uid, reason)
        self.refused[series.uid] = reason
        self._sizes[series.uid] = series.instances
        self._lists.pop("labels", None)  # an older segmentation may take the place of a refused one

    def _listed(self, name: str, find: Callable[[], Any]) -> Any:
        with self._lock:
            when, found = self._lists.get(name, (None, None))
            if when is None or time.monotonic() - when >= self.expiry:
                found = find()
                self._lists[name] = (time.monotonic(), found)
            return found

    def _find_scans(self) -> dict[str, Series]:
        filters = dict(self._filters)
        modalities = [m.strip() for m in str(filters.pop("Modality", "")).replace("\\", ",").split(",") if m.strip()]
        queries = [{**filters, "Modality": modality} for modality in modalities] or [filters]
        found: dict[str, Series] = {}
        for series in (series for query in queries for series in self.archive.find(query)):
            if series.uid not in self._kinds:
                self._kinds[series.uid] = self.archive.kind(series)
            if self._kinds[series.uid] not in VOLUME_CLASSES:
                self.refuse(series, f"no volume: {series.modality} of SOP class {self._kinds[series.uid] or '(none)'}")
            elif self._sizes.get(series.uid) != series.instances:
                self.refused.pop(series.uid, None)  # it was refused for what has changed since
                found[series.uid] = series
        return found

    def _find_labels(self) -> dict[str, StoredLabel]:
        scans = self.scans()
        studies = {series.study for series in scans.values()}
        latest: dict[str, StoredLabel] = {}
        for series in self.archive.find({"Modality": "SEG"}):
            if series.study not in studies or series.uid in self.refused:
                continue
            if series.uid not in self._known:
                self._known[series.uid] = self._read_references(series)
            image, labels = self._known[series.uid]
            for label in labels if image in scans else ():
                if image not in latest or label.made > latest[image].made:
                    latest[image] = label
        return latest

    def _read_references(self, series: Series) -> tuple[str, list[StoredLabel]]:
        """The image that a series of segmentations is of, and those that hold any of our labels."""
        image, labels = "", []
        for header in self.archive.headers(series):
            names = [str(item.get("SegmentLabel", "")) for item in header.get("SegmentSequence") or ()]
            references = header.get("ReferencedSeriesSequence") or ()
            if references and any(label_value(name, self.names) for name in names):
                image = str(references[0].SeriesInstanceUID)
                made = f"{header.get('ContentDate') or ''} {header.get('ContentTime') or ''}"
                labels.append(StoredLabel(series, str(header.SOPInstanceUID), made))
            else:
                logger.warning("segmentation %s is no label: segments %s", series.uid, ", ".join(names) or "none")
        return image, labels
