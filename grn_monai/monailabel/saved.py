"""What a label goes through that a client saves in MONAI Label: read, numbered by its names, put on the scan's grid."""

from __future__ import annotations

import contextlib
import itertools
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813  (the field's name for it)

from grn_monai.data.volume import VolumeHeader, read_volume
from grn_monai.dicom.lattice import labels_on_grid
from grn_monai.dicom.read import label_value
from grn_monai.errors import InputError, listed
from grn_monai.labels import LAYER_NAMES

__all__ = [
    "SavedLabel",
    "check_name",
    "check_tag",
    "given_names",
    "names_of_values",
    "read_saved",
    "renumbered",
    "upload_removed_on_error",
    "write_segmentation",
    "write_volume",
]

_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_NAME = 180  # bytes; 255 less an ending and what a temporary name adds
_NO_LABELS = ("background", "foreground_scribbles", "background_scribbles")

Labels = npt.NDArray[np.uint8]


class SavedLabel(NamedTuple):
    """A label on the grid of its scan.

    Attributes:
        labels: ``(X, Y, Z)``.
        names: label value to name, of all values that may be in it.
        as_it_was: the file had these voxels, in this order.
    """

    labels: Labels
    names: dict[int, str]
    as_it_was: bool


def check_tag(tag: Any) -> str:
    """A label's tag as text; it is the name of a folder.

    Raises:
        InputError: it is no plain name.
    """
    text = str(getattr(tag, "value", tag))
    if not _TAG.fullmatch(text):
        expected = "1 to 64 letters, digits, hyphens and underscores"
        raise InputError("tag", repr(text[:100]), expected, 'Use "final" or "original".')
    return text


def check_name(image_id: str) -> str:
    """The id of an image; it is the name of a file.

    Raises:
        InputError: it is no plain name.
    """
    good = image_id.isprintable() and not image_id.startswith(".") and not set(image_id) & set("/\\")
    if not good or not 0 < len(image_id.encode(errors="replace")) <= _LONGEST_NAME:
        expected = f"a plain file name (no / or \\, no leading dot, at most {_LONGEST_NAME} bytes)"
        raise InputError("image", repr(image_id[:100]), expected, "Rename the scan.")
    return image_id


@contextlib.contextmanager
def upload_removed_on_error(path: str | PathLike[str]) -> Iterator[None]:
    """Removes an uploaded file when what is done with it fails.

    MONAI Label has it removed after its answer, which does not happen after an exception. Only files that lie in the
    system's temporary folder itself are uploads.
    """
    try:
        yield
    except BaseException:
        file = Path(path)
        if file.is_absolute() and file.parent.resolve() == Path(tempfile.gettempdir()).resolve():
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        raise


def write_volume(path: Path, voxels: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> str:
    """Writes a NIfTI file in mm; gives its name."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, code=1)  # scanner; both are set, since programs differ in which they read
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return str(path)


def given_names(info: Any) -> list[Any]:
    """What the parameters of a request say of the label's values; [] for nothing.

    Raises:
        InputError: the parameters or their ``label_info`` have another form.
    """
    given = (info.get("label_info") if isinstance(info, dict) else info) or []
    if not isinstance(given, list):
        expected = 'a list such as [{"name": "dermis", "idx": 1}]'
        raise InputError("label_info", f"{given!r:.100}", expected, "Send such a list, or none.")
    return given


def _value_names(where: str, values: set[int], given: list[Any]) -> dict[int, str]:
    """Value in the file to name, for each entry of a client's list.

    The MONAI Label module of 3D Slicer (0.8.5) exports its segments as 1, 2, … in the order of the list it sends, with
    or without voxels, but counts ``idx`` over all segments, also those that it sends and exports neither of
    ("background" and the scribbles). So the position counts. Only where that cannot be, since values lie beyond the
    list or ``idx`` does not grow along it, does ``idx`` count, as other clients mean it.
    """
    entries = []
    for entry in given:
        name, index = (entry.get("name"), entry.get("idx")) if isinstance(entry, dict) else (entry, None)
        index = index if isinstance(index, int) and not isinstance(index, bool) else None
        if index != 0:  # the background, of clients that list it
            entries.append((str(name or ""), index))
    by_position = {position: name for position, (name, _) in enumerate(entries, start=1)}
    by_index = {index: name for name, index in entries if index is not None}
    indices = [index for _, index in entries if index is not None]
    growing = all(low < high for low, high in itertools.pairwise(indices))
    complete = len(by_index) == len(entries)
    if complete and values <= set(by_index) and not (growing and values <= set(by_position)):
        return by_index
    if not values <= set(by_position):
        nameless = listed([str(value) for value in sorted(values - set(by_position))])
        mend = "Send a name for each value, or no names."
        raise InputError(where, f"values without a name in label_info: {nameless}", "a name for each value", mend)
    return by_position


def _targets(value_names: Mapping[int, str], names: Mapping[int, str]) -> tuple[dict[int, int], dict[int, str]]:
    """Value in the file to label value, and the names of all label values: other names get values of their own."""
    result, targets = dict(names), {}
    for value, name in value_names.items():
        if name.lower() in _NO_LABELS:
            targets[value] = 0
            continue
        name = name or f"segment {value} without a name"
        target = label_value(name, result)
        if target is None:
            target = max(result) + 1
            result[target] = name
        targets[value] = target
    return targets, result


def renumbered(where: str, array: Labels, given: list[Any], names: Mapping[int, str]) -> tuple[Labels, dict[int, str]]:
    """Labels by the names that a client gave its values, and the names of all values in them.

    Args:
        where: named in errors.
        array: values as in the file.
        given: the client's list of ``name`` and ``idx``; empty: the values are taken as they are.
        names: label value to name.

    Raises:
        InputError: a value has no name.
    """
    if not given:
        return array, dict(names)
    values = {int(value) for value in np.unique(array) if value}
    targets, result = _targets(_value_names(where, values, given), names)
    table = np.zeros(256, np.uint8)
    for value, target in targets.items():
        if value in values:
            table[value] = target
    return table[array], result


def _segments(path: Path) -> tuple[sitk.ImageFileReader, list[dict[str, str]]]:
    """The segments that 3D Slicer's segmentation format (.seg.nrrd) lists in its header; [] for other files."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    found: list[dict[str, str]] = []
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return reader, found  # `read_volume` says what is wrong
    while (prefix := f"Segment{len(found)}_") + "LabelValue" in reader.GetMetaDataKeys():
        keys = [key for key in reader.GetMetaDataKeys() if key.startswith(prefix)]
        found.append({key[len(prefix) :]: reader.GetMetaData(key) for key in keys})
    return reader, found


def _merged(where: str, path: Path, names: Mapping[int, str]) -> tuple[Labels, VolumeHeader, dict[int, str]] | None:
    """The labels of a .seg.nrrd, whose layers become one; None: it is a plain volume.

    Every segment has its value, layer and name in the header; the list that a client sends does not count here.
    """
    reader, segments = _segments(path)
    if not segments:
        return None
    try:
        layers = sitk.GetArrayFromImage(reader.Execute()).T
        shape = layers.shape[-3:]
        layers = layers.reshape(-1, *shape)
        affine = np.eye(4)
        affine[:3, :3] = np.array(reader.GetDirection()).reshape(3, 3) * np.array(reader.GetSpacing())
        affine[:3, 3] = reader.GetOrigin()
        affine[:2] *= -1  # ITK positions are LPS, ours RAS
        places = [(int(item.get("Layer", 0)), int(item["LabelValue"])) for item in segments]
        masks = [layers[layer] == value for layer, value in places]
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].replace(str(path), "it")
        found = f"a segmentation that cannot be read ({reason})"
        raise InputError(where, found, "layers and segments", "Save it again.") from error
    targets, result = _targets(dict(enumerate(item.get("Name", "") for item in segments)), names)
    labels = np.zeros(shape, np.uint8)
    for index, mask in enumerate(masks):
        if not targets[index]:
            continue
        shared = mask & (labels != 0) & (labels != targets[index])
        if shared.any():
            other = result[int(labels[shared][0])]
            found = f"{int(shared.sum())} voxels that are both {other} and {result[targets[index]]}"
            mend = "Let the segments overwrite each other (Segment Editor, Masking, Modify other segments)."
            raise InputError(where, found, "one label for each voxel", mend)
        labels[mask] = targets[index]
    return labels, VolumeHeader((shape[0], shape[1], shape[2]), affine), result


def read_saved(
    path: str | PathLike[str], where: str, given: list[Any], names: Mapping[int, str], grid: VolumeHeader
) -> SavedLabel:
    """Reads a label that a client sent.

    Args:
        path: a volume as `read_volume` reads it, or 3D Slicer's .seg.nrrd.
        where: named in errors in place of the file, which is a temporary one.
        given: the client's list of names, as in `renumbered`; a .seg.nrrd has its own.
        names: label value to name; without the client's names only these values are taken.
        grid: of the scan; the label may have its voxels in another order, or be cropped.

    Raises:
        InputError: it cannot be read, has other values, segments that overlap, or another grid.
    """
    path = Path(path)
    try:
        merged = _merged(where, path, names) if path.name.lower().endswith(".nrrd") and path.is_file() else None
        if merged is None:
            volume = read_volume(path, kind="label", num_classes=256 if given else max(names) + 1)
            read = np.asarray(volume[0])
            array, result = renumbered(where, read, given, names)
            affine = np.asarray(volume.affine, dtype=np.float64)
            same = array is read or np.array_equal(array, read)
        else:
            array, header, result = merged
            affine, same = header.affine, False
        labels = labels_on_grid(where, array, affine, grid.shape, grid.affine)
    except InputError as error:
        if error.where != str(path):
            raise
        # Decoders quote the file's name.
        raise InputError(where, error.found.replace(str(path), "it"), error.expected, error.mend) from error
    on_grid = array.shape == grid.shape and np.allclose(affine, grid.affine, rtol=0, atol=1e-6)  # for 1000 voxels
    return SavedLabel(labels, result, same and on_grid)


def names_of_values(labels: Labels, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Name and value of what is in a label, in the form in which clients send it."""
    return [{"name": names[int(value)], "idx": int(value)} for value in np.unique(labels) if value]


def write_segmentation(
    path: Path, label: SavedLabel, source: Sequence[Path], affine: Any, placement: Mapping[str, Any] | None
) -> str:
    """Writes a label as a DICOM segmentation that a person had a hand in; gives its Series Instance UID.

    Args:
        path: file to write.
        label: on the grid of its scan.
        source: the scan's files.
        affine: of the scan.
        placement: of the scan in its files, as `write_dicom_seg` takes it.

    Raises:
        InputError: the label is all background, or does not fit the files.
    """
    import pydicom

    from grn_monai.dicom.seg import write_dicom_seg

    layers = set(LAYER_NAMES.values()) <= set(label.names.values())
    description = f"{'Tissue layers' if layers else 'Muscles'} of the back (MONAI Label)"
    write_dicom_seg(label.labels, source, path, affine, placement, names=label.names, series_description=description)
    dataset = pydicom.dcmread(path)
    for segment in dataset.SegmentSequence:
        segment.SegmentAlgorithmType = "SEMIAUTOMATIC"
    dataset.ContentDescription = "Label saved in MONAI Label"
    dataset.save_as(path)
    return str(dataset.SeriesInstanceUID)
