"""What the generator does to whole scans: numbers and pictures, collected while an evaluator runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine, Events
from monai.data.utils import affine_to_spacing
from monai.engines.utils import IterationEvents

from grn_monai.errors import InputError
from grn_monai.files import replacing
from grn_monai.labels import LAYER_COLOURS, LAYER_NAMES
from grn_monai.metrics import EnhancementMeasure, ScanEnhancement
from grn_monai.transforms.slices import PLANES, plane_axis, slices_to_volume, take_slice, volume_to_slices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["EnhancementHandler", "PlaneCut", "enhancement_figure"]

PICTURES = "enhancement_pictures"
_ROLES = {
    "lowest": "lowest L1 distance of the scans",
    "median": "median L1 distance of the scans",
    "highest": "highest L1 distance of the scans",
    "only": "L1 distance",
}
_KEPT = 5  # scans whose slices are in memory: the extremes, and three near the median to choose from at the end
_BATCH = 32  # slices resized at a time


@dataclass(frozen=True)
class PlaneCut:
    """One slice of a scan.

    Attributes:
        plane: "sagittal" or "transverse".
        index: its position along the axis that the plane fixes.
        raw: (H, W) echo levels in [−1, 1], H = depth.
        enhanced: the same of G(x).
        labels: (H, W) true labels 0–6, or None.
        step_mm: (depth, lateral) size of a pixel.
    """

    plane: str
    index: int
    raw: npt.NDArray[np.float32]
    enhanced: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8] | None
    step_mm: tuple[float, float]


class EnhancementHandler:
    """Compare every scan with what the generator made of it, and write tables and pictures.

    Attach it to a ``ScanEvaluator`` over a ``ScanDataset``, with ``TwoPlaneInferer(return_enhanced=True)`` as inferer.
    Image and label have to be in the scan frame (depth last), the image in [−1, 1]. Scans without label give the L1
    distance and pictures only. The raw image is taken as the network sees it: cut into the slices of both planes,
    resized and put back like G(x). So a generator that changes nothing scores zero at every slice size, and the
    blur of resizing is not laid to its charge.

    It leaves, at the end of the run,

    * ``enhancement.json``: what ``EnhancementMeasure.summary`` gives, ``conventions``, and ``pictures``, a list of
      {``file``, ``role``, ``subject``, ``scan``, ``l1_percent``, ``plane``, ``index``};
    * ``enhancement.csv``: a row for each scan and layer, region or boundary;
    * ``enhancement_pictures/ROLE_PLANE.png``: middle slices of the scans with the lowest, the median and the highest
      L1 distance (ROLE; a single scan is ``only``). Slices of five scans are held at a time: from six scans on,
      ``median`` is the scan closest to it among those kept.

    Args:
        output_dir: folder of the files.
        band_mm: thickness in mm of the bands beside a boundary.
        region_mm: edge in mm of the box that decides whether a region is dark or bright.
        pictures: also draw the pictures.
        seed: seed of the bootstrap.

    Raises:
        InputError: when it runs with an inferer that does not return the enhanced image.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        band_mm: float = 1.0,
        region_mm: float = 2.0,
        pictures: bool = True,
        seed: int = 0,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.measure = EnhancementMeasure(band_mm=band_mm, region_mm=region_mm, seed=seed)
        self.pictures = pictures
        self._kept: list[tuple[ScanEnhancement, list[PlaneCut]]] = []

    def attach(self, engine: Engine) -> None:
        """Register on the evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        # Before the postprocessing, which moves the enhanced image to the geometry and the scale of the file.
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        if not getattr(engine.inferer, "return_enhanced", True):  # now, not after the first scan has taken its minutes
            raise _not_enhanced()
        self.measure.reset()
        self._kept.clear()

    def _collect(self, engine: Engine) -> None:
        output, batch = engine.state.output, engine.state.batch
        if "enhanced" not in output:
            raise _not_enhanced()
        affine = output["image"].affine
        # Indexing a batched MetaTensor changes the meta that it shares with the others, so plain tensors here.
        images, enhanced = output["image"].as_tensor(), output["enhanced"].as_tensor()
        truths = output["label"].as_tensor() if output.get("label") is not None else None
        for i, image in enumerate(images):
            raw = _seen(image, engine.inferer)[0].cpu().numpy()
            made = enhanced[i, 0].cpu().numpy()
            labels = None if truths is None else truths[i, 0].to(torch.uint8).cpu().numpy()
            spacing = affine_to_spacing(affine[i]).tolist()
            row = self.measure.add(str(batch["subject"][i]), str(batch["scan"][i]), raw, made, labels, spacing)
            if self.pictures:
                self._keep(row, [_cut(raw, made, labels, spacing, plane) for plane in PLANES])

    def _keep(self, row: ScanEnhancement, cuts: list[PlaneCut]) -> None:
        """Hold the slices of a scan; of six, drop the one furthest from the median that is not an extreme."""
        self._kept.append((row, cuts))
        self._kept.sort(key=lambda kept: kept[0].l1_percent)
        if len(self._kept) > _KEPT:
            del self._kept[max(range(1, _KEPT), key=self._off_median)]

    def _off_median(self, index: int) -> float:
        median = float(np.median([row.l1_percent for row in self.measure.scans]))
        return abs(self._kept[index][0].l1_percent - median)

    def _roles(self) -> dict[str, int]:
        """Role to index among the scans kept; a scan has one role."""
        last = len(self._kept) - 1
        if last < 1:
            return {"only": 0} if last == 0 else {}
        middle = {"median": min(range(1, last), key=self._off_median)} if last > 1 else {}
        return {"lowest": 0, **middle, "highest": last}

    def _write(self, engine: Engine) -> None:
        if not self.measure.scans:
            return
        drawn: list[dict[str, Any]] = []
        for role, index in self._roles().items():
            row, cuts = self._kept[index]
            for cut in cuts:
                file = f"{PICTURES}/{role}_{cut.plane}.png"
                title = f"Scan {row.scan}\n{cut.plane} slice {cut.index}, {_ROLES[role]}: {row.l1_percent:.1f} %"
                with replacing(self.output_dir / file) as temporary:
                    enhancement_figure(cut, title).savefig(temporary, dpi=144, metadata={"Software": None})
                entry = {"file": file, "role": role, "subject": row.subject, "scan": row.scan}
                drawn.append(entry | {"l1_percent": row.l1_percent, "plane": cut.plane, "index": cut.index})
        self._kept.clear()
        files = {entry["file"] for entry in drawn}
        for old in (f"{PICTURES}/{role}_{plane}.png" for role in _ROLES for plane in PLANES):
            if old not in files:  # left by an evaluation of other scans, it would pass for a picture of this one
                (self.output_dir / old).unlink(missing_ok=True)
        self.measure.write(self.output_dir, pictures=drawn)


def _not_enhanced() -> InputError:
    return InputError(
        "EnhancementHandler",
        "no enhanced image in the evaluator's output",
        "an inferer that returns it",
        "Set return_enhanced: true of TwoPlaneInferer and predict with a generator (sge: true), or leave the handler "
        "out (measure_enhancement: false).",
    )


def _seen(volume: torch.Tensor, inferer: Any) -> torch.Tensor:
    """A scan (C, X, Y, Z) after the inferer's way to slices and back, with nothing done to them."""
    size, planes = getattr(inferer, "size", None), getattr(inferer, "planes", ())
    if size is None or not planes:
        return volume
    seen = torch.zeros_like(volume)
    for plane in planes:
        axis = plane_axis(plane) + 1
        for start in range(0, volume.shape[axis], _BATCH):  # in batches, as the inferer does: only one is in memory
            slices = volume_to_slices(volume, plane, size, start=start, stop=start + _BATCH)
            part = slices_to_volume(slices, plane, volume.shape[1:])
            seen.narrow(axis, start, part.shape[axis]).add_(part, alpha=1 / len(planes))
    return seen


