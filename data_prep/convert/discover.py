"""A folder, or one file, to the scans in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.convert.dicom_files import dicom_sources, is_dicom
from data_prep.convert.source import Source
from grn_monai.data.volume import EXTENSIONS, scan_name
from grn_monai.errors import InputError

__all__ = ["Found", "discover", "kind_of", "single_source", "stem_of"]

_KIND_BY_ENDING = {
    **dict.fromkeys(EXTENSIONS, "volume"),
    ".mat": "verasonics", ".uff": "uff",
    ".raw": "raw", ".bin": "raw", ".img": "raw", ".dat": "raw",
    ".dcm": "dicom", ".dicom": "dicom", ".ima": "dicom",
}  # fmt: skip
PICTURES: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_LABEL_FOLDERS = {"labels", "label", "masks", "mask", "segmentations", "labelstr", "labels_tr"}
_IMAGE_FOLDERS = {"images", "image", "imagestr", "images_tr", "volumes", "scans"}
_LABEL_ENDINGS = ("_seg", "_label", "_labels", "_mask", "-label", "-labels", "_gt", ".seg", "_segmentation")
_NO_RAW = (".mhd", ".hdr")  # headers whose voxels lie in a file of the same stem


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        sources: the scans.
        passed_over: number of files by ending that are no scan.
    """

    sources: list[Source]
    passed_over: dict[str, int]


def stem_of(path: Path) -> str:
    """The file name without its ending, as `scan_name` for volumes."""
    name = scan_name(path)
    return Path(name).stem if name == path.name else name


def kind_of(path: Path) -> str | None:
    """The kind of a single file by its name, ``"dicom"`` also by its first bytes; None for what is no scan."""
    name = path.name.lower()
    for ending, kind in _KIND_BY_ENDING.items():
        if name.endswith(ending):
            if kind == "raw" and any(path.with_suffix(header).is_file() for header in _NO_RAW):
                return None
            return kind
    if name.endswith(PICTURES):
        return "slices"
    return "dicom" if "." not in name[1:] and is_dicom(path) else None


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder in order, without hidden ones."""
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f[0] != ".")
        yield from (Path(base, name) for name in sorted(files) if name[0] != ".")


def single_source(path: Path) -> Source:
    """The source of a file or folder that a table or a command line names.

    Raises:
        InputError: there is none, it is of no known kind, or a folder is no single DICOM series or stack of slices.
    """
    if path.is_dir():
        found = [*discover(path).sources]
        pictures = sorted(p for p in walk(path) if kind_of(p) == "slices")
        if len(found) == 1:
            return found[0]
        if not found and pictures:
            return Source("slices", tuple(pictures), scan=path.name)
        held = f"a folder with {len(found)} scans" if found else "a folder without a scan"
        raise InputError(path, held, "one scan", "Name the file, or the folder of one series or one stack of slices.")
    if not path.exists():
        raise InputError(path, "no such file or folder", "a scan", "Check the path.")
    kind = kind_of(path)
    if kind is None:
        endings = ", ".join((*_KIND_BY_ENDING, *PICTURES))
        raise InputError(path, "a file of no known kind", f"one of {endings}, or DICOM", "Convert it first.")
    if kind == "dicom":
        sources = list(dicom_sources([path]))
        if not sources:
            found_text = "a DICOM object that is no ultrasound, CT or MR image"
            raise InputError(path, found_text, "an image", "Name an image file.")
        return sources[0]
    return Source(kind, (path,), scan=stem_of(path))


def _is_label(path: Path, base: Path) -> bool:
    folders = {part.lower() for part in path.relative_to(base).parent.parts}
    return bool(folders & _LABEL_FOLDERS) or stem_of(path).lower().endswith(_LABEL_ENDINGS)


def _bare(path: Path) -> str:
    """The stem without what marks a label."""
    stem = stem_of(path)
    ending = next((e for e in _LABEL_ENDINGS if stem.lower().endswith(e)), "")
    return stem[: len(stem) - len(ending)] if ending else stem


def _place(path: Path, base: Path) -> tuple[str, ...]:
    """The folders of a file less those that only tell images from labels."""
    parts = path.relative_to(base).parent.parts
    return tuple(part for part in parts if part.lower() not in _LABEL_FOLDERS | _IMAGE_FOLDERS)


def _subject(path: Path, base: Path) -> str:
    """Whose scan a file is: BIDS's ``sub-…``, else its folder below the source, else the file itself."""
    relative = path.relative_to(base)
    for part in (*reversed(relative.parent.parts), stem_of(path)):
        if match := re.match(r"(sub-[A-Za-z0-9]+)", part):
            return match[1]
    place = _place(path, base)
    return "/".join(place) if place else stem_of(path)


