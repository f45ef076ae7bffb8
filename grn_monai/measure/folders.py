"""Measure every scan of a cohort or folder, and write the tables, maps and ``measurements.json``."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.files import make_folder, replacing
from grn_monai.measure.agreement import compared
from grn_monai.measure.maps import write_map_picture, write_maps_nifti
from grn_monai.measure.quality import check_limits
from grn_monai.measure.repeatability import plain_repeat
from grn_monai.measure.scan import LabelSet, ScanMeasurement, measure_scan
from grn_monai.measure.sides import side_of
from grn_monai.measure.sources import (
    Source,
    dynamic_range,
    open_source,
    quality_file,
    read_quality,
    segmentation_of,
)
from grn_monai.measure.tables import write_results

__all__ = [
    "MAPS",
    "NO_LAYERS",
    "MeasuredFolder",
    "failure_line",
    "measure_folders",
    "refuse_nothing",
    "relative_path",
]

MAPS = ("png", "nifti", "both", "none")

NO_LAYERS = "labels are not layers: no thickness (--layers measures it)"
"""Said, and noted in ``measurements.json``, where the labels are not known to be layers."""

_AREA_FILE = "muscle_areas.csv"
_AREA_COLUMNS = ("subject", "scan", "label", "layer", "plane", "slice", "position_mm", "area_cm2")


@dataclass
class MeasuredFolder:
    """Outcome of `measure_folders`.

    Attributes:
        content: what ``measurements.json`` holds.
        failures: name of the image file without ending to one line that says whose scan it is and what was wrong.
        written: the files written, in `out`.
    """

    content: dict[str, Any]
    failures: dict[str, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)


def measure_folders(
    source: str | PathLike[str],
    predictions: str | PathLike[str] | None,
    out: str | PathLike[str],
    section: str = "test",
    suffix: str = "_seg",
    compare: str | PathLike[str] | None = None,
    normal: bool = True,
    maps: str = "png",
    limits: Mapping[str, float] | None = None,
    depth_axis: int | str = 2,
    depth_reversed: bool = False,
    progress: Callable[[Sequence[dict[str, Any]]], Iterable[dict[str, Any]]] | None = None,
    layers: bool = False,
) -> MeasuredFolder:
    """Measures scans one after the other and writes the results.

    A scan that cannot be measured is listed with its reason, and the others go on. Only numbers are kept of a scan.
    Thickness maps, ``report.html`` and tables of an earlier call that this one does not write are removed.

    Args:
        source: cohort folder or JSON file, a folder of scans, or one file.
        predictions: folder of label volumes, see `grn_monai.metrics.folders.find_prediction`; None measures the
            cohort's own labels.
        out: folder to make: ``measurements.csv``, ``scans.csv``, ``left_right.csv``, ``muscle_areas.csv`` (area of
            every slice that holds a muscle, or any label where they are no layers), ``repeatability.csv`` and
            ``bland_altman.png`` (with repeats), ``measurements.json`` and ``maps/``. Paths in there are relative to
            the folder.
        section: section of a cohort, or "all".
        suffix: what follows a scan's name in the predictions' file names.
        compare: another folder of label volumes of the same scans, such as of S(x) where `predictions` are of S(G(x)):
            adds the check ``compared_disagreement``.
        normal: also measure thickness along the surface normal.
        maps: "png", "nifti", "both" or "none".
        limits: of the quality checks, in place of the defaults.
        depth_axis: where depth runs in the files, see `grn_monai.transforms.DepthLast`; for layers only.
        depth_reversed: whether depth decreases along that axis.
        progress: wraps the list of items, for a progress bar.
        layers: the labels are layers in the order of depth, whatever their names.

    Returns:
        The numbers, failures and files.

    Raises:
        InputError: a missing folder, a faulty cohort or option, or no scan at all that could be measured.
    """
    chosen = check_limits(limits)
    if maps not in MAPS:
        raise InputError("--maps", repr(maps), " or ".join(MAPS), "Choose one of them.")
    folders = [None if folder is None else Path(folder) for folder in (predictions, compare)]
    for folder in folders:
        if folder is not None and not folder.is_dir():
            mend = "Give the folder that inference wrote."
            raise InputError(folder, "no folder", "a folder of label volumes", mend)
    found = open_source(source, section, suffix, layers)
    target = Path(out)
    make_folder(target)
    measure = _Measure(found, folders[0], folders[1], suffix, depth_axis, depth_reversed, chosen, normal, target)
    scans: list[dict[str, Any]] = []
    result = MeasuredFolder({})
    pictures: set[Path] = set()
    with _area_table(target) as write_areas:
        for item in progress(found.items) if progress else found.items:
            try:
                entry, measured, affine = measure(item)
                pictures |= _write_maps(target, entry, measured, found.label_set, maps, affine)
            except (ValueError, OSError) as error:  # InputError is a ValueError
                name, line = failure_line(item, error)
                result.failures[name] = line
            else:
                scans.append(entry)
                write_areas(entry, measured)
        refuse_nothing(scans, result.failures, predictions or source)
    _remove_stale(target, pictures)
    about = {
        "cohort": relative_path(source, target),
        "section": section,
        "predictions": relative_path(folders[0], target) if folders[0] else None,
        "compare": relative_path(folders[1], target) if folders[1] else None,
        "depth_axis": depth_axis,
        "depth_reversed": depth_reversed,
    }
    notes = [] if found.label_set.layered else [NO_LAYERS]
    result.content, result.written = write_results(target, scans, result.failures, found, about, chosen, notes)
    result.written += [path for path in (target / _AREA_FILE, *sorted(pictures)) if path.is_file()]
    return result


def refuse_nothing(scans: Sequence[Any], failures: Mapping[str, str], where: str | PathLike[str]) -> None:
    """Raises, where not one scan could be measured, an `InputError` with the first failure."""
    if not scans:
        raise InputError(
            where,
            f"no scan that could be measured ({len(failures)} tried)",
            "label volumes of the scans",
            f"The first failure: {next(iter(failures.values()))}",
        )


def failure_line(item: Mapping[str, Any], error: Exception) -> tuple[str, str]:
    """Name of the image file, which is a scan's own, and whose scan it is with what was wrong."""
    from grn_monai.data.names import item_names
    from grn_monai.data.volume import scan_name

    subject, scan = item_names(item)
    who = f"scan {scan}" if subject == scan else f"subject {subject}, scan {scan}"
    return scan_name(item["image"]), f"{who}: {error}"


