"""Training and validation lists of a cohort that may have no validation section of its own."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.data.cohort import COHORT_FILE, datalist, load_cohort
from grn_monai.data.names import item_names
from grn_monai.data.selection import image_counts, select_labelled
from grn_monai.errors import InputError
from grn_monai.options import check_choice

__all__ = ["holdout_list"]

_logger = logging.getLogger(__name__)


def holdout_list(
    dataset_dir: str | PathLike[str],
    section: str,
    split: str | PathLike[str] = COHORT_FILE,
    fraction: float = 1.0,
    seed: int = 0,
    validation_fraction: float = 0.1,
) -> list[dict[str, Any]]:
    """The items to train on, or to validate with.

    A validation section of the cohort is used. Where it is empty, whole training subjects are held out by the seed
    until their share of the scans is nearest to `validation_fraction`, at least one. What of the rest keeps its labels
    is then chosen as `datalist` does.

    Args:
        dataset_dir: the cohort's folder.
        section: ``"training"`` or ``"validation"``.
        split: the cohort or split file, relative to `dataset_dir` or absolute.
        fraction: share of the training images that keeps its labels, in (0, 1]; of ``training`` only.
        seed: of both choices.
        validation_fraction: above 0 and below 1.

    Returns:
        Items with absolute paths, as of `datalist`.

    Raises:
        InputError: anything `datalist` refuses; a share outside its range; or only one subject to train and validate
            with.
    """
    check_choice("section", section, ("training", "validation"))
    cohort, file = load_cohort(Path(dataset_dir) / split)
    if cohort["validation"]:
        share = fraction if section == "training" else 1.0
        return datalist(dataset_dir, section, split, share, seed)
    if not 0 < validation_fraction < 1:
        mend = "Correct the option, or list scans in the section validation."
        raise InputError("validation_fraction", repr(validation_fraction), "above 0 and below 1", mend)
    items = datalist(dataset_dir, "training", split)  # judges and finds all of them
    held, rest, share = select_labelled(items, validation_fraction, seed)
    if not rest:
        mend = "List scans of another subject in validation or training."
        raise InputError(file, "one subject, and no section validation", "two subjects at least", mend)
    if section == "validation":
        names = sorted({item_names(item)[0] for item in held})
        _logger.info("validation: %.3g %% of the training scans, of %s", 100 * share, ", ".join(names))
        return held
    left = {item_names(item) for item in rest}
    training = [item for item in items if item_names(item) in left]
    if fraction == 1:
        return training
    return select_labelled(training, fraction, seed, "subject", image_counts(cohort, training))[0]
