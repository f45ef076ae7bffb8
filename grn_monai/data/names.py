"""Names of scans and subjects where a cohort gives none; the one place that decides them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.data.volume import scan_name
from grn_monai.errors import InputError

__all__ = ["check_file_names", "default_scans", "image_of", "item_names"]


def item_names(item: Mapping[str, Any]) -> tuple[str, str]:
    """Subject and scan of an item: its own ``scan``, else the name of its image; its own ``subject``, else the scan.

    So a scan without a subject counts as a subject of its own.
    """
    scan = item.get("scan")
    subject = item.get("subject")
    scan = scan_name(item["image"]) if scan is None else str(scan)
    return scan if subject is None else str(subject), scan


def image_of(number: int, item: Any, where: str) -> str:
    """The image file of an item of a data set.

    Args:
        number: of the item, named in the error.
        item: as a cohort lists it.
        where: the data set.

    Raises:
        InputError: it is no mapping, or has no file name there.
    """
    if not isinstance(item, Mapping) or not isinstance(item.get("image"), (str, PathLike)):
        found = f"item {number} without a file name for 'image'"
        raise InputError(where, found, "{'image': file, 'label': file}", "Give the list of read_cohort.")
    return str(item["image"])


def default_scans(images: Sequence[str]) -> dict[str, str]:
    """A scan name for each image file: `scan_name`, with as many of its folders as tell it from the others.

    ``s1/us.nii.gz`` and ``s2/us.nii.gz`` are ``s1/us`` and ``s2/us``; ``a.nii.gz`` and ``a.mha`` of one folder keep
    their extensions. Absolute folders above those are never part of a name.
    """
    alike: dict[str, list[str]] = {}
    for image in dict.fromkeys(images):
        alike.setdefault(scan_name(image), []).append(image)
    names: dict[str, str] = {}
    for name, group in alike.items():
        names.update(_told_apart(name, group))
    return names


def _told_apart(name: str, images: list[str]) -> dict[str, str]:
    folders = [Path(image).parent.parts for image in images]
    for end in (lambda _: name, lambda image: Path(image).name):
        for depth in range(max(map(len, folders)) + 1):
            found = [
                "/".join((*parts[max(len(parts) - depth, 0) :], end(image)))
                for image, parts in zip(images, folders, strict=True)
            ]
            if len(set(found)) == len(images):
                return dict(zip(images, found, strict=True))
    return dict(zip(images, images, strict=True))


def check_file_names(items: Sequence[Mapping[str, Any]]) -> None:
    """Checks that no two image files share the name under which their results would be saved.

    Raises:
        InputError: two of them do.
    """
    seen: dict[str, str] = {}
    for item in items:
        if item.get("image") is None:
            continue
        image = str(item["image"])
        stem = scan_name(image)
        if stem in seen:
            raise InputError(
                image,
                f"the file name {stem!r} that {seen[stem]} has too",
                f"a name of its own for each scan, since results are saved as {stem}_….nii.gz",
                "Give each scan a file name of its own.",
            )
        seen[stem] = image
