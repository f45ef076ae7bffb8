"""Choose which training scans keep their label, by subject and in a seeded, nested order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from grn_monai.data.checks import cohort_modality
from grn_monai.data.volume import read_header
from grn_monai.errors import InputError
from grn_monai.transforms.depth import depth_order

__all__ = ["image_counts", "select_labelled", "slice_counts"]

_AXIAL = ("CT", "MR")


def slice_counts(items: Sequence[dict[str, Any]], depth_axis: int | str = 2) -> list[float]:
    """Count the slices of both planes that contain depth, from the headers: the weights for `select_labelled`.

    Args:
        items: with the file name ``image``.
        depth_axis: see `grn_monai.transforms.DepthLast`.

    Returns:
        X + Y of each volume in the scan frame.

    Raises:
        InputError: a file that is missing or no readable volume.
    """
    counts = []
    for item in items:
        header = read_header(item["image"])
        (first, second, _), _ = depth_order(depth_axis, affine=header.affine)
        counts.append(float(header.shape[first] + header.shape[second]))
    return counts


def image_counts(cohort: Mapping[str, Any], items: Sequence[dict[str, Any]], depth_axis: int | str = 2) -> list[float]:
    """Count the images that scans of a cohort are cut into: the weights for `select_labelled`.

    Args:
        cohort: content of a cohort file. Where its first ``modality`` is CT, MR or MRI these are axial slices, else
            those of both planes that contain depth.
        items: scans of it.
        depth_axis: see `slice_counts`.

    Raises:
        InputError: a file that is missing or no readable volume.
    """
    if cohort_modality(cohort) not in _AXIAL:
        return slice_counts(items, depth_axis)
    headers = [read_header(item["image"]) for item in items]
    return [float(h.shape[depth_order("S", affine=h.affine)[0][2]]) for h in headers]


def select_labelled(
    items: Sequence[dict[str, Any]],
    fraction: float,
    seed: int = 0,
    by: str = "subject",
    weights: Sequence[float] | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
    """Choose which training items keep their label.

    Whole groups (subjects, or single scans) are added in a seeded order until their share of the images is
    nearest to the target, and at least one is taken; of two equally near shares the smaller wins. The order
    depends on the seed and the group's name alone, not on the order of the items or on which others there
    are, so what is chosen at 5 % is contained in what is chosen at 10 % with the same seed.

    Source: GRN labels 5–50 % "at the patient level"; with 16 patients the shares can only be approached.

    Args:
        items: training items. Without any ``subject`` key each scan counts as its own subject.
        fraction: target share of the images, in (0, 1].
        seed: chooses the order.
        by: ``"subject"`` keeps the scans of a subject together; ``"image"`` draws single scans, whoever they
            belong to.
        weights: images (slices) of each item; equal when not given.

    Returns:
        The labelled items, the others without their ``label`` key, and the share of the images reached, in
        (0, 1]. Both lists keep the order of `items`.

    Raises:
        InputError: no items, a fraction outside (0, 1], an unknown `by`, weights that do not fit, or some
            items with and some without ``subject``.
    """
    if not items:
        raise InputError("training", "no items", "at least one", "Name a cohort with training items.")
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        mend = "Write 5 % as 0.05, and all labels as 1."
        raise InputError("fraction", repr(fraction), "a number above 0 and up to 1", mend)
    if by not in ("subject", "image"):
        mend = "Use 'subject' to keep a subject's scans together."
        raise InputError("by", repr(by), "'subject' or 'image'", mend)
    sizes = [1.0] * len(items) if weights is None else [float(weight) for weight in weights]
    if len(sizes) != len(items) or not all(size > 0 for size in sizes):
        found = f"{len(sizes)} weights, the least {min(sizes, default=0):g}, for {len(items)} items"
        raise InputError("weights", found, "one above 0 per item", "Give the slice counts.")

    groups = _groups(items, by)
    images: dict[str, float] = {}
    for group, size in zip(groups, sizes, strict=True):
        images[group] = images.get(group, 0.0) + size
    # A hash, not a generator: the order of two groups does not change when a third one joins.
    order = sorted(images, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    total, reached, best = sum(sizes), 0.0, float("inf")
    chosen: set[str] = set()
    for name in order:
        share = reached + images[name] / total
        # The tolerance keeps a tie a tie despite rounding.
        if abs(share - fraction) >= best - 1e-9:
            break
        reached, best = share, abs(share - fraction)
        chosen.add(name)
    labelled, rest = [], []
    for item, group in zip(items, groups, strict=True):
        if group in chosen:
            labelled.append(dict(item))
        else:
            rest.append({key: value for key, value in item.items() if key != "label"})
    return labelled, rest, min(reached, 1.0)


def _groups(items: Sequence[dict[str, Any]], by: str) -> list[str]:
    """Name the group of each item: its subject, or itself (a scan's name need be its own within the subject only)."""
    known = sum("subject" in item for item in items)
    if by == "subject" and 0 < known < len(items):
        raise InputError(
            "training",
            f"`subject` in {known} of {len(items)} items",
            "a `subject` in every item, or in none (then each scan counts as a subject)",
            "Add the missing `subject` keys.",
        )
    if by == "subject" and known:
        return [str(item["subject"]) for item in items]
    scans = [str(item.get("scan", item.get("image"))) for item in items]
    return [f"{item['subject']}/{scan}" if "subject" in item else scan for item, scan in zip(items, scans, strict=True)]
