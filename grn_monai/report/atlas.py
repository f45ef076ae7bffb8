"""Pictures of one scan for the page: slices of both depth planes, their labels, and the thickness of each layer.

Grey slices become one lossy picture a plane (a sprite atlas). Labels and thickness go in as deflated bytes, not as a
picture: a browser that guards against fingerprinting changes the pixels that a page reads back from a canvas.
"""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from grn_monai.measure import thickness_map
from grn_monai.metrics.overlap import PLANE_AXES
from grn_monai.report.page import file_name
from grn_monai.report.panels import data_uri, grey_range, overlay, to_isotropic

__all__ = [
    "ANATOMICAL_PLANES",
    "MAX_MAPS",
    "MAX_PIXELS",
    "SCAN_PLANES",
    "Plane",
    "ScanPictures",
    "Still",
    "even_slices",
    "picture_uri",
    "scan_pictures",
    "slice_atlas",
]

Bytes = npt.NDArray[np.uint8]

MAX_PIXELS = 400
"""Pixels of a slice or map along one side; a finer grid is thinned by a whole factor."""

MAX_MAPS = 24
"""Layers with a thickness map, the largest of a scan first."""

QUALITY = 60
"""Of the lossy picture, 0–100: about 5 grey levels of 256 on speckle, at a third of the size of PNG."""

_BLOCK = 16  # tiles are whole coding blocks, so that no slice leaks into its neighbour


class Plane(NamedTuple):
    """A plane of slices: the axis it fixes, those drawn downwards and to the right, and the names of these three."""

    title: str
    axis: int
    down: int
    across: int
    names: tuple[str, str, str]


SCAN_PLANES = (
    Plane("Sagittal", PLANE_AXES["sagittal"], 2, 1, ("x", "depth", "y")),
    Plane("Transverse", PLANE_AXES["transverse"], 2, 0, ("y", "depth", "x")),
)
"""Both depth planes of a scan (X, Y, Z), Z = depth: the skin is at the top."""

ANATOMICAL_PLANES = (
    Plane("Sagittal", 0, 2, 1, ("right to left", "head to feet", "anterior to posterior")),
    Plane("Axial", 2, 1, 0, ("head to feet", "anterior to posterior", "right to left")),
)
"""Of a volume whose axes run to the left, posterior and inferior: the patient's right is on the left of the picture."""


class Still(NamedTuple):
    """A picture of one slice with its layers: data URI, and in mm its width and that of the scale bar."""

    uri: str
    width_mm: float
    bar_mm: int


@dataclass
class ScanPictures:
    """What the page holds of one scan.

    Attributes:
        content: JSON-ready content for the viewer; empty where nothing could be read.
        stills: title of the plane to the middle slice, for a page without JavaScript.
        notes: what is missing or does not fit.
    """

    content: dict[str, Any] = field(default_factory=dict)
    stills: dict[str, Still] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def even_slices(size: int, count: int) -> list[int]:
    """At most `count` of `size` slices, evenly spaced, each the middle one of its share."""
    count = min(size, count)
    return [(2 * i + 1) * size // (2 * count) for i in range(count)]


def picture_uri(picture: Bytes) -> str:
    """A grey (H, W) or RGB (H, W, 3) picture as data URI: WebP, or JPEG where Pillow lacks WebP."""
    from PIL import Image, features

    kind = "webp" if features.check("webp") else "jpeg"
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, quality=QUALITY)
    return data_uri(buffer.getvalue(), kind)


