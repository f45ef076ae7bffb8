"""Whole scans for inference: which files, and a dataset that hands a bad one on as a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from grn_monai.data.cohort import datalist
from grn_monai.data.volume import EXTENSIONS
from grn_monai.errors import InputError, find_input_error

__all__ = ["ScanDataset", "scan_list"]


def scan_list(
    source: str | PathLike[str] | Sequence[str | PathLike[str]], section: str = "test", split: str = "dataset.json"
) -> list[dict[str, Any]]:
    """The scans to run on.

    Args:
        source: a cohort folder (its ``section`` is taken), any other folder of scans, one file, or a list of files.
        section: section of a cohort.
        split: the cohort's JSON file, relative to its folder.

    Returns:
        items with ``image`` (path); those of a cohort also have ``label``, ``subject`` and ``scan``.

    Raises:
        InputError: when there is no such file or folder, or no scan in it.
    """
    if not isinstance(source, str | PathLike):
        return [{"image": str(path)} for path in source]
    path = Path(source)
    if (path / split).is_file():
        return datalist(path, section, split)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.name.lower().endswith(EXTENSIONS) and p.name[0] != ".")
        if not files:
            raise InputError(
                path,
                f"neither {split} nor a scan",
                f"a cohort folder, or scans that end in {', '.join(EXTENSIONS)}",
                "Give the folder that holds the scans, or one file.",
            )
        return [{"image": str(p)} for p in files]
    if not path.exists():
        raise InputError(path, "no such file or folder", "a scan, a folder of scans or a cohort", "Check the path.")
    return [{"image": str(path)}]


class ScanDataset(Dataset):
    """Whole scans; one that cannot be read becomes ``{"failure": message}`` instead of stopping the batch.

    ``ScanEvaluator`` collects the messages.

    Args:
        data: items as ``scan_list`` gives them.
        transform: the preprocessing chain, starting with ``LoadScand``.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable[[Any], Any]) -> None:
        self.data = list(data)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.transform(dict(self.data[index]))
        except Exception as error:
            # MONAI wraps what a transform raises; only what the user can mend is handed on.
            cause = find_input_error(error)
            if cause is None:
                raise
            return {"failure": str(cause)}
