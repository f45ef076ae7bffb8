"""Scores of unlabelled scans, kept in one small file for each scan."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote

from grn_monai.files import file_stamps, write_whole

__all__ = ["ScoreStore", "weights_stamp"]


def weights_stamp(path: str | PathLike[str]) -> str:
    """What tells the weights of a checkpoint from others at the same path: its time of change and its size.

    Raises:
        InputError: there is no such file.
    """
    return "-".join(str(number) for number in file_stamps(path)[0])


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

    def save(self, image_id: str, stamp: str, values: dict[str, Any]) -> None:
        """Keep the values of one scan, by the weights with this stamp.

        Raises:
            InputError: the folder is not writable, or the disk is full.
        """
        write_whole(self._file(image_id), json.dumps({**values, "weights": stamp}, indent=1))

    def get(self, image_id: str, stamp: str) -> dict[str, Any] | None:
        """The values of one scan by these weights; None where there are none, or those of other weights."""
        try:
            values: dict[str, Any] = json.loads(self._file(image_id).read_text())
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) and values.get("weights") == stamp else None
