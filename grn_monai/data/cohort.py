"""Read a cohort file (MONAI decathlon style) and choose its labelled share, for bundle configs and tools.

A cohort is a folder with ``images/``, ``labels/`` and a ``dataset.json``::

    {
      "name": "...", "modality": {"0": "US"}, "labels": {"0": "background", "1": "dermis", ...},
      "training":   [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz", "subject": "s1", "scan": "a"}],
      "validation": [...], "test": [...], "unlabeled": [...]
    }

Paths are relative to the JSON file. Items may carry more keys (``side``, ``site``, …); they are passed on.
Split files that ``python -m data_prep split`` writes have the same layout plus a ``split`` block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.data.selection import select_labelled
from grn_monai.errors import InputError

__all__ = [
    "COHORT_FILE",
    "SECTIONS",
    "cohort_faults",
    "datalist",
    "load_cohort",
    "read_cohort",
    "select_labelled",
]

COHORT_FILE = "dataset.json"
"""Name of the file that describes a cohort, inside the cohort's folder."""

SECTIONS: tuple[str, ...] = ("training", "validation", "test", "unlabeled")
"""The sections of a cohort file. ``unlabeled`` belongs to the training side."""

_LABEL_NEEDED = ("training", "validation")
_SHOWN_FAULTS = 10


def read_cohort(path: str | PathLike[str]) -> dict[str, Any]:
    """Read and validate a cohort file.

    Args:
        path: the cohort's folder (its ``dataset.json`` is read) or a JSON file of the same layout.

    Returns:
        The file's content. All four `SECTIONS` are present (empty lists where the file has none); every item
        is a dict whose ``image`` and ``label`` are absolute paths and which has a ``scan`` name (the image's
        file name up to the first dot, where the file gives none).

    Raises:
        InputError: the file is missing or is no JSON; ``training`` or ``labels`` is missing; items lack
            ``image``, ``label`` or, for some of them only, ``subject``; files do not exist; a scan is listed
            twice; a subject is in two of training (with unlabeled), validation and test. The message lists
            up to ten faults.
    """
    cohort, file = load_cohort(path)
    faults = cohort_faults(cohort)
    if faults:
        shown = "; ".join(faults[:_SHOWN_FAULTS])
        more = f"; and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InputError(
            file,
            f"{count}: {shown}{more}",
            "existing files, each scan once and each subject in one split",
            "Correct the file, or make it again with `python -m data_prep split`.",
        )
    return cohort


def load_cohort(path: str | PathLike[str]) -> tuple[dict[str, Any], Path]:
    """Parse a cohort file without judging its items (`cohort_faults` does).

    Args:
        path: as for `read_cohort`.

    Returns:
        The content with absolute paths, and the JSON file it came from.

    Raises:
        InputError: the file is missing, is no JSON object, or a section is missing or is no list of items.
    """
    file = Path(path)
    if file.is_dir():
        file = file / COHORT_FILE
    if not file.is_file():
        raise InputError(
            file,
            "no such file",
            f"a cohort folder with a {COHORT_FILE}, or such a JSON file",
            "Give the folder that `python -m data_prep` wrote, or write the file (see docs/simulator.md).",
        )
    try:
        cohort = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(file, f"no valid JSON ({error})", "a JSON object", "Mend the file's syntax.") from error
    if not isinstance(cohort, dict):
        raise InputError(file, f"a JSON {type(cohort).__name__}", "a JSON object", "Use the decathlon layout.")

    missing = [key for key in ("training", "labels") if key not in cohort]
    if missing:
        raise InputError(
            file,
            f"no {' and no '.join(repr(key) for key in missing)}",
            "`labels` (value to name) and `training` (a list, which may be empty)",
            f"Add the missing key; the file has {', '.join(sorted(cohort)) or 'none'}.",
        )
    _check_label_names(cohort["labels"], file)
    base = file.resolve().parent
    for section in SECTIONS:
        items = cohort.get(section, [])
        if not isinstance(items, list):
            raise InputError(file, f"{section!r} is a {type(items).__name__}", "a list of items", "Make it a list.")
        cohort[section] = [_absolute(item, base, file, section) for item in items]
    return cohort, file


def _check_label_names(labels: Any, file: Path) -> None:
    """Raise unless ``labels`` maps whole numbers (as strings, JSON has no other keys) to names."""
    ok = isinstance(labels, dict) and labels and all(key.isdigit() for key in labels)
    if not ok or not all(isinstance(name, str) for name in labels.values()):
        raise InputError(
            file,
            f"`labels` is {json.dumps(labels)[:80]}",
            'label values to names, such as {"0": "background", "1": "dermis"}',
            "Write the `labels` block in that form.",
        )


def _absolute(item: Any, base: Path, file: Path, section: str) -> dict[str, Any]:
    """Give an item absolute paths and a scan name; a bare string (decathlon's test list) is an image path."""
    if isinstance(item, str):
        item = {"image": item}
    if not isinstance(item, dict):
        raise InputError(
            file,
            f"an item of {section!r} is {json.dumps(item)[:60]}",
            "a dict with `image`",
            "Mend that item.",
        )
    item = dict(item)
    for key in ("image", "label"):
        if isinstance(item.get(key), str):
            item[key] = str(base / item[key])
    if isinstance(item.get("image"), str):
        item.setdefault("scan", Path(item["image"]).name.split(".")[0])
    return item


