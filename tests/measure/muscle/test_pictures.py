"""Pictures: sides where a radiologist expects them, and surfaces of the right size and place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grn_monai.labels import MUSCLE_COLOURS
from grn_monai.measure.muscle.frame import AxialFrame
from grn_monai.measure.muscle.pictures import muscle_colours, shown_slices, write_overlay
from grn_monai.measure.muscle.scan import measure_muscles
from grn_monai.measure.muscle.settings import MuscleSettings
from tests.measure.muscle.test_scan import AFFINE, NAMES, boxes


def mean_column(picture: Path, colour: str, width: float = 1.0) -> float:
    """Mean column of the pixels of about a colour, within the left share of the picture."""
    rgb = np.asarray(Image.open(picture).convert("RGB")).astype(float)
    rgb = rgb[:, : int(rgb.shape[1] * width)]
    near = np.abs(rgb - [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).sum(axis=2) < 60
    assert near.any()
    return float(np.nonzero(near)[1].mean())


def test_overlay_has_the_persons_right_on_the_left(tmp_path: Path) -> None:
    labels, hu = boxes()
    measured = measure_muscles(labels, hu, AFFINE, NAMES, "ct")
    slices = shown_slices(measured.numbers)
    assert slices == {2: "largest area"}
    frame = AxialFrame(AFFINE, labels.shape)
    write_overlay(tmp_path / "o.png", "x", labels, measured, NAMES, frame, slices, MuscleSettings())
    # The legend, which has the colours too, lies in the right third.
    left, right = (mean_column(tmp_path / "o.png", MUSCLE_COLOURS[NAMES[k]], 0.6) for k in (1, 2))
    assert right < left


def test_levels_choose_the_slices() -> None:
    labels, hu = boxes()
    levels = {"L3": 120, "L4": 110, "disc": 111, "L9": 999}
    numbers = measure_muscles(labels, hu, AFFINE, NAMES, "ct", None, levels).numbers
    assert shown_slices(numbers) == {4: "L3", 2: "L4, disc"}


def test_colours_of_other_names() -> None:
    found = muscle_colours({1: "psoas left", 2: "gluteus", 3: "soleus"})
    assert found[1] == MUSCLE_COLOURS["psoas left"]
    assert len(set(found.values())) == 3


def test_surfaces(tmp_path: Path) -> None:
    pytest.importorskip("pyvista")
    from grn_monai.measure.muscle.surfaces import muscle_surface, write_surfaces

    labels = np.zeros((40, 30, 24), np.uint8)
    labels[4:14, 8:22, 4:20] = 1
    labels[26:36, 8:22, 4:20] = 2
    affine = np.diag([2.0, 2, 2, 1])
    frame = AxialFrame(affine, labels.shape)
    surface = muscle_surface(labels, 2, frame)
    assert surface.volume == pytest.approx((labels == 2).sum() * 8, rel=0.05)
    np.testing.assert_allclose(surface.center, [61, 29, 23], atol=0.5)
    assert muscle_surface(labels, 3, frame) is None
    write_surfaces(tmp_path / "s.png", "x", labels, NAMES, frame)
    # The first view is from the front: the person's right on the left.
    left, right = (mean_column(tmp_path / "s.png", MUSCLE_COLOURS[NAMES[k]], 0.5) for k in (1, 2))
    assert right < left