def relative_path(path: str | PathLike[str], folder: Path) -> str:
    """From a folder to a path, with slashes; absolute where there is no way, as between drives."""
    absolute = Path(path).resolve()
    try:
        return Path(os.path.relpath(absolute, folder.resolve())).as_posix()
    except ValueError:
        return absolute.as_posix()


def _plain(value: Any) -> str | int | float | None:
    """A key of an item as text or number: a cohort file may hold anything there."""
    return value if isinstance(value, str | int | float | None) else str(value)


@dataclass(frozen=True)
class _Measure:
    """Measures one scan after the other; with the options that all of them share."""

    source: Source
    predictions: Path | None
    other: Path | None
    suffix: str
    depth_axis: int | str
    depth_reversed: bool
    limits: Mapping[str, float]
    normal: bool
    out: Path

    def __call__(self, item: dict[str, Any]) -> tuple[dict[str, Any], ScanMeasurement, npt.NDArray[np.float64]]:
        """The entry of one scan, its maps and the affine of its scan frame."""
        from grn_monai.data.names import item_names
        from grn_monai.data.pairs import open_scan
        from grn_monai.transforms import DepthLast

        label_set = self.source.label_set
        subject, scan = item_names(item)
        path = segmentation_of(item, self.predictions, self.suffix)
        # Without layers there is no depth: volumes stay in the voxel order of their files.
        opened = open_scan(
            item["image"], DepthLast(self.depth_axis, self.depth_reversed) if label_set.layered else None
        )
        labels = opened.labels(path, label_set.num_classes)
        predicted = self.predictions is not None
        inference, notes = read_quality(quality_file(path, item["image"])) if predicted else ({}, {})
        if self.other is not None:
            try:
                other = opened.labels(segmentation_of(item, self.other, self.suffix), label_set.num_classes)
                found = compared(labels, other, label_set.num_classes)
                inference["compared_disagreement"] = found["disagreement_percent"]
                del other
            except (ValueError, OSError) as error:
                inference["compared_disagreement"] = None
                found_there = error.found if isinstance(error, InputError) else error
                notes["compared_disagreement"] = f"Not known, as the compared labels have {found_there}."
        own = dynamic_range(item, item["image"])
        dynamic_range_db = self.source.dynamic_range_db if own is None else own
        measured = measure_scan(
            labels, opened.values, opened.affine, label_set, self.limits, inference, notes, self.normal,
            dynamic_range_db, predicted,
        )  # fmt: skip
        entry = {
            "subject": subject,
            "scan": scan,
            "side": side_of(item.get("side")),
            **{key: _plain(item.get(key)) for key in ("site", "status")},
            "repeat": plain_repeat(item.get("repeat")),
            "image": relative_path(item["image"], self.out),
            "segmentation": relative_path(path, self.out),
            "dynamic_range_db": dynamic_range_db,
            **measured.numbers,
            "map": None,
        }
        return entry, measured, opened.affine