def discover(folder: Path) -> Found:
    """The scans below a folder, each with its label where one lies beside it.

    A label is a volume in a folder ``labels``, ``masks`` or the like, or one whose name ends in ``_seg``, ``_label``,
    ``_mask`` or the like; it belongs to the scan of the same name. Pictures (PNG, JPEG) are left to a table or a
    layout, since nothing tells which of them make a volume.
    """
    files: dict[str, list[Path]] = {}
    passed_over: dict[str, int] = {}
    for path in walk(folder):
        kind = kind_of(path)
        if kind is None or kind == "slices":
            ending = path.suffix.lower() or "(none)"
            if not (ending == ".json" and _has_raw(path)):
                passed_over[ending] = passed_over.get(ending, 0) + 1
        else:
            files.setdefault(kind, []).append(path)
    dicom = files.pop("dicom", [])
    scans = list(dicom_sources(dicom))
    if others := len(dicom) - sum(len(source.files) for source in scans):
        passed_over["DICOM that is no ultrasound, CT or MR image"] = others
    sources = [*_file_sources(files, folder), *scans]
    return Found(sorted(sources, key=lambda s: s.files[0]), passed_over)


def _has_raw(sidecar: Path) -> bool:
    stem = sidecar.with_suffix("")
    return stem.is_file() or any(sidecar.with_suffix(e).is_file() for e, k in _KIND_BY_ENDING.items() if k == "raw")


def _file_sources(files: dict[str, list[Path]], base: Path) -> Iterator[Source]:
    labels: dict[tuple[tuple[str, ...], str], Path] = {}
    images: list[tuple[str, Path]] = []
    for kind, paths in files.items():
        for path in paths:
            if _is_label(path, base):
                labels[(_place(path, base), _bare(path))] = path
            else:
                images.append((kind, path))
    for kind, path in images:
        label = labels.get((_place(path, base), stem_of(path)))
        yield Source(
            kind,
            (path,),
            labels=(label,) if label else (),
            subject=_subject(path, base),
            scan="_".join((*_place(path, base), stem_of(path))),
        )


def apply_pattern(sources: Sequence[Source], pattern: str, base: Path) -> Iterable[Source]:
    """Take subject, scan, side, site, status and repeat from the paths by a regular expression with named groups.

    Args:
        sources: as `discover` found them.
        pattern: searched for in the path below `base`, with ``/`` between folders.
        base: the source folder.

    Raises:
        InputError: the pattern is no valid expression or names other groups.
    """
    groups = ("subject", "scan", "side", "site", "status", "repeat")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError("--pattern", f"{pattern!r} ({error})", "a regular expression", "Correct it.") from error
    if not expression.groupindex or set(expression.groupindex) - set(groups):
        expected = f"named groups of {', '.join(groups)}, such as (?P<subject>[^/]+)/(?P<side>left|right)"
        raise InputError("--pattern", repr(pattern), expected, "Name the groups.")
    for source in sources:
        match = expression.search(source.files[0].relative_to(base).as_posix())
        if match is None:
            yield replace(source, problem=f"its path does not match --pattern {pattern!r}")
            continue
        told = {k: v for k, v in match.groupdict().items() if v is not None}
        keys = {k: v for k, v in told.items() if k in groups[2:]}
        yield replace(
            source,
            subject=told.get("subject", source.subject),
            scan=told.get("scan", source.scan),
            keys={**source.keys, **keys},
        )
