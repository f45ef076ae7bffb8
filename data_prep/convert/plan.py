"""From a request to the list of scans to convert, before any voxel is read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from data_prep.convert.discover import Found, apply_pattern, discover, single_source
from data_prep.convert.isolated import Limits
from data_prep.convert.kinds import PICTURES
from data_prep.convert.layouts import LAYOUTS, detect_layout
from data_prep.convert.slice_pairs import picture_rows, slice_pairs
from data_prep.convert.source import ReadOptions, Source
from data_prep.convert.table import check_options, read_table, row_source
from grn_monai.data.faults import torn_subjects
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
        modality: "US", "CT" or "MR" of files of which neither format, layout nor table tells it; default US.
        label_names: label value to name in the cohort; None: those of the layout, else the six layers.
        label_values: label value in the files to that of the cohort, one of the label names; empty: as they are.
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
        notes: what the user has to know, without names of files.
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
        InputError: the source, the table or an option cannot be used, there is no scan, or a subject is in two
            sections.
    """
    if not request.src.exists():
        raise InputError(request.src, "no such file or folder", "a folder of scans, or one scan", "Check the path.")
    # One source has one path, however it was typed; a link to a file keeps its own name, which tells the kind.
    src = request.src.resolve() if request.src.is_dir() else request.src.parent.resolve() / request.src.name
    request = replace(request, src=src)
    check_options(request.options, "the options")
    rows = None if request.table is None else _rows(request.table)
    layout = _choose_layout(request, rows) if request.layout == "auto" else request.layout
    found = _find(request, layout, rows)
    sources = found.sources
    if request.pattern is not None:
        sources = list(apply_pattern(sources, request.pattern, _base(request)))
    if not sources:
        raise InputError(src, _nothing(found.passed_over), "at least one scan", _no_scan_mend(found.passed_over))
    known = LAYOUTS.get(layout)
    names = request.label_names or (known.labels if known else LAYER_NAMES)
    sources = [_completed(source, request, names) for source in sources]
    _check_label_values(sources, request, names)
    _check_sections(sources, request)
    return Plan(sources, names, layout, _notes(request, layout, found), found.passed_over)


def _base(request: Request) -> Path:
    """The folder that paths are relative to."""
    return request.src if request.src.is_dir() else request.src.parent


def _rows(table: Path) -> list[dict[str, str]]:
    rows = read_table(table)
    if without := [row["row"] for row in rows if "image" not in row]:
        raise InputError(table, f"no image in line {listed(without)}", "one in every line", "Fill or remove them.")
    return rows


def _choose_layout(request: Request, rows: list[dict[str, str]] | None) -> str:
    if request.src.is_file():
        return "files"
    detected = detect_layout(request.src)
    if rows is None:
        return detected or "files"
    if detected is not None:
        # A table adds to a known set, unless it is about something else that lies in the same folder.
        known = {source.files[0].resolve() for source in LAYOUTS[detected].find(request.src)}
        if any((request.src / row["image"]).resolve() in known for row in rows):
            return detected
    return "slice-pairs" if all(row["image"].lower().endswith(PICTURES) for row in rows) else "files"


def _find(request: Request, layout: str, rows: list[dict[str, str]] | None) -> Found:
    """The scans of a layout, with what the table says of them."""
    base = _base(request)
    if layout in LAYOUTS and request.src.is_dir():
        sources = list(LAYOUTS[layout].find(base))
        return Found(sources if rows is None else _with_rows(sources, rows, request), {})
    if layout == "slice-pairs" and (rows is not None or request.src.is_dir()):
        pictures, orphans = (rows, 0) if rows is not None else picture_rows(base)
        where = request.table or request.src
        pairs = [(row, _untold(source, request)) for row, source in slice_pairs(pictures, base, where)]
        return Found([row_source(row, where, source) for row, source in pairs], {}, orphans)
    if rows is not None:
        return Found([_from_row(row, request) for row in rows], {})
    if request.src.is_file():
        return Found([_untold(single_source(request.src), request)], {})
    found = discover(base)
    return replace(found, sources=[_untold(source, request) for source in found.sources])


def _untold(source: Source, request: Request) -> Source:
    """A source with the modality of the request, where its file tells none."""
    told = source.kind not in ("volume", "raw", "slices", "verasonics")
    return source if told or request.modality is None else replace(source, modality=request.modality)