def cohort_faults(cohort: dict[str, Any]) -> list[str]:
    """List everything that is wrong with the items of a cohort that `load_cohort` returned.

    Args:
        cohort: content with absolute paths.

    Returns:
        One short line per fault; empty when the cohort is sound. Files are only looked for, not opened.
    """
    return [*_key_faults(cohort), *_file_faults(cohort), *_duplicate_faults(cohort), *_leak_faults(cohort)]


def _items(cohort: dict[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for section in SECTIONS:
        for i, item in enumerate(cohort[section]):
            yield section, i, item


def _key_faults(cohort: dict[str, Any]) -> Iterator[str]:
    all_items = list(_items(cohort))
    # A user's own list may know no subjects at all; then each scan counts as one (see `select_labelled`).
    subjects_known = any("subject" in item for _, _, item in all_items)
    for section, i, item in all_items:
        if not isinstance(item.get("image"), str):
            yield f"{section}[{i}] has no `image`"
        if section in _LABEL_NEEDED and not isinstance(item.get("label"), str):
            yield f"{section}[{i}] has no `label` (scans without one belong in `unlabeled`)"
        if section == "unlabeled" and "label" in item:
            yield f"{section}[{i}] has a `label` (unlabelled items carry none)"
        if subjects_known and "subject" not in item:
            yield f"{section}[{i}] has no `subject` while others have one"


def _file_faults(cohort: dict[str, Any]) -> Iterator[str]:
    for section, i, item in _items(cohort):
        for key in ("image", "label"):
            if isinstance(item.get(key), str) and not Path(item[key]).is_file():
                yield f"{section}[{i}] {key} {item[key]} does not exist"


def _duplicate_faults(cohort: dict[str, Any]) -> Iterator[str]:
    seen: dict[tuple[str, str], str] = {}
    for section, i, item in _items(cohort):
        for key in ("scan", "image", "label"):
            if key not in item:
                continue
            place = f"{section}[{i}]"
            first = seen.setdefault((key, str(item[key])), place)
            if first != place:
                yield f"{key} {item[key]} is listed twice ({first} and {place})"
                break  # an item listed twice would otherwise be reported for each of its keys


def _leak_faults(cohort: dict[str, Any]) -> Iterator[str]:
    sides: dict[str, set[str]] = {}
    for section, _, item in _items(cohort):
        if "subject" in item:
            side = "training" if section == "unlabeled" else section
            sides.setdefault(str(item["subject"]), set()).add(side)
    for subject, found in sides.items():
        if len(found) > 1:
            yield f"subject {subject} is in {' and '.join(side for side in SECTIONS if side in found)}"


def datalist(
    dataset_dir: str | PathLike[str],
    section: str,
    split: str | PathLike[str] = COHORT_FILE,
    fraction: float = 1.0,
    seed: int = 0,
    by: str = "subject",
) -> list[dict[str, Any]]:
    """List the items of one section of a cohort, for a bundle's ``Dataset``.

    Args:
        dataset_dir: the cohort's folder.
        section: one of `SECTIONS`.
        split: the cohort or split file, relative to `dataset_dir` or absolute.
        fraction: share of the training images that keeps its labels, in (0, 1]. Below 1, ``training`` returns
            the labelled items only, and ``unlabeled`` the file's own unlabelled items plus the others.
        seed: see `select_labelled`.
        by: see `select_labelled`.

    Returns:
        Items with absolute paths; those of ``unlabeled`` have no ``label`` key.

    Raises:
        InputError: anything `read_cohort` or `select_labelled` refuses, an unknown section, a fraction below
            1 of a split file that is already reduced, or a section without items.
    """
    file = Path(dataset_dir) / split
    if section not in SECTIONS:
        raise InputError("section", repr(section), f"one of {', '.join(SECTIONS)}", "Correct the config.")
    cohort = read_cohort(file)
    if fraction != 1:
        earlier = cohort.get("split", {}).get("fraction", 1) if isinstance(cohort.get("split"), dict) else 1
        if earlier < 1:
            raise InputError(
                file,
                f"a split file already reduced to fraction {earlier:g}, and fraction={fraction!r} on top",
                f"one of the two: a reduced split file, or a fraction of {COHORT_FILE}",
                f"Leave fraction at 1, or use split: {COHORT_FILE}.",
            )
    items: list[dict[str, Any]] = cohort[section]
    if section in ("training", "unlabeled") and fraction != 1:
        labelled, rest, _ = select_labelled(cohort["training"], fraction, seed, by)
        items = labelled if section == "training" else items + rest
    if not items:
        mend = (
            "Set fraction below 1, so that the training scans not chosen become unlabelled, or list some."
            if section == "unlabeled"
            else "Use a file that lists some, or another section."
        )
        raise InputError(file, f"no items in {section!r}", "at least one", mend)
    return items
