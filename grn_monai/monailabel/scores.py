"""Scores of unlabelled scans, kept in one small file for each scan."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

from grn_monai.errors import InputError
from grn_monai.files import file_stamps, write_whole

__all__ = ["ScoreStore", "file_stamp", "weights_stamp"]


def weights_stamp(path: str | PathLike[str]) -> str:
    """What tells the weights of a checkpoint from others at the same path: its time of change and its size.

    Raises:
        InputError: there is no such file.
    """
    return "-".join(str(number) for pair in file_stamps(path) for number in pair)


def file_stamp(path: str | PathLike[str]) -> str:
    """What tells a scan's file, with the voxels beside an ``.mhd``, from others of its name; "" where there is none."""
    try:
        return weights_stamp(path) if str(path) else ""
    except (InputError, OSError):
        return ""


class ScoreStore:
    """Scores of scans by one model, as ``FOLDER/IMAGE.json``.

    MONAI Label's own place for them, the datastore's file, is written as a whole by the server and by every
    background process from what each has in memory, so that a score saved while somebody submits a label can undo
    the label's entry. A file for each scan, renamed into place, has no such race.

    Args:
        folder: folder of the files; made with the first.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)

    def _file(self, image_id: str) -> Path:
        return self.folder / f"{quote(image_id, safe='')}.json"

    def save(self, image_id: str, stamp: str, values: dict[str, Any], image: str = "") -> None:
        """Keep the values of one scan.

        Args:
            image_id: the scan.
            stamp: of the weights that gave them.
            values: what to keep.
            image: stamp of the scan's file, taken before it was read; "": unknown.

        Raises:
            InputError: the folder is not writable, or the disk is full.
        """
        write_whole(self._file(image_id), json.dumps({**values, "weights": stamp, "image": image}, indent=1))

    def get(self, image_id: str, stamp: str, image: str = "") -> dict[str, Any] | None:
        """The values of one scan by the weights with this stamp.

        Args:
            image_id: the scan.
            stamp: of the weights.
            image: stamp of the scan's file as it is now; "": unknown, any will do.

        Returns:
            None where there are no values, or those of other weights or of another file.
        """
        try:
            values: dict[str, Any] = json.loads(self._file(image_id).read_text())
        except (OSError, ValueError):
            return None
        if not isinstance(values, dict) or values.get("weights") != stamp:
            return None
        other = image and values.get("image") and values["image"] != image
        return None if other else values
