"""Find every fault of a cohort."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from grn_monai.data.cohort import SECTIONS, cohort_faults, load_cohort
from grn_monai.data.volume import check_same_geometry, read_volume
from grn_monai.errors import InputError

__all__ = ["check_cohort", "pair_faults"]

_KINDS: tuple[Literal["image", "label"], ...] = ("image", "label")


def pair_faults(item: dict[str, Any], allowed: set[int]) -> Iterator[str]:
    """Read an item's image and label and say what is wrong with them.

    Args:
        item: with absolute paths; `label` may be missing.
        allowed: label values the cohort knows.

    Yields:
        One line per fault.
    """
    volumes = {}
    for kind in _KINDS:
        path = item.get(kind)
        if not isinstance(path, str) or not Path(path).is_file():
            continue  # `cohort_faults` has said so
        try:
            volumes[kind] = read_volume(path, kind=kind, num_classes=max(allowed) + 1)
        except InputError as error:
            yield str(error)
        except Exception as error:  # one broken file must not hide the faults of the others
            yield f"{path}: cannot be read ({type(error).__name__}: {error})"
    if "label" in volumes:
        strange = sorted(set(torch.unique(volumes["label"].as_tensor()).tolist()) - allowed)
        if strange:
            shown = ", ".join(map(str, strange[:5])) + (" …" if len(strange) > 5 else "")
            known = ", ".join(map(str, sorted(allowed)))
            yield f"{item['label']}: has label values {shown}, but the cohort's labels are {known}"
    if len(volumes) == len(_KINDS):
        try:
            check_same_geometry(volumes["image"], volumes["label"], item["image"], item["label"])
        except InputError as error:
            yield str(error)


def check_cohort(path: Path, progress: bool = True) -> list[str]:
    """List all faults of a cohort, one volume pair in memory at a time.

    Args:
        path: cohort folder or JSON file.
        progress: show a progress bar on stderr.

    Returns:
        One line per fault; empty when all is well.

    Raises:
        InputError: the JSON file itself cannot be used.
    """
    cohort, _ = load_cohort(path)
    faults = cohort_faults(cohort)
    allowed = {int(value) for value in cohort["labels"]}
    items = [item for section in SECTIONS for item in cohort[section]]
    if not items:
        faults.append("no section lists a scan")
    for item in tqdm(items, unit="scan", disable=not progress, file=sys.stderr):
        faults.extend(pair_faults(item, allowed))
    return faults
