"""Slices, each with its mask, to the volumes that they make."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.convert.kinds import is_label, kind_of, outer_name, place_of, subject_of, walk
from data_prep.convert.pairing import paired
from data_prep.convert.source import Source
from grn_monai.errors import InputError

__all__ = ["picture_rows", "slice_pairs"]

_SLICE = re.compile(
    r"(?P<scan>.*?)[-_ ]*(?P<plane>sagittal|coronal|transverse|sag|cor|trans)?[-_ ]*(?P<index>[0-9]+)$", re.I
)
_PLANES = {"sag": "sagittal", "cor": "transverse", "tra": "transverse"}  # the GRN papers' "coronal" is transverse
_PLANE_FOLDERS = ("sagittal", "coronal", "transverse")


class _Stack(NamedTuple):
    """What the slices of one volume have in common."""

    subject: str
    place: tuple[str, ...]
    scan: str
    plane: str


def slice_pairs(rows: list[dict[str, str]], base: Path, where: Path) -> Iterator[tuple[dict[str, str], Source]]:
    """Rows of slices (``image_path,mask_path``) to volumes, one for each scan.

    The scan is the column ``scan`` or, without it, the folders and the file name less the number at its end (and less
    a plane's name before that); the order is the column ``index``, or that number. The subject is the folders (less
    those such as ``images``, and less a plane's), where there are any, else the scan.

    Args:
        rows: of a table.
        base: folder that the paths are relative to.
        where: the table, for messages.

    Yields:
        The first row of each scan, and its source; with a `problem` where slices are missing or twice there.
    """
    scans: dict[_Stack, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for row in rows:
        stack, index = _stack_of(row, base, where)
        scans[stack].append((index, row))
    for stack, slices in scans.items():
        yield _volume(stack, sorted(slices, key=lambda s: s[0]), base)


def _stack_of(row: dict[str, str], base: Path, where: Path) -> tuple[_Stack, int]:
    image = base / row["image"]
    match = _SLICE.match(image.stem)
    index = row.get("index") or (match["index"] if match else None)
    if index is None or not re.fullmatch("[0-9]+", index):
        mend = "End the file names in a number, or add a column `index`."
        raise InputError(f"{where}, line {row['row']}", f"no slice number in {row['image']}", "one", mend)
    folders = place_of(image, base)
    plane = match["plane"] if match else None
    plane = plane or next((part for part in folders if part.lower() in _PLANE_FOLDERS), None)
    place = tuple(part for part in folders if part.lower() not in _PLANE_FOLDERS)
    own = match["scan"] if match else ""
    told = row.get("scan") or "_".join((*place, own)).rstrip("_") or outer_name(base)
    bids = subject_of(image, base) or ""
    subject = row.get("subject") or (bids if bids.startswith("sub-") and "/" not in bids else "/".join(place)) or told
    named = row.get("plane") or (_PLANES[plane[:3].lower()] if plane else "")
    return _Stack(subject, () if "scan" in row else place, told, named), int(index)


def _volume(stack: _Stack, slices: list[tuple[int, dict[str, str]]], base: Path) -> tuple[dict[str, str], Source]:
    numbers = [number for number, _ in slices]
    masks = [row["label"] for _, row in slices if "label" in row]
    problem = next((row["problem"] for _, row in slices if "problem" in row), None)
    steps = {b - a for a, b in pairwise(numbers)}
    if 0 in steps:
        twice = next(a for a, b in pairwise(numbers) if a == b)
        problem = f"slice {twice} is there twice"
    elif len(steps) > 1:
        missing = sorted(set(range(numbers[0], numbers[-1] + 1, min(steps))) - set(numbers))
        problem = f"{len(missing)} of {len(missing) + len(numbers)} slices are missing, the first is {missing[0]}"
    elif problem is None and masks and len(masks) < len(slices):
        problem = f"{len(slices) - len(masks)} of {len(slices)} slices have no mask"
    row: dict[str, Any] = {**slices[0][1]}
    row.pop("scan", None)
    if stack.plane:
        row["plane"] = stack.plane
    source = Source(
        "slices",
        tuple(base / r["image"] for _, r in slices),
        labels=tuple(base / m for m in masks),
        subject=stack.subject,
        scan=f"{stack.scan}_{stack.plane}" if stack.plane else stack.scan,
        problem=problem,
    )
    return row, source


def picture_rows(folder: Path) -> tuple[list[dict[str, str]], int]:
    """Rows as a table would give them, for a folder of pictures with masks of the same name (NIfTI or pictures).

    The layout of the released GRN scripts without its CSV: a picture and a mask of one name, in one folder or in
    ``images`` and ``masks``, below folders of subjects or not.

    Returns:
        The rows, with ``problem`` where a picture has two masks, and the number of masks that belong to no picture.
    """
    pictures, masks = [], []
    for path in walk(folder):
        kind = kind_of(path)
        if kind == "volume" or (kind == "slices" and is_label(path, folder)):
            masks.append(path)
        elif kind == "slices":
            pictures.append(path)
    pairs, orphans = paired(pictures, masks, folder)
    rows = []
    for path in pictures:
        row = {"row": "?", "image": path.relative_to(folder).as_posix()}
        found = pairs.get(path, [])
        if found:
            row["label"] = found[0].relative_to(folder).as_posix()
        if len(found) > 1:
            row["problem"] = f"{len(found)} masks of {path.name}: {', '.join(mask.name for mask in found)}"
        rows.append(row)
    return rows, len(orphans)
