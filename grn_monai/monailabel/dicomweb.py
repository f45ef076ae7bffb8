"""MONAI Label's datastore on a DICOM archive: scans come in by DICOMweb, labels go back as DICOM segmentations."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.datastore.utils.convert import binary_to_image
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.utils.others.generic import md5_digest

from grn_monai.data.volume import read_header
from grn_monai.dicom.read import read_dicom_seg
from grn_monai.dicom.scan import read_dicom_scan
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES
from grn_monai.monailabel.archive import Archive, ArchiveError, Series, check_uid
from grn_monai.monailabel.lists import ArchiveLists
from grn_monai.monailabel.saved import (
    check_tag,
    given_names,
    names_of_values,
    read_saved,
    upload_removed_on_error,
    write_segmentation,
    write_volume,
)
from grn_monai.monailabel.studies import WholeListDatastore, json_object

__all__ = ["LayersDICOMWebDatastore", "make_datastore"]

logger = logging.getLogger(__name__)

FRAME_SPACING = "MONAI_LABEL_DICOMWEB_FRAME_SPACING"
MODALITIES = "US,CT,MR"
EXPIRY_SECONDS = 10.0
_FINAL = DefaultLabelTag.FINAL.value


class LayersDICOMWebDatastore(WholeListDatastore, DICOMWebDatastore):
    """Images are series of a DICOM archive, their final labels are DICOM segmentations there.

    The id of an image is its Series Instance UID. A scan is downloaded and read when it is first asked for, by this
    project's readers; a series that is no volume is left out from then on, and named in the log. A final label is
    written as a DICOM segmentation on the scan's own files and stored beside it before anything else; of several for
    one scan the one with the latest content date and time counts. Predictions (tag ``original``) stay in the cache.

    Args:
        archive: the DICOMweb service.
        cache: folder for downloaded scans. It holds what the archive holds, names of patients too.
        filters: DICOM keyword to value for the search of series; ``Modality`` may be several, separated by commas.
        expiry: seconds for which the archive's lists of series are taken as they were.
        frame_spacing: mm between the frames of a plain ultrasound sweep; default: such series are no volumes.
        names: label value to name; default: the six layers.

    Raises:
        InputError: the archive does not answer.
    """

    def __init__(
        self,
        archive: Archive,
        cache: str | os.PathLike[str],
        filters: Mapping[str, Any] | None = None,
        expiry: float = EXPIRY_SECONDS,
        frame_spacing: float | None = None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        self.archive = archive
        self.names = dict(names or LAYER_NAMES)
        self.frame_spacing = frame_spacing
        self.lists = ArchiveLists(archive, {"Modality": MODALITIES} if filters is None else filters, expiry, self.names)
        self._client = archive.client
        folder = Path(cache) / md5_digest(archive.url)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "dicom").mkdir(exist_ok=True)
        # Not DICOMWebDatastore's: it watches the folder for changes by others, and races with its own.
        LocalDatastore.__init__(self, datastore_path=str(folder), auto_reload=False)
        self.lists.scans()

    def list_images(self) -> list[str]:
        """Series that are volumes, or have not been found to be none yet."""
        return list(self.lists.scans())

    def has_image(self, image_id: str) -> bool:
        """Whether there is such a series; the archive is asked again before a no.

        Raises:
            InputError: the archive does not answer.
        """
        if image_id not in self.lists.scans():
            self.lists.forget()
        return image_id in self.lists.scans()

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Images with a final label in the archive."""
        labelled = self.lists.labels()
        return [image for image in self.list_images() if image in labelled]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Images without one."""
        labelled = self.lists.labels()
        return [image for image in self.list_images() if image not in labelled]

    # Scans ------------------------------------------------------------------------------------------------------------

    def _scan(self, image_id: str) -> Series:
        self.has_image(image_id)
        series: Series | None = self.lists.scans().get(image_id)
        if series is None:
            found = self.lists.refused.get(image_id, "no such series")
            mend = "Choose one of the server's images, or widen MONAI_LABEL_DICOMWEB_SEARCH_FILTER."
            raise InputError(f"series {image_id}", found, "a volume among the listed series", mend)
        return series

    @contextlib.contextmanager
    def _of_series(self, series: Series) -> Iterator[None]:
        """Names the series, not a file of the cache, in what its reader finds wrong."""
        try:
            yield
        except ArchiveError:
            raise
        except InputError as error:
            self.lists.refuse(series, error.found)
            raise InputError(f"series {series.uid}", error.found, error.expected, error.mend) from error

    def _folder(self, uid: str) -> Path:
        return Path(self._datastore_path) / "dicom" / uid

    def _files(self, image_id: str) -> list[Path]:
        return sorted(self._folder(image_id).glob("*.dcm"))

    def _image_info(self, image_id: str) -> dict[str, Any]:
        known = self._datastore.objects.get(image_id)
        return dict(known.image.info) if known else {}

    def get_image_uri(self, image_id: str) -> str:
        """File of an image, downloaded and read where it was not yet, or where its series has grown since.

        Raises:
            InputError: there is no such series, it is no volume, or the archive does not answer.
        """
        series = self._scan(image_id)
        file = Path(self._datastore.image_path()) / f"{image_id}.nii.gz"
        with FileLock(f"{self._folder(image_id)}.lock"):
            self._init_from_datastore_file()
            info = self._image_info(image_id)
            if not (file.is_file() and self._files(image_id) and info.get("instances") == series.instances):
                files = self.archive.download(series, self._folder(image_id))
                with self._of_series(series):
                    volume = read_dicom_scan(files, self.frame_spacing)
                info = {
                    "SeriesInstanceUID": series.uid,
                    "StudyInstanceUID": series.study,
                    "Modality": series.modality,
                    "instances": series.instances,
                    "oriented": volume.oriented,
                    "placement": dict(volume.placement),
                }
                with tempfile.TemporaryDirectory() as scratch:
                    written = write_volume(Path(scratch) / file.name, volume.voxels, volume.affine)
                    LocalDatastore.add_image(self, image_id, written, info)
        return str(file.resolve())

    # Labels -----------------------------------------------------------------------------------------------------------

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None, label_id: str = ""
    ) -> str:
        """Saves a label; a final one goes into the archive first, as a DICOM segmentation.

        Where ``label_info["label_info"]`` names the values of the file, the names count: see
        `grn_monai.monailabel.saved.renumbered`. Segments with other names go into the archive, but are no labels to
        train on.

        Returns:
            The id of the image.

        Raises:
            InputError: there is no such series, the tag is no plain name, the label does not fit the scan or is all
                background, or the archive did not store it.
        """
        with upload_removed_on_error(label_filename), tempfile.TemporaryDirectory() as scratch:
            tag, info = check_tag(label_tag), dict(json_object("params", label_info))
            image_file, given = self.get_image_uri(image_id), given_names(info)
            label_file = label_filename
            if Path(label_filename).suffix == ".bin":
                label_file = shutil.move(binary_to_image(image_file, label_filename), f"{scratch}/label.nii.gz")
            header = read_header(image_file)
            read = read_saved(label_file, f"label of series {image_id}", given, self.names, header)
            if tag == _FINAL:
                file, placement = Path(scratch) / "segmentation.dcm", self._image_info(image_id)["placement"] or None
                uid = write_segmentation(file, read, self._files(image_id), header.affine, placement)
                info["SeriesInstanceUID"] = uid
                self.archive.store(file)
                self.lists.forget()
            known = np.where(np.isin(read.labels, list(self.names)), read.labels, 0).astype(np.uint8)
            if given:
                info["label_info"] = names_of_values(known, self.names)  # the file's values are these now
            written = write_volume(Path(scratch) / f"{image_id}.nii.gz", known, header.affine)
            saved: str = LocalDatastore.save_label(self, image_id, written, tag, info)
        return saved

    def _fetch_label(self, image_id: str) -> None:
        """Brings the cached final label of an image to that of the archive."""
        label = self.lists.labels().get(image_id)
        image_file = self.get_image_uri(image_id)
        cached = self._datastore.label(image_id, _FINAL)
        if label is None:
            if cached is not None:
                Path(LocalDatastore.get_label_uri(self, image_id, _FINAL)).unlink(missing_ok=True)
                self.refresh()
            return
        if cached is not None and cached.info.get("SeriesInstanceUID") == label.series.uid:
            return
        header = read_header(image_file)
        folder = self._folder(label.series.uid)
        self.archive.download(label.series, folder)
        info = self._image_info(image_id)
        with self._of_series(label.series):
            read = read_dicom_seg(
                folder / f"{check_uid(label.instance, self.archive.url)}.dcm",
                header.shape,
                header.affine,
                None if info["oriented"] else info["placement"],
                self._files(image_id),
                self.names,
            )
        if read.unknown:
            logger.warning("segmentation %s: %s left out", label.series.uid, ", ".join(read.unknown))
        with tempfile.TemporaryDirectory() as scratch:
            file = write_volume(Path(scratch) / f"{image_id}.nii.gz", read.labels, header.affine)
            LocalDatastore.save_label(self, image_id, file, _FINAL, {"SeriesInstanceUID": label.series.uid})

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """File of a label, on the grid of its image; "": there is none. The id is that of the image."""
        image = image_id or label_id
        if getattr(label_tag, "value", label_tag) == _FINAL:
            self._fetch_label(image)
        uri: str = LocalDatastore.get_label_uri(self, image, label_tag)
        return uri

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Image, final label and subject of every labelled scan, for training.

        A scan or segmentation that cannot be used is left out and named in the log.

        Raises:
            InputError: the archive does not answer.
        """
        pairs = []
        for image in self.get_labeled_images():
            try:
                label = self.get_label_uri(image, _FINAL)
                pair = {"image": self.get_image_uri(image), "label": label, "subject": self.subject_of(image)}
            except ArchiveError:
                raise
            except InputError as error:
                logger.warning("%s", error)
                continue
            pairs.append(pair)
        if not full_path:
            for pair in pairs:
                pair.update({key: os.path.relpath(pair[key], self._datastore_path) for key in ("image", "label")})
        return pairs

    def subject_of(self, image_id: str) -> str:
        """Pseudonym of a scan's patient, as in `datalist`."""
        return str(self._scan(image_id).subject or image_id)

    def status(self) -> dict[str, Any]:
        """Numbers of images and labels; where the archive does not answer, zeros and its ``error``."""
        try:
            numbers: dict[str, Any] = super().status()
        except ArchiveError as error:
            return {"total": 0, "completed": 0, "label_tags": {}, "error": str(error)}
        return numbers

    # What only the archive may do -------------------------------------------------------------------------------------

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refused: scans come from the archive."""
        with upload_removed_on_error(image_filename):
            mend = f"Send the scan to {self.archive.url} as DICOM."
            raise InputError("image", image_id, "a series of the archive", mend)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Removes a prediction; a final label is the archive's.

        Raises:
            InputError: the label is final.
            LabelNotFoundException: there is no such label.
        """
        if check_tag(label_tag) == _FINAL:
            mend = f"Remove the segmentation there: {self.archive.url}."
            raise InputError("label", label_id, "a label that is not in the archive", mend)
        super().remove_label(label_id, label_tag)

    def remove_image(self, image_id: str) -> None:
        """Refused: scans are the archive's."""
        raise InputError("image", image_id, "nothing to remove", f"Remove the series there: {self.archive.url}.")


