"""From a request to the list of scans to convert, before any voxel is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.convert.discover import apply_pattern, discover, single_source
from data_prep.convert.isolated import Limits
from data_prep.convert.layouts import LAYOUTS, detect_layout, picture_rows, slice_pairs
from data_prep.convert.source import ReadOptions, Source
from data_prep.convert.table import read_table, row_source
from grn_monai.errors import InputError, listed
from grn_monai.labels import LAYER_NAMES

__all__ = ["Plan", "Request", "plan_conversion"]


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        src: folder or file to convert.
        out: folder of the cohort.
        layout: one of `LAYOUTS`, "files", "slice-pairs" or "auto".
        table: CSV file, see `data_prep.convert.table`.
        pattern: regular expression on paths, see `data_prep.convert.discover.apply_pattern`.
        options: how to read scans whose files or rows do not say it.
        section: section for scans that name none.
        modality: "US", "CT" or "MR" for files that do not tell; default US.
        label_names: label value to name in the cohort; None: those of the layout, else the six layers.
        label_values: label value in the files to that of the cohort; empty: as they are.
        key: file with the secret of the pseudonyms.
        link: private file that tells where scans came from; None: none is written.
        workers: processes.
        limits: of one scan.
    """

    src: Path
    out: Path
    layout: str = "auto"
    table: Path | None = None
    pattern: str | None = None
    options: ReadOptions = field(default_factory=ReadOptions)
    section: str | None = None
    modality: str | None = None
    label_names: dict[int, str] | None = None
    label_values: dict[str, int] = field(default_factory=dict)
    key: Path | None = None
    link: Path | None = None
    workers: int = 1
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Plan:
    """The scans found, and what goes with them.

    Attributes:
        sources: the scans, in order.
        label_names: label value to name.
        layout: how they were found.
        notes: what the user has to know.
        passed_over: number of files by ending that are no scan.
    """

    sources: list[Source]
    label_names: dict[int, str]
    layout: str
    notes: list[str]
    passed_over: dict[str, int]


def plan_conversion(request: Request) -> Plan:
    """Find the scans.

    Raises:
        InputError: the source or the table cannot be used, there is no scan, or a subject is in two sections.
    """
    if not request.src.exists():
        raise InputError(request.src, "no such file or folder", "a folder of scans, or one scan", "Check the path.")
    layout = request.layout
    passed_over: dict[str, int] = {}
    if layout == "auto":
        layout = _choose_layout(request)
    if request.table is not None and layout in ("files", "slice-pairs"):
        sources = _from_table(request, layout)
    elif request.src.is_file():
        sources = [single_source(request.src)]
    elif layout == "slice-pairs":
        pairs = slice_pairs(picture_rows(request.src), request.src, request.src)
        sources = [replace(s, options=ReadOptions(plane=row.get("plane"))) for row, s in pairs]
    elif layout == "files":
        found = discover(request.src)
        sources, passed_over = found.sources, found.passed_over
    else:
        sources = list(LAYOUTS[layout].find(request.src))
        if request.table is not None:
            sources = list(_with_table(sources, request.table, request.src))
    if request.pattern is not None and request.src.is_dir():
        sources = list(apply_pattern(sources, request.pattern, request.src))
    if not sources:
        raise InputError(request.src, _nothing(passed_over), "at least one scan", _no_scan_mend(passed_over))
    known = LAYOUTS.get(layout)
    sources = [_completed(source, request) for source in sources]
    _check_sections(sources, request)
    names = request.label_names or (known.labels if known else LAYER_NAMES)
    return Plan(sources, names, layout, [known.note] if known and known.note else [], passed_over)


def _choose_layout(request: Request) -> str:
    if request.src.is_file():
        return "files"
    if request.table is not None and _is_slices(read_table(request.table)):
        return "slice-pairs"
    return (request.table is None and detect_layout(request.src)) or "files"


def _is_slices(rows: list[dict[str, str]]) -> bool:
    """Whether a table lists slices: pictures, and more than one of a scan or with numbers."""
    endings = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
    return all(row.get("image", "").lower().endswith(endings) for row in rows)


def _from_table(request: Request, layout: str) -> list[Source]:
    table = request.table
    assert table is not None
    rows = read_table(table)
    base = request.src if request.src.is_dir() else request.src.parent
    if without := [row["row"] for row in rows if "image" not in row]:
        raise InputError(table, f"no image in line {listed(without)}", "one in every line", "Fill or remove them.")
    if layout == "slice-pairs":
        return [row_source(row, table, source) for row, source in slice_pairs(rows, base, table)]
    return [_from_row(row, table, base) for row in rows]


def _from_row(row: dict[str, str], table: Path, base: Path) -> Source:
    image = base / row["image"]
    try:
        source = single_source(image)
    except InputError as error:  # one faulty line must not stop the others
        source = Source("volume", (image,), problem=f"{error.found}; expected {error.expected}. {error.mend}")
    if "label" in row:
        source = replace(source, labels=(base / row["label"],))
    problem = source.problem
    if "label" in row and not (base / row["label"]).exists():
        problem = problem or f"a label that does not exist, {row['label']}"
    # A line that names no subject stands for one of its own.
    return replace(row_source(row, table, source), problem=problem)


def _with_table(sources: Iterable[Source], table: Path, base: Path) -> Iterator[Source]:
    """The sources of a layout with what a table adds to some of them."""
    rows = {(base / row["image"]).resolve(): row for row in read_table(table) if "image" in row}
    for source in sources:
        row = rows.get(source.files[0].resolve())
        yield source if row is None else row_source(row, table, source)


def _completed(source: Source, request: Request) -> Source:
    labels = source.labels
    section = source.section or request.section or ("training" if labels else "unlabeled")
    problem = source.problem
    if section in ("training", "validation") and not labels:
        problem = problem or f"no label for a scan of section {section!r}"
    return replace(
        source,
        section=section,
        labels=() if section == "unlabeled" else labels,
        options=source.options.over(request.options),
        label_values=request.label_values or source.label_values,
        modality=request.modality or source.modality,
        problem=problem,
    )


def _check_sections(sources: list[Source], request: Request) -> None:
    sides: dict[str, set[str]] = {}
    for source in sources:
        if source.subject is not None:
            side = "training" if source.section == "unlabeled" else str(source.section)
            sides.setdefault(source.subject, set()).add(side)
    torn = [subject.removeprefix("dicom:") for subject, found in sides.items() if len(found) > 1]
    if torn:
        found = f"scans of one subject in several sections ({listed(torn)})"
        mend = "Correct the sections; `python -m data_prep split --sizes` shares subjects out."
        raise InputError(request.table or request.src, found, "each subject in one section", mend)


def _nothing(passed_over: dict[str, int]) -> str:
    endings = ", ".join(f"{count} {ending}" for ending, count in sorted(passed_over.items()))
    return f"no scan (passed over: {endings})" if endings else "no scan"


def _no_scan_mend(passed_over: dict[str, int]) -> str:
    pictures = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"} & set(passed_over)
    if pictures:
        return "For pictures that are slices of volumes use --layout slice-pairs, or a --table."
    return "See `python -m data_prep convert --help` for the formats and layouts."