@contextmanager
def _area_table(out: Path) -> Iterator[Callable[[Mapping[str, Any], ScanMeasurement], None]]:
    """Writes the area of every slice that holds a label, scan by scan; the file is there at the end, if it has rows.

    ``slice`` counts from 0 in the scan frame; ``position_mm`` is the distance of its centre from that of slice 0.
    """
    path, count = out / _AREA_FILE, 0
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_AREA_COLUMNS)

        def write(entry: Mapping[str, Any], measured: ScanMeasurement) -> None:
            nonlocal count
            names = {layer["label"]: layer["name"] for layer in entry["layers"]}
            for label, planes in measured.areas.items():
                for plane, areas in planes.items():
                    step = entry["spacing_mm"][measured.planes[plane]]
                    for i in np.flatnonzero(areas):
                        row = (entry["subject"], entry["scan"], label, names[label], plane, int(i))
                        table.writerow((*row, f"{i * step:.6g}", f"{areas[i]:.6g}"))
                        count += 1

        yield write
    if not count:
        path.unlink(missing_ok=True)


def _write_maps(
    out: Path,
    entry: dict[str, Any],
    measured: ScanMeasurement,
    label_set: LabelSet,
    maps: str,
    affine: npt.NDArray[np.float64],
) -> set[Path]:
    """Writes the maps of a scan, names the first of them in its entry, and returns them all."""
    from grn_monai.data.volume import scan_name

    written: list[Path] = []
    if not measured.maps:
        return set()
    stem = out / "maps" / scan_name(entry["image"])
    if maps in ("png", "both"):
        picture = stem.with_name(f"{stem.name}_thickness.png")
        title = f"{entry['scan']}: thickness along the A-line"
        cut = [layer["label"] for layer in entry["layers"] if layer["cut_percent"]]
        write_map_picture(picture, title, measured.maps, label_set.names, entry["spacing_mm"], cut)
        written.append(picture)
    if maps in ("nifti", "both"):
        for kind, volumes in (("thickness", measured.maps), ("normal_thickness", measured.normal_maps)):
            if volumes:
                volume = stem.with_name(f"{stem.name}_{kind}.nii.gz")
                write_maps_nifti(volume, volumes, affine, entry["shape"][2])
                written.append(volume)
    entry["map"] = written[0].relative_to(out).as_posix() if written else None
    return set(written)


def _remove_stale(out: Path, kept: Collection[Path]) -> None:
    """Takes maps and the report of an earlier call away, which would pass for those of this one."""
    folder = out / "maps"
    for ending in ("_thickness.png", "_thickness.nii.gz"):
        for path in folder.glob(f"*{ending}"):
            if path not in kept:
                path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    if (out / "measurements.json").is_file():  # otherwise report.html is of something else
        (out / "report.html").unlink(missing_ok=True)
