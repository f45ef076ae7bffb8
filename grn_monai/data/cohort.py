"""Read a cohort file (MONAI decathlon style) and choose its labelled share, for bundle configs and tools.

A cohort is a folder with ``images/``, ``labels/`` and a ``dataset.json``::

    {
      "name": "...", "modality": {"0": "US"}, "labels": {"0": "background", "1": "dermis", ...},
      "training":   [{"image": "images/a.nii.gz", "label": "labels/a.nii.gz", "subject": "s1", "scan": "a"}],
      "validation": [...], "test": [...], "unlabeled": [...]
    }

Paths are relative to the JSON file. Items may carry more keys (``side``, ``site``, …); they are passed on. Without a
``scan`` an item is named after its image file, without a ``subject`` each scan counts as one
(:mod:`grn_monai.data.names`).
Split files that ``python -m data_prep split`` writes have the same layout plus a ``split`` block.
"""

from __future__ import annotations

import json
import logging
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.data.faults import SECTIONS, cohort_faults, duplicate_faults, key_faults
from grn_monai.data.names import default_scans, item_names
from grn_monai.data.selection import image_counts, select_labelled
from grn_monai.errors import InputError
from grn_monai.options import check_choice

__all__ = [
    "COHORT_FILE",
    "SECTIONS",
    "cohort_faults",
    "datalist",
    "load_cohort",
    "read_cohort",
    "section_items",
    "select_labelled",
    "split_fraction",
]

COHORT_FILE = "dataset.json"
"""Name of the file that describes a cohort, inside the cohort's folder."""

_SHOWN_FAULTS = 10
_SHOWN_NAMES = 10

_logger = logging.getLogger(__name__)


def read_cohort(path: str | PathLike[str]) -> dict[str, Any]:
    """Read and validate a cohort file.

    Args:
        path: the cohort's folder (its ``dataset.json`` is read) or a JSON file of the same layout.

    Returns:
        The file's content. All four `SECTIONS` are present (empty lists where the file has none); every item
        is a dict whose ``image`` and ``label`` are absolute paths and which has a ``scan`` name (where the file
        gives none, the image's name without extension, see `grn_monai.data.names.default_scans`). Those keys and
        ``subject`` are left out where they are null.

    Raises:
        InputError: the file is missing or is no JSON; ``training`` or ``labels`` is missing; items lack
            ``image``, ``label`` or, for some of them only, ``subject``; files do not exist; a scan of a subject,
            or a file, is listed twice; a subject is in two of training (with unlabeled), validation and test. The
            message lists up to ten faults.
    """
    cohort, file = load_cohort(path)
    _refuse(file, cohort_faults(cohort))
    return cohort


def _refuse(file: Path, faults: list[str]) -> None:
    """Raise if there are faults."""
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
    unnamed = [i for s in SECTIONS for i in cohort[s] if "scan" not in i and isinstance(i.get("image"), str)]
    names = default_scans([item["image"] for item in unnamed])
    for item in unnamed:
        item["scan"] = names[item["image"]]
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
    """Give an item absolute paths; a bare string (decathlon's test list) is an image path."""
    if isinstance(item, str):
        item = {"image": item}
    if not isinstance(item, dict):
        raise InputError(
            file,
            f"an item of {section!r} is {json.dumps(item)[:60]}",
            "a dict with `image`",
            "Mend that item.",
        )
    item = {k: v for k, v in item.items() if v is not None or k not in ("image", "label", "subject", "scan")}
    for key in ("image", "label"):
        if isinstance(item.get(key), str):
            item[key] = str(base / item[key])
    return item


def split_fraction(cohort: dict[str, Any]) -> float:
    """Share of the labels that a split file says it kept; 1 for a cohort that was not reduced."""
    split = cohort.get("split")
    return split.get("fraction", 1) if isinstance(split, dict) else 1


def section_items(path: str | PathLike[str], section: str) -> list[dict[str, Any]]:
    """List the items of one section of a cohort, to run on: nothing but that section is judged, and no file.

    Args:
        path: as for `read_cohort`.
        section: one of `SECTIONS`.

    Returns:
        Items with absolute paths of files that may be missing; labels may be, too.

    Raises:
        InputError: anything `load_cohort` refuses, an unknown or empty section, or items in it without ``image``,
            without ``subject`` while others of the cohort have one, or listed twice.
    """
    _check_section(section)
    cohort, file = load_cohort(path)
    _refuse(file, [*key_faults(cohort, (section,)), *duplicate_faults(cohort, (section,))])
    items: list[dict[str, Any]] = cohort[section]
    _check_filled(items, file, section)
    return items


def _check_section(section: str) -> None:
    if section not in SECTIONS:
        raise InputError("section", repr(section), f"one of {', '.join(SECTIONS)}", "Correct the config.")


def _check_filled(items: list[dict[str, Any]], file: Path, section: str) -> None:
    if not items:
        mend = "Use a file that lists some, or another section."
        raise InputError(file, f"no items in {section!r}", "at least one", mend)


