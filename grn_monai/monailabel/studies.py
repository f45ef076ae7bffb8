"""MONAI Label's datastore on a folder of scans, with labels that are checked and files that appear whole."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException

from grn_monai.data.volume import read_header
from grn_monai.errors import InputError, listed
from grn_monai.files import replacing, write_whole
from grn_monai.labels import LAYER_NAMES
from grn_monai.monailabel.saved import (
    check_name,
    check_tag,
    given_names,
    names_of_values,
    read_saved,
    upload_removed_on_error,
    write_volume,
)

__all__ = ["LayersDatastore", "WholeListDatastore", "json_object", "make_studies"]

logger = logging.getLogger(__name__)


class WholeListDatastore(LocalDatastore):
    """MONAI Label's datastore, whose list is written whole or not at all, and is made again where it is damaged."""

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        path = Path(self._datastore_config_path)
        try:
            super()._init_from_datastore_file(throw_exception=True)
        except ValueError as error:  # JSON, text or fields
            if not throw_exception:
                logger.error("%s is damaged: %s", path, error)  # what is in memory is whole, and is written next
                return
            number = 1
            while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
                number += 1
            with contextlib.suppress(FileNotFoundError):  # another process did
                os.replace(path, aside)
            logger.warning(
                "%s is damaged, by a kill or a full disk; it is kept as %s and made again from the files of the folder",
                path,
                aside.name,
            )

    def _update_datastore_file(self, lock: bool = True) -> None:
        with FileLock(self._lock_file) if lock else contextlib.nullcontext():
            content = self._datastore.model_dump(exclude={"base_path"})
            write_whole(self._datastore_config_path, json.dumps(content, indent=2, default=str))
            self._config_ts = os.stat(self._datastore_config_path).st_mtime

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Adds to what is known of an image.

        Raises:
            InputError: the information is no JSON object.
            ImageNotFoundException: there is no such image.
        """
        self._init_from_datastore_file()  # with what background tasks have saved, which else were lost in writing
        super().update_image_info(image_id, json_object("info", info))

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Adds to what is known of a label.

        Raises:
            InputError: the information is no JSON object, or the tag no plain name.
            LabelNotFoundException: there is no such label.
        """
        self._init_from_datastore_file()
        super().update_label_info(label_id, check_tag(label_tag), json_object("info", info))

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Removes a label.

        Raises:
            InputError: the tag is no plain name.
            LabelNotFoundException: there is no such label.
        """
        tag = check_tag(label_tag)
        if self._datastore.label(label_id, tag) is None:
            raise LabelNotFoundException(f"Label: {label_id} Tag: {tag} not found")
        super().remove_label(label_id, tag)


class LayersDatastore(WholeListDatastore):
    """Images are the volumes in a folder, their labels those in ``labels/TAG`` below it.

    A label is saved as NIfTI on the grid of its image, with this project's label values: where a client sends names
    for the values of its file, the names count. A label that does not fit is refused, and nothing is changed.

    Args:
        path: the folder; made if missing.
        extensions: patterns of the file names of images and labels.
        auto_reload: look out for files that others put there or change.
        read_only: do not look for files that the list of the folder lacks.
        names: label value to name; default: the six layers.

    Raises:
        InputError: the folder's list is damaged and may not be made again (`read_only`).
    """

    def __init__(
        self,
        path: str,
        extensions: Any = ("*.nii.gz", "*.nii"),
        auto_reload: bool = False,
        read_only: bool = False,
        names: Mapping[int, str] | None = None,
    ) -> None:
        self.names = dict(names or LAYER_NAMES)
        self._read_only = read_only
        super().__init__(path, extensions=extensions, auto_reload=auto_reload, read_only=read_only)
        if auto_reload:
            # The list is renamed into place, also by the processes of background tasks; MONAI Label waits for it to
            # be modified.
            self._handler.on_moved = self._on_moved

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        path = Path(self._datastore_config_path)
        if throw_exception and self._read_only and path.exists():
            try:
                LocalDatastore._init_from_datastore_file(self, throw_exception=True)
            except ValueError as error:
                mend = "Start once without MONAI_LABEL_DATASTORE_READ_ONLY: it is made again from the folder."
                raise InputError(path, "a damaged file", "the list of the folder", mend) from error
            return
        super()._init_from_datastore_file(throw_exception)

    # Files that others put there --------------------------------------------------------------------------------------

    def _list_files(self, path: str, patterns: Any) -> dict[str, str]:
        # Hidden: half-written files, of this program (labels and scans on their way) or others (rsync).
        found: dict[str, str] = super()._list_files(path, patterns)
        return {name: file for name, file in found.items() if not name.startswith(".")}

    def _on_any_event(self, event: Any) -> None:
        if not Path(event.src_path).name.startswith("."):
            super()._on_any_event(event)

    def _on_moved(self, event: Any) -> None:
        source, target = Path(event.src_path).name, Path(event.dest_path).name
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()
        elif not (source.startswith(".") and source.endswith(f"-{target}")):  # not one of our own
            self.refresh()

    def _is_there(self, image_id: str) -> bool:
        return image_id in self._datastore.objects and os.path.isfile(self.get_image_uri(image_id))

    def has_image(self, image_id: str) -> bool:
        """Whether there is such an image; the folder is looked through before a no."""
        if not self._is_there(image_id):
            self._init_from_datastore_file()
            if not self._read_only:
                self.refresh()
        return self._is_there(image_id)

    # Images and labels ------------------------------------------------------------------------------------------------

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any] | None) -> str:
        """Copies a volume into the folder; gives its id.

        Raises:
            InputError: the id is no plain name, or the file no volume.
        """
        with upload_removed_on_error(image_filename):
            stem, ending = self._to_id(os.path.basename(image_filename))
            image = check_name(image_id or stem)
            info = dict(json_object("params", image_info))
            try:
                read_header(image_filename)
            except InputError as error:
                raise InputError(
                    f"image {image}", error.found.replace(image_filename, "it"), error.expected, error.mend
                ) from error
            name = self._filename(image, ending)
            self._init_from_datastore_file()
            with FileLock(self._lock_file):
                with replacing(os.path.join(self._datastore.image_path(), name)) as temporary:
                    shutil.copyfile(image_filename, temporary)
                info |= {"ts": int(time.time()), "name": name}
                self._datastore.objects[image] = ImageLabelModel(image=DataModel(info=info, ext=ending))
                self._update_datastore_file(lock=False)
        return image

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None, label_id: str = ""
    ) -> str:
        """Saves a label of an image in place of an earlier one with the same tag.

        Args:
            image_id: the image.
            label_filename: a volume in one of this project's formats, or 3D Slicer's .seg.nrrd.
            label_tag: such as ``final``.
            label_info: kept with the label. Its ``label_info`` (``name`` and ``idx`` of each segment) names the values
                of the file, see `grn_monai.monailabel.saved.renumbered`; without it they are taken as they are.
            label_id: not used; it is that of the image.

        Returns:
            The id of the image.

        Raises:
            ImageNotFoundException: there is no such image.
            InputError: the tag is no plain name; or the file is no label, has values or names that are no layers, or
                does not lie on the voxels of the image.
        """
        with upload_removed_on_error(label_filename):
            tag, image = check_tag(label_tag), check_name(image_id)
            if not self.has_image(image):
                raise ImageNotFoundException(f"Image {image} not found")
            info = dict(json_object("params", label_info))
            given = given_names(info)
            header = read_header(self.get_image_uri(image))
            where = f"label of {image}"
            saved = read_saved(label_filename, where, given, self.names, header)
            unknown = [
                item["name"] for item in names_of_values(saved.labels, saved.names) if item["idx"] > max(self.names)
            ]
            if unknown:
                expected = ", ".join(name for value, name in self.names.items() if value)
                mend = "Rename or remove these segments."
                raise InputError(where, f"segments named {listed(unknown)}", f"only {expected}", mend)
            if given:
                info["label_info"] = names_of_values(saved.labels, self.names)  # the file's values are these now
            name = self._filename(image, ".nii.gz")
            self._init_from_datastore_file()
            with FileLock(self._lock_file):
                known = self._datastore.objects.get(image)
                if known is None:
                    raise ImageNotFoundException(f"Image {image} not found")
                before = self.get_label_uri(image, tag)
                target = os.path.join(self._datastore.label_path(tag), name)
                with replacing(target) as temporary:
                    if saved.as_it_was and str(label_filename).lower().endswith(".nii.gz"):
                        shutil.copyfile(label_filename, temporary)
                    else:
                        write_volume(temporary, saved.labels, header.affine)
                info |= {"ts": int(time.time()), "name": name}
                known.labels[tag] = DataModel(info=info, ext=".nii.gz")
                self._update_datastore_file(lock=False)
                if before and before != os.path.realpath(target):  # of another format
                    Path(before).unlink(missing_ok=True)
        return image


def json_object(where: str, value: Any) -> dict[str, Any]:
    """What a request sends beside its file; {} for nothing.

    Raises:
        InputError: it is no JSON object.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(where, f"{value!r:.100}", "a JSON object", 'Send one, such as {"user": "site"}.')
    return value


def make_studies(path: str, settings: Any, names: Mapping[int, str] | None = None) -> LayersDatastore:
    """The datastore of a folder, as MONAI Label's settings say.

    Args:
        path: the folder.
        settings: `monailabel.config.settings`.
        names: label value to name; default: the six layers.

    Raises:
        InputError: as `LayersDatastore`.
    """
    return LayersDatastore(
        path,
        extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
        auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
        read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        names=names,
    )