def _cut(
    raw: npt.NDArray[np.float32],
    enhanced: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8] | None,
    spacing: Sequence[float],
    plane: str,
) -> PlaneCut:
    """The middle slice of a plane; copies, so that the volumes can go."""
    axis = plane_axis(plane)
    index = raw.shape[axis] // 2
    parts = [None if v is None else take_slice(v[None], plane, index)[0].copy() for v in (raw, enhanced, labels)]
    return PlaneCut(plane, index, parts[0], parts[1], parts[2], (spacing[2], spacing[1 - axis]))  # type: ignore[arg-type]


def enhancement_figure(cut: PlaneCut, title: str) -> Figure:
    """Raw, enhanced and difference of one slice; with labels, a second row with the outlines of the layers.

    Raw and enhanced share one grey window, the whole dynamic range; the difference has a symmetric one of its own.

    Args:
        cut: the slice.
        title: heading of the figure.

    Returns:
        A figure that needs no display.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own settings are
        matplotlib.rcParams.update({"font.size": 7, "axes.titlesize": 8, "axes.linewidth": 0.5})
        height, width = (size * step for size, step in zip(cut.raw.shape, cut.step_mm, strict=True))
        rows = 1 if cut.labels is None else 2
        # One width for every scan, so that the text is of one size on a page; a panel is about 1.6 inches wide.
        figure = Figure(
            figsize=(6.4, rows * float(np.clip(1.6 * height / width, 1.0, 4.0)) + 0.9), layout="constrained"
        )
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, 3, squeeze=False, sharex=True, sharey=True)
        change = 50 * (cut.enhanced - cut.raw)
        bound = max(1.0, float(np.percentile(np.abs(change), 99)))
        grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 100}
        shown = [
            ("raw, as G sees it", 50 * (cut.raw + 1), grey),
            ("enhanced", 50 * (cut.enhanced + 1), grey),
            ("enhanced − raw", change, {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}),
        ]
        for row, axes_row in enumerate(grid):
            for axes, (name, picture, window) in zip(axes_row, shown, strict=True):
                drawn = axes.imshow(picture, extent=(0, width, height, 0), interpolation="nearest", **window)
                if row == 0:
                    axes.set_title(name)
                    if name != shown[0][0]:
                        label = "echo level (%)" if window is grey else "difference (%)"
                        # Beside the whole column, also of the second row, which has the same window.
                        column = grid[:, :2] if window is grey else grid[:, 2]
                        figure.colorbar(drawn, ax=column, shrink=0.7, aspect=35, pad=0.02, label=label)
                elif cut.labels is not None:
                    _outline(axes, cut.labels, cut.step_mm)
            axes_row[0].set_ylabel("depth (mm)")
        for axes in grid[-1]:
            axes.set_xlabel(f"{'y' if cut.plane == 'sagittal' else 'x'} (mm)")
        if cut.labels is not None:
            _legend(figure, cut.labels)
        figure.suptitle(title, fontsize=8)
    return figure


def _outline(axes: Axes, labels: npt.NDArray[np.uint8], step_mm: tuple[float, float]) -> None:
    """Thin outlines of the layers; where two meet, the line has the colour of the deeper."""
    y, x = ((np.arange(size) + 0.5) * step for size, step in zip(labels.shape, step_mm, strict=True))
    for label, colour in LAYER_COLOURS.items():
        mask = labels == label
        if mask.any() and not mask.all():
            axes.contour(x, y, mask, levels=[0.5], colors=[colour], linewidths=0.8)


def _legend(figure: Figure, labels: npt.NDArray[np.uint8]) -> None:
    from matplotlib.lines import Line2D

    there = [label for label in LAYER_COLOURS if (labels == label).any()]
    lines = [Line2D([], [], color=LAYER_COLOURS[label], lw=2, label=LAYER_NAMES[label]) for label in there]
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)