def make_datastore(
    url: str, settings: Any, frame_spacing: float | None = None, names: Mapping[int, str] | None = None
) -> LayersDICOMWebDatastore:
    """The datastore of a DICOMweb service, as MONAI Label's settings say.

    Args:
        url: root of the service.
        settings: `monailabel.config.settings`. Those that were not set count as not given: modalities US, CT and MR
            rather than CT, lists of 10 seconds rather than 2 hours, a cache in the app's folder rather than in the
            user's.
        frame_spacing: mm between the frames of plain ultrasound sweeps; default: the environment variable
            ``MONAI_LABEL_DICOMWEB_FRAME_SPACING``.
        names: label value to name; default: the six layers.

    Raises:
        InputError: the service does not answer or refuses, or a setting is faulty.
    """
    given = settings.model_fields_set
    user = settings.MONAI_LABEL_DATASTORE_USERNAME or settings.MONAI_LABEL_DICOMWEB_USERNAME
    password = settings.MONAI_LABEL_DATASTORE_PASSWORD or settings.MONAI_LABEL_DICOMWEB_PASSWORD
    prefixes = (settings.MONAI_LABEL_QIDO_PREFIX, settings.MONAI_LABEL_WADO_PREFIX, settings.MONAI_LABEL_STOW_PREFIX)
    cache = settings.MONAI_LABEL_DATASTORE_CACHE_PATH or settings.MONAI_LABEL_DICOMWEB_CACHE_PATH
    app = settings.MONAI_LABEL_APP_DIR
    if frame_spacing is None and (text := os.environ.get(FRAME_SPACING, "").strip()):
        try:
            frame_spacing = float(text)
        except ValueError as error:
            mend = "Set it to a number, or not at all."
            raise InputError(FRAME_SPACING, repr(text), "mm between frames", mend) from error
    return LayersDICOMWebDatastore(
        Archive(url.rstrip("/"), (user, password) if user else None, prefixes),
        cache.strip() or (Path(app) / "dicom" if app else Path.home() / ".cache" / "grn-monai" / "dicom"),
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER if "MONAI_LABEL_DICOMWEB_SEARCH_FILTER" in given else None,
        settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY if "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY" in given else EXPIRY_SECONDS,
        frame_spacing,
        names,
    )