def _nothing_unlabelled(file: Path, cohort: dict[str, Any], fraction: float, by: str) -> InputError:
    """The error for a fraction that leaves no training scan unlabelled, in a file that lists none itself."""
    noun = "scan" if by == "image" else "subject"
    training = cohort["training"]
    groups = len(training if by == "image" else {item_names(item)[0] for item in training})
    of = f"{groups} training {noun}{'s' * (groups != 1)}"
    found = f"no items in 'unlabeled', and fraction {fraction:g} of {of} leaves none unlabelled"
    if (earlier := split_fraction(cohort)) < 1:
        found = f"no items in 'unlabeled' of a split file reduced to fraction {earlier:g}"
        mend = f"Use split: {COHORT_FILE} with a lower fraction, or make the file again (`python -m data_prep split`)."
    elif groups < 2:
        mend = f"List scans of another subject: in `unlabeled` without their labels, or in `training` ({file.name})."
    else:
        # No share is farther from a half than that of all, and of two equally near shares the smaller is taken.
        mend = (
            f"Lower fraction (up to 0.5 always leaves a {noun} unlabelled), list unlabelled scans in {file.name}, or "
            "give `unlabelled: all`, where the labelled images serve as unlabelled ones too."
        )
    return InputError(file, found, "at least one unlabelled scan", mend)


def datalist(
    dataset_dir: str | PathLike[str],
    section: str,
    split: str | PathLike[str] = COHORT_FILE,
    fraction: float = 1.0,
    seed: int = 0,
    by: str = "subject",
    depth_axis: int | str = 2,
    unlabelled: str = "rest",
) -> list[dict[str, Any]]:
    """List the items of one section of a cohort, for a bundle's ``Dataset``.

    A fraction chooses the same subjects as ``python -m data_prep split`` does: both count slices. What was chosen is
    logged (level INFO) when the section is ``training``.

    Args:
        dataset_dir: the cohort's folder.
        section: one of `SECTIONS`.
        split: the cohort or split file, relative to `dataset_dir` or absolute.
        fraction: share of the training images that keeps its labels, in (0, 1]. Below 1, ``training`` returns
            the labelled items only, and ``unlabeled`` the file's own unlabelled items plus the others.
        seed: see `select_labelled`.
        by: see `select_labelled`.
        depth_axis: see `image_counts`; needed for a fraction only.
        unlabelled: what ``unlabeled`` means: ``"rest"``, images whose labels are not used, as above; ``"all"``, these
            and the labelled training images too, which serve without their labels (so that a fraction of 1 has some).

    Returns:
        Items with absolute paths; those of ``unlabeled`` have no ``label`` key.

    Raises:
        InputError: anything `read_cohort` or `select_labelled` refuses, except that only the files of the items
            needed must exist; an unknown section or meaning of ``unlabeled``, a fraction below 1 of a split file that
            is already reduced, a section without items, or a fraction that leaves nothing unlabelled.
    """
    file = Path(dataset_dir) / split
    _check_section(section)
    check_choice("unlabelled", unlabelled, ("rest", "all"))
    cohort, _ = load_cohort(file)
    everything = section == "unlabeled" and unlabelled == "all"
    reduced = fraction != 1 and section in ("training", "unlabeled")
    _refuse(file, cohort_faults(cohort, dict.fromkeys(("training", section)) if reduced or everything else (section,)))
    if fraction != 1 and (earlier := split_fraction(cohort)) < 1:
        raise InputError(
            file,
            f"a split file already reduced to fraction {earlier:g}, and fraction={fraction!r} on top",
            f"one of the two: a reduced split file, or a fraction of {COHORT_FILE}",
            f"Leave fraction at 1, or use split: {COHORT_FILE}.",
        )
    items: list[dict[str, Any]] = cohort[section]
    if everything:
        items = items + [{k: v for k, v in item.items() if k != "label"} for item in cohort["training"]]
    elif reduced:
        training = cohort["training"]
        labelled, rest, share = select_labelled(
            training, fraction, seed, by, image_counts(cohort, training, depth_axis)
        )
        items = labelled if section == "training" else items + rest
        if section == "training":
            _log_choice(fraction, share, labelled, training)
    if section == "unlabeled" and not items:
        raise _nothing_unlabelled(file, cohort, fraction, by)
    _check_filled(items, file, section)
    return items


def _log_choice(fraction: float, share: float, labelled: list[dict[str, Any]], training: list[dict[str, Any]]) -> None:
    chosen, everyone = (sorted({item_names(item)[0] for item in items}) for items in (labelled, training))
    shown = ", ".join(chosen[:_SHOWN_NAMES]) + (", …" if len(chosen) > _SHOWN_NAMES else "")
    _logger.info(
        f"labels: {100 * share:.3g} % of the training images (asked: {100 * fraction:g} %), "
        f"{len(labelled)} of {len(training)} scans, {len(chosen)} of {len(everyone)} subjects: {shown}"
    )
