"""The layouts of public data sets, and of slice pairs."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_prep.convert.discover import PICTURES, kind_of, stem_of, walk
from data_prep.convert.source import Source
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES

__all__ = ["LAYOUTS", "Layout", "detect_layout", "slice_pairs"]

_SECTIONS = {"train": "training", "training": "training", "val": "validation", "valid": "validation", "test": "test"}


@dataclass(frozen=True)
class Layout:
    """A data set whose folders tell what is what.

    Attributes:
        title: name and source.
        labels: label names of the cohort.
        find: lists the scans below a folder.
        fits: whether a folder looks like it.
        note: what a user has to know.
    """

    title: str
    labels: dict[int, str]
    find: Callable[[Path], Iterator[Source]]
    fits: Callable[[Path], bool]
    note: str = ""


_LEG = {100: "soleus", 150: "gastrocnemius medialis", 200: "gastrocnemius lateralis"}
_TOTAL = ("autochthon_left", "autochthon_right", "iliopsoas_left", "iliopsoas_right")


def _leg_3d_us(folder: Path) -> Iterator[Source]:
    """``{train,val,test}/SUBJECT/x*.mha`` with ``masksX*.mha`` beside: what follows the x is the same."""
    values = {str(value): i for i, value in enumerate(_LEG, start=1)}
    for image in sorted(folder.glob("*/*/[xX]*.mha")):
        section = _SECTIONS.get(image.parent.parent.name.lower())
        if section is None:
            continue
        end = image.name[1:].lower()
        masks = [p for p in image.parent.glob("*.mha") if p.name.lower() == f"masksx{end}"]
        yield Source(
            "volume",
            (image,),
            labels=tuple(masks),
            subject=image.parent.name,
            scan=f"{image.parent.name}_{stem_of(image)}",
            section=section if masks else "unlabeled",
            label_values=values,
        )


def _luminous(folder: Path) -> Iterator[Source]:
    """``B-mode/N_*.tif`` with ``Masks/N_*.tif``, paired by the number at the beginning."""
    (masks,) = (p for p in folder.iterdir() if p.name.lower() == "masks")
    (pictures,) = (p for p in folder.iterdir() if p.name.lower().replace("-", "") == "bmode")
    by_number = {_first_number(p): p for p in sorted(masks.iterdir()) if p.suffix.lower() in PICTURES}
    for picture in sorted(p for p in pictures.iterdir() if p.suffix.lower() in PICTURES):
        number = _first_number(picture)
        mask = by_number.get(number)
        yield Source(
            "slices",
            (picture,),
            labels=(mask,) if mask else (),
            subject=f"image-{number}",
            scan=f"image-{number}",
            label_values={"255": 1, "1": 1},
        )


def _first_number(path: Path) -> str:
    match = re.search(r"\d+", path.stem)
    return match[0].lstrip("0") or "0" if match else path.stem


def _totalsegmentator(folder: Path) -> Iterator[Source]:
    """``s0001/ct.nii.gz`` or ``mri.nii.gz`` with ``segmentations/*.nii.gz``; the section from ``meta.csv``."""
    sections = {}
    meta = folder / "meta.csv"
    if meta.is_file():
        text = meta.read_text(encoding="utf-8-sig")
        rows = csv.DictReader(text.splitlines(), delimiter=max(";,", key=text.split("\n", 1)[0].count))
        sections = {row.get("image_id", ""): _SECTIONS.get(row.get("split") or "") for row in rows}
    for image in sorted([*folder.glob("s*/ct.nii.gz"), *folder.glob("s*/mri.nii.gz")]):
        name = image.parent.name
        parts = [image.parent / "segmentations" / f"{part}.nii.gz" for part in _TOTAL]
        present = tuple(part for part in parts if part.is_file())
        yield Source(
            "volume",
            (image,),
            labels=present,
            subject=name,
            scan=f"{name}_{image.name[:2]}",
            section=sections.get(name) if present else "unlabeled",
            modality="CT" if image.name.startswith("ct") else "MR",
            label_values={f"{part}.nii.gz": i for i, part in enumerate(_TOTAL, start=1)},
        )


def _spider(folder: Path) -> Iterator[Source]:
    """``images/N_t2.mha``; the masks there are of vertebrae, discs and canal, none of a muscle."""
    for image in sorted((folder / "images").glob("*.mha")):
        yield Source(
            "volume", (image,), subject=stem_of(image).split("_")[0], scan=stem_of(image), modality="MR",
            section="unlabeled",
        )  # fmt: skip


def _has(folder: Path, *patterns: str) -> bool:
    return all(any(folder.glob(pattern)) for pattern in patterns)