def _from_row(row: dict[str, str], request: Request) -> Source:
    image = _base(request) / row["image"]
    try:
        source = _untold(single_source(image), request)
    except InputError as error:  # one faulty line must not stop the others
        source = Source("volume", (image,), problem=f"{error.found}; expected {error.expected}. {error.mend}")
    # A line that names no subject stands for one of its own.
    return _row_source(row, source, request)


def _row_source(row: dict[str, str], source: Source, request: Request) -> Source:
    """A source with what its row says of it, its label included."""
    assert request.table is not None
    source = row_source(row, request.table, source)
    if "label" not in row:
        return source
    label = _base(request) / row["label"]
    problem = None if label.exists() else f"a label that does not exist, {row['label']}"
    return replace(source, labels=(label,), problem=source.problem or problem)


def _with_rows(sources: list[Source], rows: list[dict[str, str]], request: Request) -> list[Source]:
    """The sources of a layout with what a table adds to some of them."""
    by_image = {(request.src / row["image"]).resolve(): row for row in rows}
    known = {source.files[0].resolve() for source in sources}
    if strange := [row["row"] for image, row in by_image.items() if image not in known]:
        found = f"an image that the layout does not have in line {listed(strange)}"
        mend = "Correct or remove the lines; --layout files takes the table alone."
        raise InputError(request.table or request.src, found, "images of the layout", mend)
    rows_of = [by_image.get(source.files[0].resolve()) for source in sources]
    return [s if row is None else _row_source(row, s, request) for s, row in zip(sources, rows_of, strict=True)]


def _completed(source: Source, request: Request, names: dict[int, str]) -> Source:
    labels = source.labels
    own_values = {str(value): value for value in names} if labels else {}
    section = source.section or request.section or ("training" if labels else "unlabeled")
    problem = source.problem
    if section in ("training", "validation") and not labels:
        problem = problem or f"no label for a scan of section {section!r}"
    return replace(
        source,
        section=section,
        labels=() if section == "unlabeled" else labels,
        options=source.options.over(request.options),
        label_values=request.label_values or source.label_values or own_values,
        problem=problem,
    )


def _check_label_values(sources: list[Source], request: Request, names: dict[int, str]) -> None:
    written = {value for source in sources for value in source.label_values.values()}
    if strange := sorted(written - set(names)):
        where = "--label-values" if request.label_values else "--label-names"
        found = f"values without a name, {listed([str(value) for value in strange])}"
        expected = f"only values that have a name: {', '.join(str(value) for value in sorted(names))}"
        raise InputError(where, found, expected, "Name them with --label-names, or map to others with --label-values.")


def _notes(request: Request, layout: str, found: Found) -> list[str]:
    """What the user has to know; without names of files, since it is recorded in the cohort."""
    known = LAYOUTS.get(layout)
    notes = []
    if request.layout == "auto" and known is not None:
        notes.append(f"taken for the layout {layout}: {known.title}; if it is not, give --layout files")
    elif request.layout == "auto" and layout != "files":
        notes.append(f"taken for the layout {layout}, since the table lists pictures")
    if found.orphans:
        labels = "1 label belongs" if found.orphans == 1 else f"{found.orphans} labels belong"
        notes.append(f"{labels} to no scan: a label is NAME_seg beside NAME, or has its name in a folder labels/")
    if known is not None and known.note:
        notes.append(known.note)
    return notes


def _check_sections(sources: list[Source], request: Request) -> None:
    told = ((source.subject, str(source.section)) for source in sources if source.subject is not None)
    if torn := [subject.removeprefix("dicom:") for subject in torn_subjects(told)]:
        found = f"scans of one subject in several sections ({listed(torn)})"
        mend = "Correct the sections; `python -m data_prep split --sizes` shares subjects out."
        raise InputError(request.table or request.src, found, "each subject in one section", mend)


def _nothing(passed_over: dict[str, int]) -> str:
    endings = ", ".join(f"{count} {ending}" for ending, count in sorted(passed_over.items()))
    return f"no scan (passed over: {endings})" if endings else "no scan"


def _no_scan_mend(passed_over: dict[str, int]) -> str:
    if set(PICTURES) & set(passed_over):
        return "For pictures that are slices of volumes use --layout slice-pairs, or a --table."
    return "See `python -m data_prep convert --help` for the formats and layouts."
