"""What can be wrong with the items of a cohort: keys, labels, files, duplicates, leaks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from grn_monai.data.names import item_names

__all__ = ["SECTIONS", "cohort_faults", "duplicate_faults", "key_faults", "torn_subjects"]

SECTIONS: tuple[str, ...] = ("training", "validation", "test", "unlabeled")
"""The sections of a cohort file. ``unlabeled`` belongs to the training side."""

_LABEL_NEEDED = ("training", "validation")


def cohort_faults(cohort: dict[str, Any], files_of: Iterable[str] = SECTIONS) -> list[str]:
    """List everything that is wrong with the items of a cohort that `load_cohort` returned.

    Args:
        cohort: content with absolute paths.
        files_of: sections whose files must exist.

    Returns:
        One short line per fault; empty when the cohort is sound. Files are only looked for, not opened.
    """
    return [
        *key_faults(cohort, SECTIONS),
        *_label_faults(cohort),
        *_file_faults(cohort, files_of),
        *duplicate_faults(cohort, SECTIONS),
        *_leak_faults(cohort),
    ]


def _items(cohort: dict[str, Any], sections: Iterable[str] = SECTIONS) -> Iterator[tuple[str, dict[str, Any]]]:
    """The items with their place, such as ``training[3] (s4.nii.gz)``."""
    for section in sections:
        for i, item in enumerate(cohort[section]):
            image = item.get("image")
            yield f"{section}[{i}]" + (f" ({Path(image).name})" if isinstance(image, str) else ""), item


def key_faults(cohort: dict[str, Any], sections: Iterable[str]) -> Iterator[str]:
    """Items without ``image``, or without ``subject`` while others of the cohort have one."""
    # A user's own list may know no subjects at all; then each scan counts as one (see `item_names`).
    subjects_known = any("subject" in item for _, item in _items(cohort))
    for place, item in _items(cohort, sections):
        if not isinstance(item.get("image"), str):
            yield f"{place} has no `image`"
        if subjects_known and "subject" not in item:
            yield f"{place} has no `subject` while others have one"


def _label_faults(cohort: dict[str, Any]) -> Iterator[str]:
    for place, item in _items(cohort, _LABEL_NEEDED):
        if not isinstance(item.get("label"), str):
            yield f"{place} has no `label` (scans without one belong in `unlabeled`)"
    for place, item in _items(cohort, ("unlabeled",)):
        if "label" in item:
            yield f"{place} has a `label` (unlabelled items carry none)"


def _file_faults(cohort: dict[str, Any], sections: Iterable[str]) -> Iterator[str]:
    for place, item in _items(cohort, sections):
        for key in ("image", "label"):
            here = item.get(key)
            # An image may be the folder of a DICOM series.
            if isinstance(here, str) and not (Path(here).is_file() or (key == "image" and Path(here).is_dir())):
                yield f"{place}: {key} {here} does not exist"


def duplicate_faults(cohort: dict[str, Any], sections: Iterable[str]) -> Iterator[str]:
    """Scans of a subject, and files, that are listed twice."""
    seen: dict[tuple[str, ...], str] = {}
    for place, item in _items(cohort, sections):
        keys: list[tuple[str, ...]] = [(key, str(item[key])) for key in ("image", "label") if key in item]
        if "scan" in item:
            subject, scan = item_names(item)
            keys.insert(0, ("scan", scan, "of subject", subject) if "subject" in item else ("scan", scan))
        # An item listed twice is reported for the first of its keys only.
        again = next((key for key in keys if key in seen), None)
        if again is not None:
            yield f"{' '.join(again)} is listed twice: {seen[again]} and {place}"
        for key in keys:
            seen.setdefault(key, place)


def torn_subjects(told: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Subjects that are in more than one of training, validation and test, with those; ``unlabeled`` is training too.

    Args:
        told: subject and section of each scan.
    """
    sides: dict[str, set[str]] = {}
    for subject, section in told:
        sides.setdefault(subject, set()).add("training" if section == "unlabeled" else section)
    return {subject: found for subject, found in sides.items() if len(found) > 1}


def _leak_faults(cohort: dict[str, Any]) -> Iterator[str]:
    told = ((str(item["subject"]), s) for s in SECTIONS for item in cohort[s] if "subject" in item)
    for subject, found in torn_subjects(told).items():
        yield f"subject {subject} is in {' and '.join(side for side in SECTIONS if side in found)}"
