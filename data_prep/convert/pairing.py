"""Which label belongs to which image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from data_prep.convert.kinds import bare_stem, place_of, stem_of

__all__ = ["paired"]


def paired(images: Iterable[Path], labels: Iterable[Path], base: Path) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Labels to the images of their name in their place: the folders less those such as ``images`` and ``masks``.

    Upper and lower case count, unless that leaves a label without image and there is only one when they do not.

    Returns:
        The labels of each image that has any, and those that belong to none.
    """
    exact: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    folded: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for image in images:
        key = (*place_of(image, base), stem_of(image))
        exact[key].append(image)
        folded[tuple(part.casefold() for part in key)].append(image)
    pairs: dict[Path, list[Path]] = defaultdict(list)
    orphans = []
    for label in labels:
        key = (*place_of(label, base), bare_stem(label))
        alike = folded.get(tuple(part.casefold() for part in key), [])
        found = exact.get(key) or (alike if len(alike) == 1 else [])
        for image in found:
            pairs[image].append(label)
        if not found:
            orphans.append(label)
    return dict(pairs), orphans
