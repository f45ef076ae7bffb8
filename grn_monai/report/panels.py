"""Slice pictures of one scan: the scan, the truth, every prediction, and where they differ, as inline PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grn_monai.labels import LAYERS
from grn_monai.metrics.folders import find_prediction
from grn_monai.metrics.overlap import PLANE_AXES, dice_per_slice
from grn_monai.report.load import Method
from grn_monai.report.palette import ERROR_COLOUR, layer_lut

__all__ = [
    "Panel",
    "PlaneView",
    "ScanVolumes",
    "data_uri",
    "grey_range",
    "load_scan",
    "overlay",
    "plane_view",
    "png_uri",
    "to_isotropic",
]

Labels = npt.NDArray[np.integer]
Rgb = npt.NDArray[np.uint8]
_FILL = 0.42  # opacity of a layer's colour over the scan; its outline is opaque


@dataclass
class ScanVolumes:
    """What there is of one scan; all arrays (X, Y, Z) on one grid.

    Attributes:
        image: grey values scaled to 0–1.
        truth: true labels, or None.
        predictions: method name to labels.
        enhanced: method name to the generator's image, scaled to 0–1.
        spacing: voxel size (X, Y, Z) in mm.
        notes: what is missing or does not fit.
    """

    image: npt.NDArray[np.float32]
    truth: Labels | None
    predictions: dict[str, Labels]
    enhanced: dict[str, npt.NDArray[np.float32]]
    spacing: tuple[float, float, float]
    notes: list[str]


@dataclass(frozen=True)
class Panel:
    """One picture: its title, a line below it, and the PNG as data URI."""

    title: str
    detail: str
    uri: str


@dataclass(frozen=True)
class PlaneView:
    """Pictures of one slice in two rows; None leaves a place empty. `bar` is the 5 mm bar as % of the width."""

    plane: str
    index: int
    position_mm: float
    aspect: float
    bar: float
    rows: Sequence[Sequence[Panel | None]]


def grey_range(volume: npt.NDArray[Any]) -> tuple[float, float]:
    """What is shown black and white: the 0.5th and 99.5th percentile, so that one bright voxel does not darken all."""
    low, high = np.percentile(volume[::2, ::2, ::2], [0.5, 99.5])
    return float(low), max(float(high), float(low) + 1e-6)


def _window(volume: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    low, high = grey_range(volume)
    scaled = (volume - low) / (high - low)
    return np.clip(scaled, 0, 1).astype(np.float32)


def load_scan(
    item: dict[str, Any], methods: Sequence[Method], depth_axis: int | str = 2, depth_reversed: bool = False
) -> ScanVolumes:
    """Read a scan, its truth and every method's labels; what cannot be read becomes a note.

    Args:
        item: cohort item with absolute paths.
        methods: evaluations whose predictions to read.
        depth_axis: where depth runs in the files, see `grn_monai.transforms.DepthLast`.
        depth_reversed: whether depth decreases along that axis.

    Returns:
        The volumes, in the scan frame.

    Raises:
        InputError: if the scan itself cannot be read.
    """
    from grn_monai.data.pairs import open_scan
    from grn_monai.data.volume import check_same_geometry, scan_name
    from grn_monai.transforms import DepthLast

    orient = DepthLast(depth_axis, depth_reversed)
    image = open_scan(item["image"], orient)
    x, y, z = image.spacing_mm
    scan = ScanVolumes(_window(image.values), None, {}, {}, (x, y, z), [])

    def read_enhanced(path: Path) -> npt.NDArray[Any]:
        other = open_scan(path, orient)
        check_same_geometry(image.header, other.header, item["image"], path)
        return other.values

    try:
        scan.truth = image.labels(item["label"]) if item.get("label") else None
    except (ValueError, OSError) as error:
        scan.notes.append(f"Truth: {error}")
    for method in methods:
        try:
            scan.predictions[method.name] = image.labels(find_prediction(method.predictions, item["image"]))
        except (ValueError, OSError) as error:
            scan.notes.append(f"{method.title}: {error}")
        enhanced = method.predictions / f"{scan_name(item['image'])}_enhanced.nii.gz"
        if enhanced.is_file():  # only methods with a generator write one
            try:
                scan.enhanced[method.name] = _window(read_enhanced(enhanced))
            except (ValueError, OSError) as error:
                scan.notes.append(f"{method.title}: {error}")
    return scan


def to_isotropic(plane: npt.NDArray[Any], spacing: tuple[float, float], pixel: float) -> npt.NDArray[Any]:
    """A (lateral, depth) slice as (rows = depth, columns = lateral) picture with square pixels of `pixel` mm.

    Nearest neighbour: labels stay labels, and a grey value shown is one that was measured.
    """
    picked = []
    for size, step in zip(plane.shape, spacing, strict=True):
        centres = (np.arange(max(1, round(size * step / pixel))) + 0.5) * pixel / step
        picked.append(np.minimum(centres.astype(int), size - 1))
    return plane[np.ix_(*picked)].T


def _grey(picture: npt.NDArray[Any]) -> Rgb:
    return np.repeat((picture * 255).round().astype(np.uint8)[..., None], 3, axis=-1)


def overlay(picture: npt.NDArray[Any], labels: Labels, lut: Rgb | None = None) -> Rgb:
    """A grey picture (H, W) in 0–1 with the layers of `labels` (H, W) tinted and outlined, as RGB 0–255.

    `lut` holds the colour of each label value, (N, 3) RGB; default: that of the six layers.
    """
    tint = (layer_lut() if lut is None else lut)[labels].astype(np.float32)
    rgb = _grey(picture).astype(np.float32)
    inside = (labels > 0)[..., None]
    rgb = np.where(inside, (1 - _FILL) * rgb + _FILL * tint, rgb)
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return np.where(edge[..., None] & inside, tint, rgb).round().astype(np.uint8)


def _differences(picture: npt.NDArray[Any], wrong: npt.NDArray[np.bool_]) -> Rgb:
    colour = np.array([int(ERROR_COLOUR[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
    return np.where(wrong[..., None], colour, _grey(picture * 0.75))


def data_uri(content: bytes, kind: str = "png") -> str:
    """The bytes of an image file of that kind as `data:image/KIND;base64,…`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def png_uri(rgb: Rgb) -> str:
    """An RGB picture (H, W, 3) 0–255 as `data:image/png;base64,…`."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, rgb, format="png")
    return data_uri(buffer.getvalue())


def plane_view(scan: ScanVolumes, plane: str, methods: Sequence[Method]) -> PlaneView:
    """Pictures of the middle slice of one plane.

    Args:
        scan: volumes of the scan.
        plane: "sagittal" or "transverse".
        methods: order of the predictions; those without one leave their place empty.

    Returns:
        Above: scan, truth, predictions with the Dice of the slice; below: enhanced scan, pixels that differ.
    """
    axis = PLANE_AXES[plane]
    index = scan.image.shape[axis] // 2
    lateral, depth = scan.spacing[1 - axis], scan.spacing[2]

    def cut(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return to_isotropic(volume.take(index, axis), (lateral, depth), min(lateral, depth))

    picture = cut(scan.image)
    true = None if scan.truth is None else cut(scan.truth)
    above: list[Panel | None] = [Panel("Scan", "", png_uri(_grey(picture)))]
    above.append(None if true is None else Panel("Truth", "", png_uri(overlay(picture, true))))
    below: list[Panel | None] = [
        next((Panel("Enhanced by G", "", png_uri(_grey(cut(v)))) for v in scan.enhanced.values()), None),
        None,
    ]
    for method in methods:
        labels = scan.predictions.get(method.name)
        if labels is None:
            above.append(None)
            below.append(None)
            continue
        predicted, detail, wrong_detail = cut(labels), "", ""
        if scan.truth is not None and true is not None:
            pair = [volume.take([index], axis) for volume in (labels, scan.truth)]
            detail = f"Dice {100 * dice_per_slice(pair[0], pair[1], plane, LAYERS).mean():.1f} %"
            wrong = predicted != true
            wrong_detail = f"{100 * np.not_equal(*pair).mean():.1f} % of slice"
            below.append(Panel("Errors", wrong_detail, png_uri(_differences(picture, wrong))))
        else:
            below.append(None)
        above.append(Panel(method.title, detail, png_uri(overlay(picture, predicted))))
    rows = [row for row in (above, below) if any(row)]
    height, width = picture.shape
    width_mm = scan.image.shape[1 - axis] * lateral
    return PlaneView(plane, index, (index + 0.5) * scan.spacing[axis], width / height, 100 * 5 / width_mm, rows)
