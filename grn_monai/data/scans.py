"""Whole scans for inference: which files, and a dataset that hands a bad one on as a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from grn_monai.data.cohort import section_items
from grn_monai.data.names import check_file_names, item_names
from grn_monai.data.series import series_folders
from grn_monai.data.volume import EXTENSIONS
from grn_monai.errors import InputError, find_input_error

__all__ = ["ScanDataset", "scan_list"]


def scan_list(
    source: str | PathLike[str] | Sequence[str | PathLike[str]], section: str = "test", split: str = "dataset.json"
) -> list[dict[str, Any]]:
    """The scans to run on.

    Args:
        source: a cohort folder (its ``section`` is taken), any other folder of scans, one file, the folder of one DICOM
            series, or a list of such. In a folder of scans the volume files that lie directly in it are taken, and
            each folder at any depth that holds DICOM files as one scan.
        section: section of a cohort.
        split: the cohort's JSON file, relative to its folder.

    Returns:
        items with ``image`` (path); those of a cohort also have ``scan`` and what else the file gives, such as
        ``label`` and ``subject``. Whether the files of a cohort are there is left to :class:`ScanDataset`, so that
        one missing scan does not stop the others.

    Raises:
        InputError: when there is no such file or folder, or no scan in it, or the items of the section are at fault
            (see `section_items`).
    """
    if not isinstance(source, str | PathLike):
        return [{"image": str(path)} for path in source]
    path = Path(source)
    if (path / split).is_file():
        return section_items(path / split, section)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name.lower().endswith(EXTENSIONS) and p.name[0] != ".")
        files += series_folders(path)
        if not files:
            raise InputError(
                path,
                f"neither {split} nor a scan",
                f"a cohort folder, scans that end in {', '.join(EXTENSIONS)}, or folders of DICOM series",
                "Give the folder that holds the scans, or one file.",
            )
        return [{"image": str(p)} for p in files]
    if not path.exists():
        raise InputError(path, "no such file or folder", "a scan, a folder of scans or a cohort", "Check the path.")
    return [{"image": str(path)}]


class ScanDataset(Dataset):
    """Whole scans; one that cannot be read becomes ``{"failure": message}`` instead of stopping the batch.

    ``ScanEvaluator`` collects the messages. The transform gets ``image``, ``label`` (where there is one), ``subject``
    and ``scan``, the last two filled in where the item has none; further keys of a cohort file are left out.

    Args:
        data: items as ``scan_list`` gives them.
        transform: the preprocessing chain, starting with ``LoadScand``.
        keys: the files that every item must have; for an evaluation, ``("image", "label")``.

    Raises:
        InputError: two images share the file name under which their results would be saved.
    """

    def __init__(
        self, data: Sequence[Mapping[str, Any]], transform: Callable[[Any], Any], keys: Sequence[str] = ("image",)
    ) -> None:
        self.data = list(data)
        self.transform = transform
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)
        check_file_names(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def _item(self, index: int) -> dict[str, Any]:
        given = self.data[index]
        item = {key: given[key] for key in ("image", "label") if given.get(key) is not None}
        where = item.get("image", f"scan {index + 1} of {len(self)}")
        for key in self.keys:
            if key not in item:
                mend = f"Name its {key} file in the cohort file, or take the scan out of this section."
                raise InputError(where, f"no {key}", f"the {key} of every scan", mend)
        if "image" in item:
            item["subject"], item["scan"] = item_names(given)
        return item

    def __getitem__(self, index: int) -> Any:
        try:
            return self.transform(self._item(index))
        except Exception as error:
            # MONAI wraps what a transform raises; only what the user can mend is handed on.
            cause = find_input_error(error)
            if cause is None:
                raise
            return {"failure": str(cause)}
