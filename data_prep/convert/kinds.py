"""What a file is by its name and first bytes, and what its path tells of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.convert.dicom_files import is_dicom
from grn_monai.data.readers import RawVolumeReader, SliceStackReader
from grn_monai.data.readers.raw import sidecars
from grn_monai.data.volume import EXTENSIONS, scan_name

__all__ = ["PICTURES", "bare_stem", "is_label", "kind_of", "left_out_as", "place_of", "stem_of", "subject_of", "walk"]

PICTURES: tuple[str, ...] = tuple(ending for ending in SliceStackReader.suffixes if ending not in EXTENSIONS)
RAW: tuple[str, ...] = RawVolumeReader.suffixes
KIND_BY_ENDING = {
    **dict.fromkeys(EXTENSIONS, "volume"),
    ".mat": "verasonics", ".uff": "uff",
    **dict.fromkeys(RAW, "raw"),
    ".dcm": "dicom", ".dicom": "dicom", ".ima": "dicom",
    **dict.fromkeys(PICTURES, "slices"),
}  # fmt: skip
_LABEL_FOLDERS = {"labels", "label", "masks", "mask", "segmentations", "labelstr", "labels_tr"}
_IMAGE_FOLDERS = {"images", "image", "imagestr", "images_tr", "volumes", "scans"}
_LABEL_ENDINGS = ("_seg", "_label", "_labels", "_mask", "-label", "-labels", "_gt", ".seg", "_segmentation")
_HEADERS = (".mhd", ".hdr")  # their voxels lie in a file of the same stem
# What may be told of a file that is passed over. Any other "ending" may be a piece of a name.
_COMMON_ENDINGS = {
    ".7z", ".avi", ".bak", ".bat", ".c", ".cfg", ".cpp", ".csv", ".db", ".dll", ".doc", ".docx", ".exe", ".fig",
    ".gif", ".gz", ".h5", ".hdf5", ".hdr", ".htm", ".html", ".inf", ".ini", ".ipynb", ".jar", ".js", ".json",
    ".lnk", ".log", ".m", ".md", ".mov", ".mp3", ".mp4", ".mpg", ".npy", ".npz", ".obj", ".pdf", ".pkl", ".ply",
    ".ppt", ".pptx", ".pt", ".pth", ".py", ".rar", ".rtf", ".sh", ".stl", ".svg", ".tar", ".tmp", ".tsv",
    ".txt", ".vtk", ".wav", ".wmv", ".xls", ".xlsx", ".xml", ".yaml", ".yml", ".zip", *PICTURES, *EXTENSIONS,
}  # fmt: skip


def stem_of(path: Path) -> str:
    """The file name without its ending, where that is one of a known kind; ``US.1.2.840`` has none."""
    name = scan_name(path)
    return Path(name).stem if name == path.name and path.suffix.lower() in KIND_BY_ENDING else name


def has_sidecar(path: Path) -> bool:
    """Whether the JSON file of a raw volume lies beside it."""
    return any(sidecar.is_file() for sidecar in sidecars(path))


def kind_of(path: Path) -> str | None:
    """The kind of a single file; None for what is no scan.

    It goes by the ending; raw data are a scan only with their JSON sidecar, and a file of any other ending, or none,
    is DICOM if it begins as one does.
    """
    name = path.name.lower()
    kind = next((kind for ending, kind in KIND_BY_ENDING.items() if name.endswith(ending)), None)
    if kind is not None and (kind != "raw" or (has_sidecar(path) and not _has_header(path))):
        return kind
    return "dicom" if is_dicom(path) else None


def _has_header(path: Path) -> bool:
    return any(path.with_suffix(header).is_file() for header in _HEADERS)


def left_out_as(path: Path) -> str | None:
    """What a file of no kind is counted as; None for one that belongs to a scan.

    Nothing of the name but an ending of a fixed list: ``scan.Doe_Jane`` would tell too much.
    """
    ending = path.suffix.lower()
    if ending in RAW:
        return None if _has_header(path) else "raw data without a JSON sidecar"
    stem = path.with_suffix("")
    if ending == ".json" and (stem.is_file() or any(path.with_suffix(raw).is_file() for raw in RAW)):
        return None
    if not ending:
        return "(none)"
    return ending if ending in _COMMON_ENDINGS else "other"


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder in order, without hidden ones."""
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f[0] != ".")
        yield from (Path(base, name) for name in sorted(files) if name[0] != ".")


def _folders(path: Path, base: Path) -> tuple[str, ...]:
    """The folders between the base and a file; of one elsewhere, only the next that is more than "images"."""
    if path.is_relative_to(base):
        return path.relative_to(base).parent.parts
    return (outer_name(path.parent),)


def outer_name(folder: Path) -> str:
    """The name of a folder or, where it is only "images" or "labels", that of the next one around it."""
    names = (part for part in reversed(folder.parts) if part.lower() not in _LABEL_FOLDERS | _IMAGE_FOLDERS)
    return next(names, "scan")


def is_label(path: Path, base: Path) -> bool:
    """Whether the name of a file, or of a folder between it and the base, is that of a label."""
    folders = {part.lower() for part in _folders(path, base)}
    return bool(folders & _LABEL_FOLDERS) or stem_of(path).lower().endswith(_LABEL_ENDINGS)


def bare_stem(path: Path) -> str:
    """The stem without what marks a label."""
    stem = stem_of(path)
    ending = next((e for e in _LABEL_ENDINGS if stem.lower().endswith(e)), "")
    return stem[: len(stem) - len(ending)] if ending else stem


def place_of(path: Path, base: Path) -> tuple[str, ...]:
    """The folders of a file below the base, less those that only tell images from labels."""
    return tuple(part for part in _folders(path, base) if part.lower() not in _LABEL_FOLDERS | _IMAGE_FOLDERS)


def subject_of(path: Path, base: Path) -> str | None:
    """Whose scan a file is: BIDS's ``sub-…``, else its folders below the base; None: neither tells."""
    for part in (*reversed(_folders(path, base)), stem_of(path)):
        if match := re.match(r"(sub-[A-Za-z0-9]+)", part):
            return match[1]
    return "/".join(place_of(path, base)) or None