def _deflated(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode("ascii")


def _tiled(slices: Bytes) -> tuple[Bytes, int]:
    """Slices (N, H, W) side by side in one picture, and how many stand in a row."""
    n, height, width = slices.shape
    padded = np.pad(slices, ((0, 0), (0, -height % _BLOCK), (0, -width % _BLOCK)), mode="edge")
    height, width = padded.shape[1:]
    columns = min(n, max(1, round(math.sqrt(n * height / width))))
    rows = -(-n // columns)
    filled = np.concatenate([padded, np.zeros((rows * columns - n, height, width), np.uint8)])
    picture = filled.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    return picture, columns


def _thin(size: int) -> int:
    return -(-size // MAX_PIXELS)


def _means(slices: npt.NDArray[Any], factors: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Slices (N, A, B), A and B multiples of the factors, averaged over blocks."""
    n, a, b = slices.shape
    f, g = factors
    means: npt.NDArray[np.float32] = slices.reshape(n, a // f, f, b // g, g).mean((2, 4), dtype=np.float32)
    return means


def slice_atlas(
    image: npt.NDArray[Any],
    labels: npt.NDArray[np.uint8],
    plane: Plane,
    spacing: Sequence[float],
    count: int,
    grey: tuple[float, float],
) -> dict[str, Any]:
    """Evenly spaced slices of one plane as the viewer reads them.

    Args:
        image: grey values (X, Y, Z).
        labels: labels (X, Y, Z).
        plane: which axes to fix, to draw downwards and to the right.
        spacing: voxel size (X, Y, Z) in mm.
        count: slices wanted.
        grey: grey values shown black and white.

    Returns:
        `image`: data URI of the atlas, `columns` tiles of `tile` (width, height) pixels in a row; `labels`: base64 of
        the deflated (N, height, width) bytes; `width`, `height`: pixels of a slice; `width_mm`, `height_mm`, and
        `bar_mm` of the scale bar; `indices` and `positions` (mm, voxel centres) of the slices; `of`, `of_mm`: how many
        the scan has, and their extent; `title` and `names` of the plane.
    """
    axis = plane.axis
    indices = even_slices(image.shape[axis], count)
    rows, columns = image.shape[plane.down], image.shape[plane.across]
    f, g = _thin(rows), _thin(columns)

    def cut(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        slices = volume.take(indices, axis).transpose(axis, plane.down, plane.across)
        return slices[:, : rows // f * f, : columns // g * g]

    low, high = grey
    scaled = np.clip((_means(cut(image), (f, g)) - low) / (high - low), 0, 1)
    pixels = (scaled * 255).round().astype(np.uint8)
    values = cut(labels)[:, f // 2 :: f, g // 2 :: g]
    atlas, in_row = _tiled(pixels)
    height, width = pixels.shape[1:]
    return {
        "title": plane.title,
        "names": list(plane.names),
        "image": picture_uri(atlas),
        "columns": in_row,
        "tile": [width + -width % _BLOCK, height + -height % _BLOCK],
        "labels": _deflated(values),
        "width": width,
        "height": height,
        "width_mm": round(width * g * spacing[plane.across], 4),
        "height_mm": round(height * f * spacing[plane.down], 4),
        "bar_mm": _bar(columns * spacing[plane.across]),
        "indices": indices,
        "positions": [round((i + 0.5) * spacing[axis], 3) for i in indices],
        "of": image.shape[axis],
        "of_mm": round(image.shape[axis] * spacing[axis], 4),
    }


def _worth_showing(planes: Sequence[Plane], shape: Sequence[int]) -> list[Plane]:
    """The planes whose slices are more than one voxel wide and high; all where none is."""
    return [plane for plane in planes if min(shape[plane.down], shape[plane.across]) > 1] or list(planes)


def _thickness(labels: npt.NDArray[np.uint8], wanted: Sequence[int], spacing: Sequence[float]) -> dict[str, Any]:
    """Maps of the layers present, as whole numbers of voxels along the A-line, X to the right and Y downwards.

    Of a single slice they are one voxel wide or high; the viewer draws them as curves.
    """
    counts = sum((np.bincount(slab.ravel(), minlength=256) for slab in labels), np.zeros(256, np.int64))
    present = sorted((v for v in wanted if counts[v]), key=lambda v: -counts[v])[:MAX_MAPS]
    f, g = _thin(labels.shape[0]), _thin(labels.shape[1])
    thinned = labels[f // 2 :: f, g // 2 :: g]
    kind = "<u1" if labels.shape[2] < 256 else "<u2"
    maps = [np.rint(thickness_map(thinned, v, spacing[2]) / spacing[2]).astype(kind).T for v in sorted(present)]
    return {
        "labels": sorted(present),
        "values": _deflated(np.stack(maps)) if maps else "",
        "bytes": np.dtype(kind).itemsize,
        "step_mm": spacing[2],
        "width": thinned.shape[0],
        "height": thinned.shape[1],
        "width_mm": round(thinned.shape[0] * f * spacing[0], 4),
        "height_mm": round(thinned.shape[1] * g * spacing[1], 4),
        "left_out": sum(bool(counts[v]) for v in wanted) - len(present),
    }


def _bar(width_mm: float) -> int:
    """Length of the scale bar in mm: 5, or 50 where the slice is wider than 100."""
    return 50 if width_mm > 100 else 5


def _still(
    image: npt.NDArray[Any],
    labels: Bytes,
    plane: Plane,
    spacing: Sequence[float],
    grey: tuple[float, float],
    lut: Bytes,
) -> Still:
    index, steps = image.shape[plane.axis] // 2, (spacing[plane.across], spacing[plane.down])
    width, height = image.shape[plane.across] * steps[0], image.shape[plane.down] * steps[1]
    pixel = max(min(steps), max(width, height) / MAX_PIXELS)

    def cut(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        flat = volume.take(index, plane.axis)
        return to_isotropic(flat if plane.across < plane.down else flat.T, steps, pixel)

    picture = np.clip((cut(image) - grey[0]) / (grey[1] - grey[0]), 0, 1)
    shown = overlay(picture, cut(labels), lut)
    # A coarse grid is drawn larger, since the colours of a lossy picture have half the resolution of its grey.
    times = max(1, MAX_PIXELS // max(shown.shape[:2]))
    return Still(picture_uri(shown.repeat(times, 0).repeat(times, 1)), round(width, 4), _bar(width))


def _anatomical(image: npt.NDArray[Any], labels: Bytes, affine: npt.ArrayLike) -> tuple[Any, Any, list[int]]:
    """Both volumes with axes running (nearly) to the left, posterior and inferior, and the axes they came from."""
    import nibabel as nib

    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(np.asarray(affine)), nib.orientations.axcodes2ornt(("L", "P", "I"))
    )
    order = [int(i) for i in np.argsort(turn[:, 0])]
    return *(nib.orientations.apply_orientation(volume, turn) for volume in (image, labels)), order


def scan_pictures(
    image_path: str | Path | None,
    label_path: str | Path | None,
    names: Mapping[int, str],
    lut: Bytes,
    slices: int = 24,
    depth: tuple[int | str, bool] | None = (2, False),
) -> ScanPictures:
    """Read a scan and its segmentation once and make everything the page shows of them.

    Args:
        image_path: volume of the scan.
        label_path: its segmentation, on the same grid, values 0 to 255.
        names: label value to name of the layers to show.
        lut: (256, 3) RGB of the label values.
        slices: slices of each plane.
        depth: where depth runs in the files and whether it decreases along that axis, see
            `grn_monai.transforms.DepthLast`. None for labels that are no layers: axial and sagittal slices as
            radiology shows them, and no thickness.

    Returns:
        The pictures; what cannot be read or does not fit is a note.
    """
    from grn_monai.data.pairs import open_scan
    from grn_monai.transforms import DepthLast

    found = ScanPictures()
    if not image_path or not label_path:
        found.notes.append(f"No pictures: the measurements name no {'segmentation' if image_path else 'image'}.")
        return found
    try:
        scan = open_scan(image_path, None if depth is None else DepthLast(*depth))
        voxels, values = scan.values, scan.labels(label_path, 256)
    except (ValueError, OSError) as error:
        line = str(error)
        for path in map(Path, (image_path, label_path)):
            line = line.replace(str(path), file_name(path))
        found.notes.append(f"No pictures: {line}")
        return found
    spacing, planes = scan.spacing_mm, SCAN_PLANES
    if depth is None:
        voxels, values, order = _anatomical(voxels, values, scan.affine)
        spacing, planes = [spacing[i] for i in order], ANATOMICAL_PLANES
    shown = _worth_showing(planes, voxels.shape)
    grey = grey_range(voxels)
    found.content["planes"] = [slice_atlas(voxels, values, plane, spacing, slices, grey) for plane in shown]
    found.stills = {plane.title: _still(voxels, values, plane, spacing, grey, lut) for plane in shown}
    found.content["thickness"] = None
    if depth is not None:
        maps = found.content["thickness"] = _thickness(values, list(names), spacing)
        if maps["left_out"]:
            found.notes.append(f"Thickness maps of the {MAX_MAPS} largest layers; {maps['left_out']} have none.")
    return found
