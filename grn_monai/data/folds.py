"""Cross-validation by subject: who is tested in which fold, in a seeded order."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from grn_monai.data.faults import SECTIONS
from grn_monai.data.names import item_names
from grn_monai.errors import InputError

__all__ = ["fold_cohort", "folds"]


def folds(subjects: Iterable[str], count: int = 3, seed: int = 0) -> list[list[str]]:
    """Share subjects out to folds whose sizes differ by at most one: 76 subjects give 26, 25 and 25.

    The order depends on the seed and the subjects' names alone, not on how they are listed.

    Args:
        subjects: names; a repeated one counts once.
        count: number of folds, from 2.
        seed: chooses the order.

    Returns:
        The subjects that each fold tests; every subject is in exactly one.

    Raises:
        InputError: fewer than 2 folds, or more folds than subjects.
    """
    names = {str(name) for name in subjects}
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= len(names):
        expected = f"2 to {len(names)}, the number of subjects"
        raise InputError("folds", repr(count), expected, "Choose fewer folds, or add labelled subjects.")
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    return [order[first::count] for first in range(count)]


def fold_cohort(
    cohort: Mapping[str, Any], fold: int, count: int = 3, seed: int = 0, validation: float = 0.1
) -> dict[str, Any]:
    """The cohort of one fold: its subjects are the test section, all others train, some of them validate.

    The sections that the cohort had are no matter. Unlabelled scans of a subject who tests or validates are left out,
    since other trainings would learn from them.

    Args:
        cohort: as `grn_monai.data.cohort.load_cohort` returns it; all items of its first three sections have labels.
        fold: which, from 1.
        count: see `folds`.
        seed: see `folds`.
        validation: share of the subjects who do not test that validate, rounded, and at least one; 0 for none.

    Returns:
        A copy with new sections, and a ``split`` block that says how they were made.

    Raises:
        InputError: see `folds`; a fold that there is not; a share outside [0, 1) or that leaves nobody to train on;
            items without subject or label.
    """
    items = [item for section in SECTIONS[:3] for item in cohort[section]]
    for key in ("subject", "label"):
        if missing := [str(item.get("scan", "?")) for item in items if key not in item]:
            found = f"no `{key}` in {len(missing)} items ({', '.join(missing[:3])}…)"
            raise InputError("folds", found, f"a {key} for each scan", f"Add `{key}` keys to the cohort file.")
    tested = folds((str(item["subject"]) for item in items), count, seed)
    if not 1 <= fold <= count:
        raise InputError("fold", str(fold), f"1 to {count}", "Correct the option.")
    if not 0 <= validation < 1:
        raise InputError("validation", repr(validation), "a share from 0 to below 1", "Write 10 % as 0.1.")
    test = set(tested[fold - 1])
    others = [name for names in tested for name in names if name not in test]
    # Drawn anew for each fold: the seed's order alone would let the same few subjects validate in all of them.
    others.sort(key=lambda name: hashlib.sha256(f"{seed}:{fold}:{name}".encode()).digest())
    size = max(1, math.floor(validation * len(others) + 0.5)) if validation else 0
    if size >= len(others):
        found = f"{validation:g}, {size} of the {len(others)} subjects who do not test"
        raise InputError("validation", found, "some who train", "Lower the share, or add labelled subjects.")
    held = set(others[:size])
    section_of = {name: "test" if name in test else "validation" if name in held else "training" for name in
                  (*test, *others)}  # fmt: skip
    new = {s: [item for item in items if section_of[str(item["subject"])] == s] for s in SECTIONS[:3]}
    unlabelled = [i for i in cohort["unlabeled"] if section_of.get(item_names(i)[0], "training") == "training"]
    result: dict[str, Any] = {**cohort, **new, "unlabeled": unlabelled}
    for section in SECTIONS:
        if (key := f"num{section.capitalize()}") in result:
            result[key] = len(result[section])
    result["split"] = {
        "fold": fold,
        "folds": count,
        "seed": seed,
        "validation": validation,
        "subjects": {s: len({str(item["subject"]) for item in new[s]}) for s in SECTIONS[:3]},
        "test_subjects": sorted(test),
        "unlabelled_left_out": len(cohort["unlabeled"]) - len(unlabelled),
    }
    return result
