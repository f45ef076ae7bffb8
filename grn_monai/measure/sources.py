"""What is measured: the scans of a cohort or folder, their label volumes, and the quality numbers beside these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from grn_monai.errors import InputError
from grn_monai.measure.agreement import QUALITY_FORMAT
from grn_monai.measure.scan import LabelSet
from grn_monai.metrics.folders import find_prediction

__all__ = ["Source", "dynamic_range", "open_source", "quality_file", "read_quality", "segmentation_of"]

_ALL = "all"


@dataclass(frozen=True)
class Source:
    """Scans to measure.

    Attributes:
        items: as a cohort file lists them, with absolute paths.
        label_set: what the labels mean.
        simulated: whether no person was scanned; None where nothing says so.
        dynamic_range_db: of the whole cohort, or None.
    """

    items: list[dict[str, Any]]
    label_set: LabelSet
    simulated: bool | None
    dynamic_range_db: float | None


def open_source(
    source: str | PathLike[str], section: str = "test", suffix: str = "_seg", layers: bool = False
) -> Source:
    """Lists the scans of a cohort's section, of a folder, or one file.

    Args:
        source: cohort folder, its JSON file (also of another name), a folder of volumes, or one volume.
        section: section of a cohort, or "all".
        suffix: in a folder of volumes, NAME with this suffix is the label volume of scan NAME, not a scan.
        layers: the labels are layers in the order of depth, whatever their names; a cohort file says so itself with
            ``"layers": true``.

    Raises:
        InputError: there is no such file or no scan in it, or a faulty cohort; two images share a file name.
    """
    from grn_monai.data.cohort import COHORT_FILE, SECTIONS, load_cohort, section_items
    from grn_monai.data.names import check_file_names
    from grn_monai.data.scans import scan_list
    from grn_monai.data.volume import scan_name

    path = Path(source)
    if path.suffix == ".json" or (path / COHORT_FILE).is_file():
        cohort, file = load_cohort(path)
        if section == _ALL:
            items = [item for name in SECTIONS if cohort[name] for item in section_items(file, name)]
        else:
            items = section_items(file, section)
        simulated = cohort.get("simulated")
        if simulated is None and (file.parent / "simulation.json").is_file():  # the simulator left it
            simulated = True
        labels_are = LabelSet.of(cohort["labels"], True if layers else _layered(cohort, file))
        found = Source(items, labels_are, None if simulated is None else bool(simulated), dynamic_range(cohort, file))
    else:
        items = scan_list(path)
        names = {scan_name(item["image"]) for item in items}
        labels = {name for name in names if suffix and name.removesuffix(suffix) in names - {name}}
        items = [item for item in items if scan_name(item["image"]) not in labels]
        found = Source(items, LabelSet.of(None), None, None)
    check_file_names(found.items)
    return found


def _layered(cohort: Mapping[str, Any], file: Path) -> bool | None:
    given = cohort.get("layers")
    if given is not None and not isinstance(given, bool):
        raise InputError(file, f"layers {given!r}", "true or false: labels in the order of depth", "Correct the file.")
    return given


def dynamic_range(item: Mapping[str, Any], where: str | PathLike[str]) -> float | None:
    """The ``dynamic_range_db`` of an item or cohort, or None where it says nothing.

    Raises:
        InputError: it is no positive number.
    """
    given = item.get("dynamic_range_db")
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 1000:
        raise InputError(where, f"dynamic_range_db {given!r}", "a positive number of dB", "Correct the cohort file.")
    return float(given)


def quality_file(segmentation: Path, image: str | PathLike[str]) -> Path:
    """Where inference writes the quality numbers of a scan: NAME_quality.json beside its label volume."""
    from grn_monai.data.volume import scan_name

    return segmentation.parent / f"{scan_name(image)}_quality.json"


_NUMBERS = {
    "plane_disagreement": ("plane_disagreement", "disagreement_percent"),
    "sge_disagreement": ("sge_disagreement", "disagreement_percent"),
    "out_of_order": ("layer_order", "out_of_order_percent"),
}


def read_quality(path: Path) -> tuple[dict[str, float | None], dict[str, str]]:
    """The values of the checks that come from inference, and by check why one is not known.

    What cannot be read, or is no number from 0 to 100, takes nothing from the measurement, so that it is told rather
    than raised. A null is no fault: inference had nothing to compare.
    """
    if not path.is_file():
        return {}, {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != QUALITY_FORMAT:
            return {}, dict.fromkeys(_NUMBERS, f"Not known: {path.name} is not of format {QUALITY_FORMAT!r}.")
        found = {name: (content.get(part) or {}).get(key) for name, (part, key) in _NUMBERS.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return {}, dict.fromkeys(_NUMBERS, f"Not known: {path.name} cannot be read ({type(error).__name__}).")
    values: dict[str, float | None] = {}
    notes = {}
    for name, value in found.items():
        values[name] = None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
            values[name] = float(value)
        if values[name] is None and value is not None:
            part, key = _NUMBERS[name]
            text = repr(value) if len(repr(value)) <= 40 else type(value).__name__
            notes[name] = f"Not known: {part}.{key} in {path.name} is {text}, no number from 0 to 100."
    return values, notes


def segmentation_of(item: Mapping[str, Any], predictions: Path | None, suffix: str) -> Path:
    """The label volume of a scan: from the folder of predictions, or the cohort's own label.

    Raises:
        InputError: there is none.
    """
    if predictions is not None:
        return find_prediction(predictions, item["image"], suffix)
    if not item.get("label"):
        raise InputError(item["image"], "no label in the cohort", "a true label volume", "Give a predictions folder.")
    return Path(item["label"])
