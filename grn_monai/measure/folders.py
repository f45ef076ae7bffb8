"""Measure every scan of a cohort or folder, and write the tables, maps and ``measurements.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.errors import InputError
from grn_monai.files import make_folder
from grn_monai.measure.agreement import agreement, count_pairs
from grn_monai.measure.maps import write_map_picture, write_maps_nifti
from grn_monai.measure.quality import check_limits
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

__all__ = ["MAPS", "MeasuredFolder", "measure_folders"]

MAPS = ("png", "nifti", "both", "none")


@dataclass
class MeasuredFolder:
    """Outcome of `measure_folders`.

    Attributes:
        content: what ``measurements.json`` holds.
        failures: scan name to one line that says what was wrong.
        written: the files written, in `out`.
    """

    content: dict[str, Any]
    failures: dict[str, str] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)


class _Reader:
    """Reads the volumes of one scan, each once, in the scan frame."""

    def __init__(self, label_set: LabelSet, depth_axis: int | str, depth_reversed: bool) -> None:
        from grn_monai.transforms import DepthLast

        self.label_set = label_set
        # Without layers there is no depth: volumes stay in the voxel order of their files.
        self.orient = DepthLast(depth_axis, depth_reversed) if label_set.layered else None

    def _oriented(self, volume: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        moved: Any = self.orient(volume) if self.orient else volume
        return np.asarray(moved[0]), np.asarray(moved.affine, dtype=np.float64)

    def image(self, path: str) -> tuple[Any, npt.NDArray[Any]]:
        """The header-checked volume (for its geometry) and grey values (X, Y, Z)."""
        from grn_monai.data.volume import VolumeHeader, read_volume

        volume = read_volume(path)
        header = VolumeHeader(tuple(volume.shape[1:]), np.asarray(volume.affine, dtype=np.float64))
        return header, self._oriented(volume)[0]

    def labels(self, path: Path, header: Any, image: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Labels (X, Y, Z) and the affine of the scan frame."""
        from grn_monai.data.volume import check_same_geometry, read_volume

        volume = read_volume(path, kind="label", num_classes=self.label_set.num_classes)
        check_same_geometry(header, volume, image, path)
        return self._oriented(volume)


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
) -> MeasuredFolder:
    """Measures scans one after the other and writes the results.

    A scan that cannot be measured is listed with its reason, and the others go on. Only numbers are kept of a scan.

    Args:
        source: cohort folder or JSON file, a folder of scans, or one file.
        predictions: folder of label volumes, see `grn_monai.metrics.folders.find_prediction`; None measures the
            cohort's own labels.
        out: folder to make: ``measurements.csv``, ``scans.csv``, ``left_right.csv``, ``repeatability.csv`` and
            ``bland_altman.png`` (with repeats), ``measurements.json`` and ``maps/``.
        section: section of a cohort, or "all".
        suffix: what follows a scan's name in the predictions' file names.
        compare: another folder of label volumes of the same scans; where inference left no numbers, the disagreement
            with it stands for that of S(x) and S(G(x)).
        normal: also measure thickness along the surface normal.
        maps: "png", "nifti", "both" or "none".
        limits: of the quality checks, in place of the defaults.
        depth_axis: where depth runs in the files, see `grn_monai.transforms.DepthLast`; for layers only.
        depth_reversed: whether depth decreases along that axis.
        progress: wraps the list of items, for a progress bar.

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
    found = open_source(source, section, suffix)
    target = Path(out)
    make_folder(target)
    reader = _Reader(found.label_set, depth_axis, depth_reversed)
    scans: list[dict[str, Any]] = []
    result = MeasuredFolder({})
    for item in progress(found.items) if progress else found.items:
        name = _scan_of(item)[1]
        try:
            entry, measured, affine = _measure_item(item, found, folders, suffix, reader, chosen, normal)
            _write_maps(target, entry, measured, found.label_set, maps, affine)
        except (ValueError, OSError) as error:  # InputError is a ValueError
            result.failures[name] = str(error)
        else:
            scans.append(entry)
    if not scans:
        first = next(iter(result.failures.values()))
        raise InputError(
            predictions or source,
            f"no scan that could be measured ({len(result.failures)} tried)",
            "label volumes of the scans",
            f"The first failure: {first}",
        )
    about = {
        "cohort": str(Path(source).resolve()),
        "section": section,
        "predictions": str(folders[0].resolve()) if folders[0] else None,
        "compare": str(folders[1].resolve()) if folders[1] else None,
        "depth_axis": depth_axis,
        "depth_reversed": depth_reversed,
    }
    result.content, result.written = write_results(target, scans, result.failures, found, about, chosen)
    return result


def _scan_of(item: Mapping[str, Any]) -> tuple[str, str]:
    from grn_monai.data.names import item_names

    return item_names(item)


def _plain(value: Any) -> str | int | float | None:
    """A key of an item as text or number: a cohort file may hold anything there."""
    return value if isinstance(value, str | int | float | None) else str(value)


def _measure_item(
    item: dict[str, Any],
    source: Source,
    folders: Sequence[Path | None],
    suffix: str,
    reader: _Reader,
    limits: Mapping[str, float],
    normal: bool,
) -> tuple[dict[str, Any], ScanMeasurement, npt.NDArray[np.float64]]:
    """The entry of one scan, its maps and the affine of its scan frame."""
    subject, scan = _scan_of(item)
    path = segmentation_of(item, folders[0], suffix)
    header, grey = reader.image(item["image"])
    labels, affine = reader.labels(path, header, item["image"])
    inference, note = read_quality(quality_file(path, item["image"]))
    if folders[1] is not None and inference.get("sge_disagreement") is None:
        other, _ = reader.labels(segmentation_of(item, folders[1], suffix), header, item["image"])
        counts = count_pairs(labels, other, source.label_set.num_classes)
        inference["sge_disagreement"] = agreement(counts)["disagreement_percent"]
        del other
    own = dynamic_range(item, item["image"])
    dynamic_range_db = source.dynamic_range_db if own is None else own
    measured = measure_scan(
        labels, grey, affine, source.label_set, limits, inference, note, normal, dynamic_range_db
    )  # fmt: skip
    entry = {
        "subject": subject,
        "scan": scan,
        "side": side_of(item.get("side")),
        **{key: _plain(item.get(key)) for key in ("site", "status", "repeat")},
        "image": str(Path(item["image"]).resolve()),
        "segmentation": str(path.resolve()),
        "dynamic_range_db": dynamic_range_db,
        **measured.numbers,
        "map": None,
    }
    return entry, measured, affine


def _write_maps(
    out: Path,
    entry: dict[str, Any],
    measured: ScanMeasurement,
    label_set: LabelSet,
    maps: str,
    affine: npt.NDArray[np.float64],
) -> None:
    from grn_monai.data.volume import scan_name

    if not measured.maps:
        return
    stem = out / "maps" / scan_name(entry["image"])
    if maps in ("png", "both"):
        picture = stem.with_name(f"{stem.name}_thickness.png")
        title = f"{entry['scan']}: thickness along the A-line"
        cut = [layer["label"] for layer in entry["layers"] if layer["cut_percent"]]
        write_map_picture(picture, title, measured.maps, label_set.names, entry["spacing_mm"], cut)
        entry["map"] = picture.relative_to(out).as_posix()
    if maps in ("nifti", "both"):
        for kind, volumes in (("thickness", measured.maps), ("normal_thickness", measured.normal_maps)):
            if volumes:
                write_maps_nifti(stem.with_name(f"{stem.name}_{kind}.nii.gz"), volumes, affine, entry["shape"][2])
