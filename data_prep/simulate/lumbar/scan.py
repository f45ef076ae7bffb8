"""One simulated CT or MR scan: image, label, geometry and what is true of its muscles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.files import write_json, write_nifti
from data_prep.simulate.grid import Array
from data_prep.simulate.lumbar.acquisition import Acquisition, LayeredField, draw_acquisition
from data_prep.simulate.lumbar.canvas import Canvas
from data_prep.simulate.lumbar.images import finish_ct, finish_mri, paint_table, tissue_values
from data_prep.simulate.lumbar.muscles import MuscleShapes
from data_prep.simulate.lumbar.settings import LumbarSettings
from data_prep.simulate.lumbar.spine import column_depth, paint_spine
from data_prep.simulate.lumbar.subject import LumbarSubject, draw_lumbar_subject
from data_prep.simulate.lumbar.tissues import Tissue
from data_prep.simulate.lumbar.trunk import paint_ilium, paint_trunk
from grn_monai.labels import CT_MUSCLES, MRI_MUSCLES

__all__ = ["LumbarVolume", "Phantom", "label_names", "simulate_volume", "write_volume"]

_CT_OF_MRI = {1: 1, 2: 2, 3: 1, 4: 2, 5: 3, 6: 4}
"""Multifidus and erector spinae are the autochthonous muscles, psoas is (most of) the iliopsoas."""

_ANNOTATOR_MM = 0.4
_BONES = (Tissue.CORTICAL_BONE, Tissue.CANCELLOUS_BONE)


def label_names(modality: str) -> dict[int, str]:
    """Label value to name."""
    return CT_MUSCLES if modality == "ct" else MRI_MUSCLES


@dataclass(frozen=True)
class LumbarVolume:
    """A simulated scan.

    Args:
        image: (X, Y, Z) int16, HU or arbitrary units.
        label: (X, Y, Z) uint8.
        affine: voxel to world (mm, RAS+).
        truth: of each muscle, volume in ml and share of fat.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    truth: dict[str, Any]


class Phantom:
    """The noiseless tissue map of a subject on the fine grid of a scan, plane by plane from below.

    Args:
        settings: of the cohort.
        number: of the subject, from 1.
    """

    def __init__(self, settings: LumbarSettings, number: int) -> None:
        self.settings = settings
        self.subject: LumbarSubject = draw_lumbar_subject(settings.seed, number)
        self.acquisition: Acquisition = draw_acquisition(settings, self.subject)
        self.x, self.y, self.z = (self.acquisition.fine_positions(axis) for axis in range(3))
        self._shapes = MuscleShapes(self.subject, self.z)
        self._fields = [
            self._field(number, k, *lengths)
            for k, lengths in enumerate(((1.5, 3.0, 14.0), (2.0, 2.0, 12.0), (4.0, 4.0, 8.0)))
        ]

    def _field(self, number: int, k: int, sx: float, sy: float, step: float) -> LayeredField:
        rng = np.random.default_rng(np.random.SeedSequence(self.settings.seed, spawn_key=(7, number, 2, k)))
        dx, dy = float(self.x[1] - self.x[0]), float(self.y[1] - self.y[0])
        shape = (len(self.x), len(self.y))
        return LayeredField(rng, shape, (sx / dx, sy / dy), float(self.z[0]), step)

    def plane(self, i: int) -> tuple[Canvas, Array]:
        """Paint the i-th plane of the fine grid; planes are asked for in ascending order.

        Returns:
            Tissue and muscles, and a texture of mean 0 and variance 1, (X, Y).
        """
        z = float(self.z[i])
        canvas = Canvas(self.x, self.y)
        streaks, blots, jitter = (field.at(z) for field in self._fields)
        wall = paint_trunk(self.subject, canvas, z)
        column = column_depth(self.subject, canvas, z)
        self._shapes.paint(canvas, i, wall, column, np.float32(_ANNOTATOR_MM) * jitter, (streaks, blots))
        paint_ilium(self.subject, canvas, z)
        paint_spine(self.subject, canvas, z)
        still = (canvas.tissue == Tissue.MUSCLE) | (canvas.tissue == Tissue.MUSCLE_FAT)
        canvas.muscle[~still] = 0
        canvas.drawn[np.isin(canvas.tissue, _BONES)] = 0
        if self.settings.modality == "ct":
            paint_table(canvas.tissue, self.x, self.y, self.subject)
        return canvas, blots


def simulate_volume(settings: LumbarSettings, number: int) -> LumbarVolume:
    """Simulate the scan of subject `number`; the result depends on this and the settings alone."""
    phantom = Phantom(settings, number)
    scan = phantom.acquisition
    nx, ny, nz = scan.shape
    mean_of, spread_of = tissue_values(settings.modality, scan)
    names = label_names(settings.modality)
    code = np.arange(7, dtype=np.uint8)
    if settings.modality == "ct":
        code = np.array([0, *(_CT_OF_MRI[m] for m in range(1, 7))], np.uint8)
    mean = np.zeros((nx, ny, nz), np.float32)
    label = np.zeros((nx, ny, nz), np.uint8)
    counts = np.zeros((2, 7), np.int64)  # samples of each muscle, and those of fat among them
    parts = scan.sub_slices
    for k in range(nz):
        votes = np.zeros((len(names), nx, ny), np.int64)
        for i in range(k * parts, (k + 1) * parts):
            canvas, texture = phantom.plane(i)
            values = mean_of[canvas.tissue] + spread_of[canvas.tissue] * texture
            mean[..., k] += _blocks(values, scan.sub_pixels) / (parts * scan.sub_pixels**2)
            counts[0] += np.bincount(canvas.muscle.ravel(), minlength=7)
            counts[1] += np.bincount(canvas.muscle[canvas.tissue == Tissue.MUSCLE_FAT], minlength=7)
            drawn = code[canvas.drawn]
            for value in range(1, len(names)):
                votes[value] += _blocks(drawn == value, scan.sub_pixels)
        votes[0] = parts * scan.sub_pixels**2 - votes[1:].sum(0)
        label[..., k] = votes.argmax(0)
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(7, number, 3)))
    image = finish_ct(mean, scan, rng) if settings.modality == "ct" else finish_mri(mean, scan, phantom.subject, rng)
    voxel_ml = float(np.prod(scan.spacing_mm)) / (parts * scan.sub_pixels**2) / 1000
    return LumbarVolume(image, label, scan.affine, _truth(counts, code, names, voxel_ml))


def _blocks(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """Sum of the samples in each pixel."""
    if side == 1:
        return plane
    nx, ny = plane.shape
    total: NDArray[Any] = plane.reshape(nx // side, side, ny // side, side).sum((1, 3))
    return total


def _truth(
    counts: NDArray[np.int64], code: NDArray[np.uint8], names: dict[int, str], voxel_ml: float
) -> dict[str, Any]:
    """Volume and fat share of each labelled muscle; a muscle out of view has no fat share."""
    truth: dict[str, Any] = {}
    for value, name in names.items():
        if value:
            samples, fat = (int(row[code == value].sum()) for row in counts)
            share = round(fat / samples, 6) if samples else None
            truth[name] = {"volume_ml": round(samples * voxel_ml, 4), "fat_share": share}
    return truth


def write_volume(image: Path, label: Path, truth: Path, settings: LumbarSettings, number: int) -> None:
    """Simulate a scan and write its files, the image last; a worker runs this."""
    volume = simulate_volume(settings, number)
    write_json(truth, volume.truth)
    write_nifti(label, volume.label, volume.affine)
    write_nifti(image, volume.image, volume.affine)