LAYOUTS: dict[str, Layout] = {
    "leg-3d-us": Layout(
        "LEG-3D-US, lower-leg muscles in freehand 3D ultrasound (TUM, Nantes)",
        {0: "background", **dict(enumerate(_LEG.values(), start=1))},
        _leg_3d_us,
        lambda folder: _has(folder, "*/*/[xX]*.mha", "*/*/[mM]asks*.mha"),
    ),
    "luminous": Layout(
        "LUMINOUS, multifidus in transverse B-mode (Concordia University)",
        {0: "background", 1: "multifidus"},
        _luminous,
        lambda folder: _has(folder, "[mM]asks", "[bB][-mM]*"),
        "The files do not tell which pictures are of one person: each counts as a subject, so that a split by "
        "subject may have pictures of one person on both sides. A --table with `image` and `subject` mends that.",
    ),
    "totalsegmentator": Layout(
        "TotalSegmentator CT or MR: autochthon and iliopsoas, left and right",
        {0: "background", **dict(enumerate((part.replace("_", " ") for part in _TOTAL), start=1))},
        _totalsegmentator,
        lambda folder: _has(folder, "s[0-9]*/ct.nii.gz") or _has(folder, "s[0-9]*/mri.nii.gz"),
    ),
    "spider": Layout(
        "SPIDER, lumbar MR (Radboud): images only, its masks hold no muscle",
        LAYER_NAMES,
        _spider,
        lambda folder: _has(folder, "images/*_t[12]*.mha"),
    ),
}


def detect_layout(folder: Path) -> str | None:
    """The name of the layout that a folder has, or None."""
    return next((name for name, layout in LAYOUTS.items() if layout.fits(folder)), None)


_SLICE = re.compile(
    r"(?P<scan>.*?)[-_ ]*(?P<plane>sagittal|coronal|transverse|sag|cor|trans)?[-_ ]*(?P<index>\d+)$", re.I
)
_PLANES = {"sag": "sagittal", "cor": "transverse", "tra": "transverse"}  # the GRN papers' "coronal" is transverse


def slice_pairs(rows: list[dict[str, str]], base: Path, where: Path) -> Iterator[tuple[dict[str, str], Source]]:
    """Rows of slices (``image_path,mask_path``) to volumes, one for each scan.

    The scan is the column ``scan`` or, without it, the file name less the number at its end (and less a plane's name
    before that); the order is the column ``index``, or that number.

    Args:
        rows: of a table.
        base: folder that the paths are relative to.
        where: the table, for messages.

    Yields:
        The first row of each scan, and its source; with a `problem` where slices are missing or twice there.
    """
    scans: dict[tuple[str, str], list[tuple[int, dict[str, str]]]] = defaultdict(list)
    for row in rows:
        match = _SLICE.match(Path(row["image"]).stem)
        index = row.get("index") or (match["index"] if match else None)
        if index is None or not index.isdigit():
            mend = "End the file names in a number, or add a column `index`."
            raise InputError(f"{where}, line {row['row']}", f"no slice number in {row['image']}", "one", mend)
        plane = row.get("plane") or (_PLANES[match["plane"][:3].lower()] if match and match["plane"] else "")
        told = row.get("scan") or ((match["scan"] if match else "") or Path(row["image"]).parent.name)
        folder = "" if "scan" in row else Path(row["image"]).parent.as_posix()
        scans[("|".join((row.get("subject", ""), folder, told)), plane)].append((int(index), row))
    for (name, plane), slices in scans.items():
        yield _stack(name.split("|")[-1], plane, sorted(slices, key=lambda s: s[0]), base)


def _stack(
    scan: str, plane: str, slices: list[tuple[int, dict[str, str]]], base: Path
) -> tuple[dict[str, str], Source]:
    first = slices[0][1]
    numbers = [number for number, _ in slices]
    masks = [row["label"] for _, row in slices if "label" in row]
    problem = None
    steps = {b - a for a, b in pairwise(numbers)}
    if 0 in steps:
        twice = next(a for a, b in pairwise(numbers) if a == b)
        problem = f"slice {twice} is there twice"
    elif len(steps) > 1:
        missing = sorted(set(range(numbers[0], numbers[-1] + 1, min(steps))) - set(numbers))
        problem = f"{len(missing)} of {len(missing) + len(numbers)} slices are missing, the first is {missing[0]}"
    elif masks and len(masks) < len(slices):
        problem = f"{len(slices) - len(masks)} of {len(slices)} slices have no mask"
    row: dict[str, Any] = {**first}
    row.pop("scan", None)
    if plane:
        row["plane"] = plane
    name = scan if not plane else f"{scan}_{plane}".lstrip("_")
    source = Source(
        "slices",
        tuple(base / r["image"] for _, r in slices),
        labels=tuple(base / m for m in masks),
        subject=scan or None,
        scan=name,
        problem=problem,
    )
    return row, source


def picture_rows(folder: Path) -> list[dict[str, str]]:
    """Rows as a table would give them, for a folder of pictures with masks of the same name (NIfTI or pictures).

    The layout of the released GRN scripts without its CSV: a picture and a mask of one name, in one folder or in
    ``images`` and ``masks``.
    """
    pictures, masks = [], {}
    for path in walk(folder):
        kind = kind_of(path)
        in_masks = any(part.lower() in ("masks", "mask", "labels", "label") for part in path.relative_to(folder).parts)
        if kind == "slices" and not in_masks:
            pictures.append(path)
        elif kind in ("slices", "volume"):
            masks[stem_of(path)] = path
    rows = []
    for path in pictures:
        row = {"row": "?", "image": path.relative_to(folder).as_posix()}
        if path.stem in masks:
            row["label"] = masks[path.stem].relative_to(folder).as_posix()
        rows.append(row)
    return rows
