"""Measure the muscles of every scan of a cohort or folder, and write the tables, pictures and ``muscle.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.data.checks import check_modality, modality_name
from grn_monai.data.cohort import COHORT_FILE, load_cohort
from grn_monai.data.names import item_names
from grn_monai.data.pairs import open_scan
from grn_monai.data.volume import scan_name
from grn_monai.errors import InputError
from grn_monai.files import make_folder
from grn_monai.measure.folders import failure_line, refuse_nothing, relative_path
from grn_monai.measure.muscle.ct import check_hu
from grn_monai.measure.muscle.frame import AxialFrame
from grn_monai.measure.muscle.levels import item_levels, read_levels
from grn_monai.measure.muscle.names import foreground, parse_names
from grn_monai.measure.muscle.pictures import shown_slices, write_histogram, write_overlay
from grn_monai.measure.muscle.scan import ScanMuscles, measure_muscles
from grn_monai.measure.muscle.settings import MODALITIES, MuscleSettings
from grn_monai.measure.muscle.surfaces import NO_PYVISTA, has_pyvista, write_surfaces
from grn_monai.measure.muscle.tables import write_muscle_results
from grn_monai.measure.sources import open_source, segmentation_of

__all__ = ["MeasuredMuscles", "measure_muscle_folders"]

_MODALITY_WORDS = {"CT": "ct", "MR": "mri"}
_TILT = 30.0
_ALL_LABELS = 256

Progress = Callable[[Sequence[dict[str, Any]]], Iterable[dict[str, Any]]]


@dataclass
class MeasuredMuscles:
    """Outcome of `measure_muscle_folders`.

    Attributes:
        content: what ``muscle.json`` holds.
        failures: name of the image file without ending to one line that says whose scan it is and what was wrong.
        notes: what was left out, one line each.
        written: the files written.
    """

    content: dict[str, Any]
    failures: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)


def _cohort_of(source: str | PathLike[str]) -> tuple[dict[str, Any], Path] | None:
    path = Path(source)
    return load_cohort(path) if path.suffix == ".json" or (path / COHORT_FILE).is_file() else None


def _modality(given: str | None, cohort: tuple[dict[str, Any], Path] | None) -> str:
    if given is not None:
        if given not in MODALITIES:
            raise InputError("--modality", repr(given), " or ".join(MODALITIES), "Choose one of them.")
        return given
    mend = "Give --modality ct or --modality mri."
    if cohort is None:
        raise InputError("--modality", "nothing that says whether these are CT or MR", " or ".join(MODALITIES), mend)
    said = cohort[0].get("modality")
    words = list(said.values()) if isinstance(said, Mapping) else [said]
    found = {_MODALITY_WORDS.get(modality_name(word)) for word in words}
    if len(found) != 1 or None in found:
        raise InputError(cohort[1], f"modality {said!r}", '{"0": "CT"} or {"0": "MR"}', mend)
    return str(found.pop())


def _names(given: str | None, cohort: tuple[dict[str, Any], Path] | None) -> dict[int, str]:
    if given is not None:
        return parse_names(given)
    if cohort is None:
        mend = "Give --names, such as ct, mri, totalsegmentator, or 1=psoas left,2=psoas right."
        raise InputError("--names", "nothing that says what the labels are called", "names of the labels", mend)
    return foreground(cohort[0]["labels"], str(cohort[1]))


def measure_muscle_folders(
    source: str | PathLike[str],
    predictions: str | PathLike[str] | None,
    out: str | PathLike[str],
    section: str = "test",
    suffix: str = "_seg",
    modality: str | None = None,
    names: str | None = None,
    levels: str | PathLike[str] | None = None,
    settings: MuscleSettings | None = None,
    pictures: bool = True,
    surfaces: bool = False,
    progress: Progress | None = None,
) -> MeasuredMuscles:
    """Measures scans one after the other and writes the results.

    A scan that cannot be measured is listed with its reason, and the others go on; one without muscle has rows that
    say so. Pictures of an earlier call that this one does not draw are removed.

    Args:
        source: cohort folder or JSON file, a folder of scans, or one file.
        predictions: folder of label volumes, see `grn_monai.metrics.folders.find_prediction`; None measures the
            cohort's own labels.
        out: folder to make, see `write_muscle_results`, with ``pictures/``. Paths in there are relative to it.
        section: section of a cohort, or "all".
        suffix: what follows a scan's name in the predictions' file names.
        modality: "ct" or "mri"; None takes that of the cohort.
        names: see `parse_names`; other label values are then left out. None takes those of the cohort, and any other
            value is an error.
        levels: CSV of levels, see `read_levels`; for the scans in it in place of those of the cohort's items.
        settings: options.
        pictures: draw overlays and distributions.
        surfaces: render the muscles as surfaces; without PyVista a note says so.
        progress: wraps the list of items, for a progress bar.

    Returns:
        The numbers, failures, notes and files.

    Raises:
        InputError: a missing folder, a faulty cohort, table or option, or no scan at all that could be measured.
    """
    settings = settings or MuscleSettings()
    folder = None if predictions is None else Path(predictions)
    if folder is not None and not folder.is_dir():
        raise InputError(folder, "no folder", "a folder of label volumes", "Give the folder that inference wrote.")
    cohort = _cohort_of(source)
    found = open_source(source, section, suffix)
    muscles, kind = _names(names, cohort), _modality(modality, cohort)
    given = _levels_of(levels, found.items)
    target = Path(out)
    make_folder(target)
    result = MeasuredMuscles({})
    if surfaces and not has_pyvista():
        surfaces = False
        result.notes.append(NO_PYVISTA)
    one = _One(muscles, kind, settings, folder, suffix, names is not None, given, target, pictures, surfaces)
    scans: list[dict[str, Any]] = []
    for item in progress(found.items) if progress else found.items:
        try:
            scans.append(one(item))
        except (ValueError, OSError) as error:  # InputError is a ValueError
            name, line = failure_line(item, error)
            result.failures[name] = line
    refuse_nothing(scans, result.failures, predictions or source)
    drawn = [target / name for scan in scans for name in scan["pictures"]]
    _remove_stale(target / "pictures", drawn)
    about = {
        "simulated": found.simulated,
        "source": {
            "cohort": relative_path(source, target),
            "section": section,
            "predictions": relative_path(folder, target) if folder else None,
        },
        "notes": result.notes,
    }
    result.content, result.written = write_muscle_results(
        target, scans, result.failures, about, muscles, kind, settings
    )
    result.written += drawn
    return result


def _levels_of(path: str | PathLike[str] | None, items: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    if path is None:
        return {}
    levels = read_levels(path)
    known = {name for item in items for name in (item_names(item)[1], scan_name(item["image"]))}
    if not known & levels.keys():
        found = f"levels of {', '.join(list(levels)[:5])}, none of which is measured"
        raise InputError(path, found, f"names such as {sorted(known)[0]}", "Correct the column `scan`.")
    return levels


def _remove_stale(folder: Path, kept: Sequence[Path]) -> None:
    for start in ("overlay_", "histogram_", "surface_"):
        for path in folder.glob(f"{start}*.png"):
            if path not in kept:
                path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@dataclass(frozen=True)
class _One:
    """Measures one scan after the other; with the options that all of them share."""

    names: Mapping[int, str]
    modality: str
    settings: MuscleSettings
    predictions: Path | None
    suffix: str
    others: bool
    levels: Mapping[str, dict[str, float]]
    out: Path
    pictures: bool
    surfaces: bool

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """The entry of one scan, with its pictures drawn."""
        from monai.transforms import Orientation

        subject, scan = item_names(item)
        path = segmentation_of(item, self.predictions, self.suffix)
        turn = Orientation("RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))
        opened = open_scan(item["image"], turn)
        labels = opened.labels(path, _ALL_LABELS if self.others else max(self.names) + 1)
        if self.others:
            labels = np.where(np.isin(labels, list(self.names)), labels, 0).astype(np.uint8)
        if self.modality == "ct":
            check_hu(opened.values, item["image"])
        else:
            check_modality(item["image"], opened.values, "MR")
        levels = self.levels.get(scan) or self.levels.get(scan_name(item["image"])) or item_levels(item)
        measured = measure_muscles(
            labels, opened.values, opened.affine, self.names, self.modality, self.settings, levels
        )  # fmt: skip
        entry = {
            "subject": subject,
            "scan": scan,
            "image": relative_path(item["image"], self.out),
            "segmentation": relative_path(path, self.out),
            **measured.numbers,
            "pictures": [],
        }
        if entry["tilt_degrees"] > _TILT:
            for muscle in entry["muscles"]:
                tilted = f"slices are {entry['tilt_degrees']:.0f}° from axial"
                muscle["check"] = "; ".join(filter(None, (muscle["check"], tilted)))
        if entry["found"]:
            entry["pictures"] = self._draw(scan_name(item["image"]), entry, labels, measured, opened.affine)
        return entry

    def _draw(
        self,
        name: str,
        entry: dict[str, Any],
        labels: npt.NDArray[Any],
        measured: ScanMuscles,
        affine: npt.NDArray[np.float64],
    ) -> list[str]:
        frame = AxialFrame(affine, labels.shape)
        written = []
        folder = self.out / "pictures"
        if self.pictures:
            slices = shown_slices(entry)
            overlay, histogram = folder / f"overlay_{name}.png", folder / f"histogram_{name}.png"
            write_overlay(overlay, entry["scan"], labels, measured, self.names, frame, slices, self.settings)
            write_histogram(histogram, entry["scan"], entry, measured, self.settings)
            written += [overlay, histogram]
        if self.surfaces:
            surface = folder / f"surface_{name}.png"
            write_surfaces(surface, entry["scan"], labels, self.names, frame)
            written.append(surface)
        return [path.relative_to(self.out).as_posix() for path in written if path.is_file()]
