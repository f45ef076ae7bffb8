"""Segmentations of a cohort's scans, back in the format that each scan came in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grn_monai.errors import InputError

if TYPE_CHECKING:
    from grn_monai.data.volume import VolumeHeader

__all__ = ["LINK_FORMAT", "Returned", "read_link", "return_segmentations"]

LINK_FORMAT = "grn-monai link 1"
"""``format`` of the link file that `python -m data_prep convert` writes."""

_DICOM_KINDS = ("dicom-series", "dicom-us", "dicom-enhanced-us")
_CONVERT = "Give the link file that `python -m data_prep convert` wrote beside the cohort."


@dataclass
class Returned:
    """Outcome of `return_segmentations`.

    Attributes:
        files: scan name to the file written.
        notes: scan name to what is worth knowing: labels that no voxel has, identifiers that the source lacked.
        failures: scan name to one line that says what was wrong.
    """

    files: dict[str, Path] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def read_link(path: str | PathLike[str]) -> dict[str, dict[str, Any]]:
    """The converted scans of a link file: what each cohort image was made from.

    Scans that failed in the conversion (``record`` is null) are left out. Relative paths are taken from the folder of
    the link file, so that the working directory does not matter.

    Raises:
        InputError: it is missing, no JSON, or not a link file.
    """
    path = Path(path)
    content = _content(path)
    scans = content.get("scans")
    if not isinstance(scans, dict) or content.get("format") != LINK_FORMAT:
        raise InputError(path, "another kind of JSON", f'"format": "{LINK_FORMAT}" and "scans"', _CONVERT)
    base = path.resolve().parent
    found = {}
    for name, scan in scans.items():
        faults = [key for key in ("kind", "image") if not isinstance(scan, dict) or not isinstance(scan.get(key), str)]
        files = None if faults else scan.get("files", [])
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            expected = "kind and image as text, files as a list"
            raise InputError(path, f"a faulty entry for scan {name}", expected, _CONVERT)
        if scan.get("record", {}) is not None:
            found[name] = {**scan, "image": str(base / scan["image"]), "files": [str(base / file) for file in files]}
    return found


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, f"no readable JSON ({error})", "a link file", _CONVERT) from error
    return content if isinstance(content, dict) else {}


def _label_names(path: str | PathLike[str]) -> dict[int, str]:
    """Label value to name, of a decathlon-style dataset.json (either way round)."""
    path = Path(path)
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        pairs = [(key, value) if str(key).isdigit() else (value, key) for key, value in labels.items()]
        return {int(value): str(name) for value, name in pairs}
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"no label names ({type(error).__name__}: {error})"
        raise InputError(path, found, '"labels": {"0": "background", …}', "Give the cohort's dataset.json.") from error


def _link_names(link: Path) -> dict[int, str]:
    """Label names of the cohort that a link file belongs to, wherever the two were moved to, else the six layers."""
    from grn_monai.labels import LAYER_NAMES

    content, base = _content(link), link.resolve().parent
    # Where it was written, or beside the link file (COHORT.link.json) if both were moved.
    for cohort in (base / str(content.get("cohort") or "."), base / link.name.removesuffix(".link.json")):
        if (cohort / "dataset.json").is_file():
            return _label_names(cohort / "dataset.json")
    return _label_names(link) if content.get("labels") else dict(LAYER_NAMES)


def _grid(scan: Mapping[str, Any]) -> VolumeHeader:
    """Shape and affine of the cohort's image, from the link file where the image is gone.

    Raises:
        InputError: the image is gone, and the link file does not tell its grid.
    """
    import numpy as np

    from grn_monai.data.volume import VolumeHeader, read_header

    if Path(scan["image"]).is_file():
        return read_header(scan["image"])
    try:
        affine = np.asarray(scan["affine"], dtype=np.float64).reshape(4, 4)
        x, y, z = (int(n) for n in scan["shape"])
    except (KeyError, TypeError, ValueError) as error:
        mend = "Put the cohort back to where it was, or convert the scans again."
        raise InputError(scan["image"], "no such file", "it, or its shape and affine in the link", mend) from error
    return VolumeHeader((x, y, z), affine)


def _return_one(scan: Mapping[str, Any], prediction: Path, out: Path, names: Mapping[int, str]) -> tuple[Path, Any]:
    import numpy as np

    from grn_monai.data.volume import read_volume, scan_name
    from grn_monai.dicom.lattice import labels_on_grid
    from grn_monai.dicom.seg import write_dicom_seg
    from grn_monai.files import write_whole

    stem = scan_name(scan["image"])
    volume = read_volume(prediction, kind="label", num_classes=max(names) + 1)
    image = _grid(scan)
    affine = np.asarray(volume.affine, dtype=np.float64)
    labels = labels_on_grid(prediction, np.asarray(volume[0]), affine, image.shape, image.affine)
    if scan["kind"] not in _DICOM_KINDS:
        ending = prediction.name[len(scan_name(prediction)) :]
        return write_whole(out / f"{stem}_seg{ending}", prediction.read_bytes()), None
    written = write_dicom_seg(
        labels,
        scan.get("files", []),
        out / f"{stem}_seg.dcm",
        affine=image.affine,
        placement=scan.get("placement") or None,
        names=names,
    )
    return written.path, written


def return_segmentations(
    predictions: str | PathLike[str],
    link: str | PathLike[str],
    out: str | PathLike[str],
    labels_from: str | PathLike[str] | None = None,
    suffix: str = "_seg",
    progress: Callable[[Iterable[str]], Iterable[str]] | None = None,
) -> Returned:
    """Writes a DICOM segmentation for each scan that came as DICOM, and copies the label volume of the others.

    A scan that fails is listed with its reason, and the others go on.

    Args:
        predictions: folder of label volumes, found as `grn_monai.metrics.folders.find_prediction` says.
        link: the link file of the conversion.
        out: gets ``NAME_seg.dcm`` or ``NAME_seg.nii.gz``; made if missing.
        labels_from: dataset.json whose ``labels`` name the label values; default: that of the cohort which the link
            file names or that lies beside it, else the names in the link file, else the six layers.
        suffix: what follows the scan's name in the predictions.
        progress: wraps the scan names, for a progress bar.

    Raises:
        InputError: a faulty link file, a missing folder, or no scan at all could be written.
    """
    from grn_monai.data.volume import scan_name
    from grn_monai.files import make_folder
    from grn_monai.metrics.folders import find_prediction

    folder, target = Path(predictions), Path(out)
    if not folder.is_dir():
        raise InputError(folder, "no folder", "a folder of label volumes", "Give the folder that inference wrote.")
    scans = read_link(link)
    if not scans:
        raise InputError(link, "no scans", "at least one", _CONVERT)
    names = _link_names(Path(link)) if labels_from is None else _label_names(labels_from)
    stems = [scan_name(scan["image"]) for scan in scans.values()]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        mend = "Convert them into cohorts of their own."
        raise InputError(link, f"images of one name ({', '.join(twice[:5])})", "a name for each scan", mend)
    make_folder(target)
    result = Returned()
    for name in progress(scans) if progress else scans:
        try:
            prediction = find_prediction(folder, scans[name]["image"], suffix)
            path, written = _return_one(scans[name], prediction, target, names)
        except (ValueError, OSError) as error:  # InputError is a ValueError
            result.failures[name] = str(error)
            continue
        result.files[name] = path
        if written is not None and (written.empty or written.notes):
            empty = (f"no voxel of {', '.join(written.empty)}",) if written.empty else ()
            result.notes[name] = "; ".join((*empty, *written.notes))
    if not result.files:
        found = f"no scan that could be written ({len(result.failures)} tried)"
        first = next(iter(result.failures.values()))
        raise InputError(folder, found, "label volumes of the scans in the link file", f"The first failure: {first}")
    return result
