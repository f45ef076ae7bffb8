"""A folder, or one file, to the scans in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.convert.dicom_files import DicomHeader, dicom_headers, dicom_sources, is_still
from data_prep.convert.kinds import (
    KIND_BY_ENDING,
    RAW,
    is_label,
    kind_of,
    left_out_as,
    outer_name,
    place_of,
    stem_of,
    subject_of,
    walk,
)
from data_prep.convert.pairing import paired
from data_prep.convert.slice_pairs import picture_rows, slice_pairs
from data_prep.convert.source import ReadOptions, Source
from grn_monai.errors import InputError

__all__ = ["Found", "discover", "kind_of", "single_source"]

_NO_IMAGE = "DICOM that is no ultrasound, CT or MR image"


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        sources: the scans.
        passed_over: number of files that are no scan by ending, as `left_out_as` tells it.
        orphans: number of labels that belong to no scan.
    """

    sources: list[Source]
    passed_over: dict[str, int]
    orphans: int = 0


def single_source(path: Path) -> Source:
    """The source of a file or folder that a table or a command line names.

    Raises:
        InputError: there is none, it is of no known kind, or a folder is no single DICOM series or stack of slices.
    """
    if path.is_dir():
        found = [*discover(path, stack=True).sources] or _stacks(path)
        if len(found) == 1:
            return found[0]
        held = f"a folder with {len(found)} scans" if found else "a folder without a scan"
        raise InputError(path, held, "one scan", "Name the file, or the folder of one series or one stack of slices.")
    if not path.exists():
        raise InputError(path, "no such file or folder", "a scan", "Check the path.")
    kind = kind_of(path)
    if kind is None and path.suffix.lower() in RAW and left_out_as(path):
        kind = "raw"  # its reader tells what has to stand in the sidecar
    if kind is None:
        endings = ", ".join(KIND_BY_ENDING)
        raise InputError(path, "a file of no known kind", f"one of {endings}, or DICOM", "Convert it first.")
    if kind == "dicom":
        sources = list(dicom_sources(dicom_headers([path]), stack=True))
        if not sources:
            found_text = "a DICOM object that is no ultrasound, CT or MR image"
            raise InputError(path, found_text, "an image", "Name an image file.")
        return sources[0]
    return Source(kind, (path,), scan=stem_of(path))


def _stacks(folder: Path) -> list[Source]:
    """The stacks of slices that a folder of pictures holds."""
    rows, _ = picture_rows(folder)
    return [
        replace(source, subject=None, scan=outer_name(folder), options=ReadOptions(plane=row.get("plane")))
        for row, source in slice_pairs(rows, folder, folder)
    ]


def discover(folder: Path, stack: bool = False) -> Found:
    """The scans below a folder, each with its label where one lies beside it.

    A label is a volume in a folder ``labels``, ``masks`` or the like, or one whose name ends in ``_seg``, ``_label``,
    ``_mask`` or the like; it belongs to the scan of the same name. Pictures (PNG, JPEG) are left to a table or a
    layout, since nothing tells which of them make a volume.

    Args:
        folder: to look in.
        stack: whether single DICOM ultrasound pictures of a series are the frames of a sweep. They are too where they
            lie in `folder` itself, and nothing else is there.
    """
    files: dict[Path, str] = {}
    passed_over: Counter[str] = Counter()
    for path in walk(folder):
        kind = kind_of(path)
        if kind is not None and kind != "slices":
            files[path] = kind
        elif (left_out := left_out_as(path)) is not None:
            passed_over[left_out] += 1
    headers = list(dicom_headers(path for path, kind in files.items() if kind == "dicom"))
    named = {path: kind for path, kind in files.items() if kind != "dicom"}
    scans = list(dicom_sources(headers, stack or (not named and _is_one_sweep(headers, folder))))
    if others := len(headers) - sum(len(source.files) for source in scans):
        passed_over[_NO_IMAGE] = others
    labels = [path for path in named if is_label(path, folder)]
    sources = [*_file_sources(named, labels, folder), *scans]
    pairs, orphans = paired([source.files[0] for source in sources if len(source.files) == 1], labels, folder)
    sources = [_labelled(source, pairs.get(source.files[0], [])) for source in sources]
    return Found(sorted(sources, key=lambda s: s.files[0]), dict(passed_over), len(orphans))


def _is_one_sweep(headers: Sequence[DicomHeader], folder: Path) -> bool:
    """Whether all pictures are single ultrasound frames of one series that lie in the folder itself."""
    images = [header for header in headers if header.kind is not None]
    alone = {(header.series, header.path.parent) for header in images}
    return len(alone) == 1 and all(is_still(header) and header.path.parent == folder for header in images)


def _file_sources(files: dict[Path, str], labels: Sequence[Path], base: Path) -> Iterator[Source]:
    marked = set(labels)
    for path, kind in files.items():
        if path not in marked:
            scan = "_".join((*place_of(path, base), stem_of(path)))
            yield Source(kind, (path,), subject=subject_of(path, base) or stem_of(path), scan=scan)


def _labelled(source: Source, labels: Sequence[Path]) -> Source:
    if len(labels) > 1:
        problem = f"{len(labels)} labels ({', '.join(path.name for path in labels)})"
        return replace(source, labels=tuple(labels), problem=source.problem or problem)
    return replace(source, labels=tuple(labels))


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
        below = [path for path in (source.files[0], source.files[0].resolve()) if path.is_relative_to(base)]
        if not below:
            yield replace(source, problem=source.problem or "a path outside SRC, which --pattern knows nothing of")
            continue
        match = expression.search(below[0].relative_to(base).as_posix())
        if match is None:
            yield replace(source, problem=source.problem or f"its path does not match --pattern {pattern!r}")
            continue
        told = {k: v for k, v in match.groupdict().items() if v}
        keys = {k: v for k, v in told.items() if k in groups[2:]}
        yield replace(
            source,
            subject=told.get("subject", source.subject),
            scan=told.get("scan", source.scan),
            keys={**source.keys, **keys},
        )
