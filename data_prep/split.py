"""Which training subjects keep their labels, and which subjects are for what."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from data_prep.files import relative_items, write_json
from grn_monai.data.cohort import COHORT_FILE, SECTIONS, load_cohort, read_cohort, split_fraction
from grn_monai.data.folds import fold_cohort
from grn_monai.data.names import item_names
from grn_monai.data.selection import image_counts, select_labelled
from grn_monai.errors import InputError
from grn_monai.files import make_folder

__all__ = ["assign_subjects", "split_cohort", "write_folds", "write_split"]


def assign_subjects(cohort: dict[str, Any], sizes: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """Share the subjects of all sections out to training, validation and test again.

    Subjects with unlabelled scans go to training first, since those scans are trained on.

    Args:
        cohort: as `load_cohort` returns it; a subject in two sections is no matter here.
        sizes: subjects for training, validation and test; all of them together.
        seed: chooses who goes where.

    Returns:
        A copy with new sections; `unlabeled` is unchanged.

    Raises:
        InputError: items without a subject, or sizes that do not fit the subjects.
    """
    items = [item for section in SECTIONS[:3] for item in cohort[section]]
    if missing := [item.get("scan", "?") for item in [*items, *cohort["unlabeled"]] if "subject" not in item]:
        found = f"no `subject` in {len(missing)} items ({', '.join(missing[:3])}…)"
        raise InputError("--sizes", found, "a subject for each scan", "Add `subject` keys to the cohort file.")
    if unlabelled := [item["scan"] for item in items if "label" not in item]:
        found = f"no `label` in {len(unlabelled)} items ({', '.join(unlabelled[:3])}…)"
        raise InputError("--sizes", found, "a label for each scan", "Move these items to `unlabeled`.")
    trained = {str(item["subject"]) for item in cohort["unlabeled"]}
    names = {str(item["subject"]) for item in items}
    order = sorted(names, key=lambda n: (n not in trained, hashlib.sha256(f"{seed}:{n}".encode()).digest()))
    if min(sizes) < 0 or sizes[0] < 1 or sum(sizes) != len(order):
        raise InputError(
            "--sizes",
            " + ".join(map(str, sizes)) + f" = {sum(sizes)}",
            f"the cohort's {len(order)} subjects, at least one of them in training",
            "Choose sizes that add up to it.",
        )
    if (forced := len(names & trained)) > sizes[0]:
        found = f"{sizes[0]} training subjects"
        mend = "Enlarge the training section."
        raise InputError("--sizes", found, f"at least the {forced} who have unlabelled scans", mend)
    section_of: dict[str, str] = {}
    start = 0
    for section, size in zip(SECTIONS[:3], sizes, strict=True):
        section_of.update(dict.fromkeys(order[start : start + size], section))
        start += size
    new = {s: [item for item in items if section_of[str(item["subject"])] == s] for s in SECTIONS[:3]}
    return {**cohort, **new}


def split_cohort(
    cohort: dict[str, Any],
    fraction: float,
    seed: int,
    by: str,
    sizes: tuple[int, int, int] | None = None,
    depth_axis: int | str = 2,
) -> dict[str, Any]:
    """Keep the labels of a share of the training scans.

    Args:
        cohort: content with absolute paths.
        fraction: target share of the training images, in (0, 1].
        seed: see `select_labelled`.
        by: see `select_labelled`.
        sizes: recorded, if the subjects were shared out again.
        depth_axis: see `image_counts`.

    Returns:
        A copy with new `training` and `unlabeled` sections and a `split` block.
    """
    training = cohort["training"]
    labelled, rest, share = select_labelled(training, fraction, seed, by, image_counts(cohort, training, depth_axis))
    new = {**cohort, "training": labelled, "unlabeled": [*cohort["unlabeled"], *rest]}
    for section in SECTIONS:
        if (key := f"num{section.capitalize()}") in new:
            new[key] = len(new[section])
    new["split"] = {
        "fraction": fraction,
        "share": round(share, 6),
        "training_scans": len(training),
        "seed": seed,
        "by": by,
        "labelled_subjects": sorted({item_names(item)[0] for item in labelled}),
        **({"sizes": list(sizes)} if sizes else {}),
    }
    return new


def _default_name(fraction: float, seed: int, by: str, sizes: tuple[int, int, int] | None) -> str:
    percent = f"{100 * fraction:04.1f}".removesuffix(".0")
    parts = ["split"]
    if fraction < 1 or sizes is None:
        parts.append(percent.replace(".", "p"))
    if by == "image":
        parts.append("image")
    if seed:
        parts.append(f"seed{seed}")
    return "_".join(parts) + ".json"


def write_split(
    path: Path,
    fraction: float = 1.0,
    seed: int = 0,
    by: str = "subject",
    sizes: tuple[int, int, int] | None = None,
    out: Path | None = None,
    depth_axis: int | str = 2,
) -> tuple[Path, dict[str, Any]]:
    """Write a split file for a cohort.

    Args:
        path: cohort folder, or a JSON file of its layout.
        fraction: target share of labelled training images, in (0, 1].
        seed: chooses subjects.
        by: see `select_labelled`.
        sizes: subjects in training, validation and test, to share all out again; None keeps the sections.
        out: file to write; by default named after the arguments, inside the cohort.
        depth_axis: see `image_counts`.

    Returns:
        The file, and its content with absolute paths.

    Raises:
        InputError: the cohort is unsound or already reduced, or the arguments do not fit it.
    """
    # With sizes the sections are made anew, so that a leak in the old ones is no fault.
    cohort, file = load_cohort(path) if sizes else (read_cohort(path), path)
    if fraction < 1 and split_fraction(cohort) < 1:
        mend = f"Split {COHORT_FILE} instead."
        raise InputError(file, "a split file that is already reduced", "a file with all labels", mend)
    if sizes is not None:
        cohort = assign_subjects(cohort, sizes, seed)
    folder = path if path.is_dir() else path.parent
    out = out or folder / _default_name(fraction, seed, by, sizes)
    if out.resolve() == (folder / COHORT_FILE).resolve() or out.is_dir():
        mend = "Give --out another name."
        raise InputError(out, f"the cohort's own {COHORT_FILE} or a folder", "a new file", mend)
    return _write(out, split_cohort(cohort, fraction, seed, by, sizes, depth_axis))


def write_folds(
    path: Path, count: int = 3, seed: int = 0, validation: float = 0.1, out: Path | None = None
) -> list[tuple[Path, dict[str, Any]]]:
    """Write a split file for each fold of a cross-validation by subject: ``fold_1.json`` and so on.

    Args:
        path: cohort folder, or a JSON file of its layout; its sections do not matter.
        count: number of folds.
        seed: chooses subjects.
        validation: share of a fold's training subjects who validate; 0 for none.
        out: folder of the files; by default the cohort's.

    Returns:
        For each fold the file, and its content with absolute paths.

    Raises:
        InputError: the cohort is unsound or already reduced, or see `grn_monai.data.folds.fold_cohort`.
    """
    cohort, file = load_cohort(path)
    if split_fraction(cohort) < 1:
        mend = f"Split {COHORT_FILE} instead."
        raise InputError(file, "a split file that is already reduced", "a file with all labels", mend)
    folder = out or (path if path.is_dir() else path.parent)
    made = [fold_cohort(cohort, fold, count, seed, validation) for fold in range(1, count + 1)]  # all, or none
    return [_write(folder / f"fold_{fold}.json", result) for fold, result in enumerate(made, 1)]


def _write(out: Path, result: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    make_folder(out.parent)
    write_json(out, {**result, **{s: relative_items(result[s], out.parent) for s in SECTIONS}})
    return out, read_cohort(out)
