"""The layouts of public data sets."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.convert.kinds import PICTURES, stem_of
from data_prep.convert.source import Source
from grn_monai.errors import InputError
from grn_monai.labels import LAYER_NAMES

__all__ = ["LAYOUTS", "Layout", "detect_layout"]

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
    folders = _luminous_folders(folder)
    if folders is None:
        mend = "Name the folder of the set itself, or another --layout."
        raise InputError(folder, "no such two folders", "one folder B-mode and one folder Masks", mend)
    pictures, masks = folders
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


def _luminous_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of pictures and of masks, where there is one of each."""
    inside = [p for p in folder.iterdir() if p.is_dir()]
    pictures = [p for p in inside if re.fullmatch("b[-_ ]?mode", p.name.lower())]
    masks = [p for p in inside if p.name.lower() == "masks"]
    return (pictures[0], masks[0]) if len(pictures) == len(masks) == 1 else None


def _first_number(path: Path) -> str:
    match = re.search(r"\d+", path.stem)
    return match[0].lstrip("0") or "0" if match else path.stem


def _totalsegmentator(folder: Path) -> Iterator[Source]:
    """``s0001/ct.nii.gz`` or ``mri.nii.gz`` with ``segmentations/*.nii.gz``; the section from ``meta.csv``."""
    sections = {}
    meta = folder / "meta.csv"
    if meta.is_file():
        text = meta.read_text(encoding="utf-8-sig", errors="replace")
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


def _numbered_spines(images: Path) -> bool:
    return any(re.match(r"[0-9]+_t[12]", path.name) for path in images.glob("*.mha"))


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
        lambda folder: _luminous_folders(folder) is not None,
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
        lambda folder: (folder / "masks").is_dir() and _numbered_spines(folder / "images"),
    ),
}


def detect_layout(folder: Path) -> str | None:
    """The name of the layout that a folder has, or None."""
    return next((name for name, layout in LAYOUTS.items() if layout.fits(folder)), None)
