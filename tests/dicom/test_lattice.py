"""Labels on other orders of the same voxels: against nibabel, and by looking positions up one by one."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest

from grn_monai.dicom.lattice import labels_on_frames, labels_on_grid, labels_on_planes
from grn_monai.errors import InputError

AFFINE = np.array([[0.0, -0.4, 0.0, 7.0], [0.3, 0.0, 0.0, -11.0], [0.0, 0.0, -0.5, 5.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (4, 5, 6)


def some_labels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 7, SHAPE).astype(np.uint8)


def orientations() -> list[np.ndarray]:
    turns = itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
    return [np.array(list(zip(order, flips, strict=True))) for order, flips in turns]


@pytest.mark.parametrize("turn", orientations())
def test_every_voxel_order_gives_the_same_labels(turn: np.ndarray) -> None:
    labels = some_labels()
    turned = nib.Nifti1Image(labels, AFFINE).as_reoriented(turn)
    array = np.asarray(turned.dataobj)
    assert np.array_equal(labels_on_grid("x", array, turned.affine, SHAPE, AFFINE), labels)
    planes = []
    for k in range(SHAPE[2]):
        plane = AFFINE.copy()
        plane[:3, 3] = AFFINE[:3] @ (0, 0, k, 1)
        plane[:3, 2] = (0, 0, 1)
        planes.append(plane)
    back = labels_on_planes("x", array, turned.affine, planes, SHAPE[1], SHAPE[0])
    assert np.array_equal(back, labels.transpose(2, 1, 0))


def test_a_part_of_the_scan_is_filled_up_with_background() -> None:
    labels = some_labels()
    part = AFFINE.copy()
    part[:3, 3] = AFFINE[:3] @ (1, 2, 1, 1)
    full = labels_on_grid("x", labels[1:3, 2:4, 1:5], part, SHAPE, AFFINE)
    expected = np.zeros_like(labels)
    expected[1:3, 2:4, 1:5] = labels[1:3, 2:4, 1:5]
    assert np.array_equal(full, expected)


def test_labels_outside_the_scan_are_refused_and_background_is_not() -> None:
    labels = some_labels()
    with pytest.raises(InputError, match="labelled voxels outside the scan"):
        labels_on_grid("x", labels, AFFINE, (4, 5, 5), AFFINE)
    far = AFFINE.copy()
    far[:3, 3] = AFFINE[:3] @ (50, 0, 0, 1)
    with pytest.raises(InputError, match="labelled voxels outside the scan"):
        labels_on_grid("x", labels, far, SHAPE, AFFINE)
    labels[..., 5] = 0
    assert np.array_equal(labels_on_grid("x", labels, AFFINE, (4, 5, 5), AFFINE), labels[..., :5])


@pytest.mark.parametrize("change", ["shift", "scale", "turn"])
def test_other_voxels_are_refused(change: str) -> None:
    affine = AFFINE.copy()
    if change == "shift":
        affine[0, 3] += 0.2
    elif change == "scale":
        affine[:3, 0] *= 1.1
    else:
        angle = np.radians(5)
        affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]] @ affine[:2, :2]
    with pytest.raises(InputError, match="another grid"):
        labels_on_grid("x", some_labels(), affine, SHAPE, AFFINE)
    with pytest.raises(InputError, match="another grid"):
        labels_on_planes("x", some_labels(), affine, [AFFINE], 5, 4)


def test_frames_get_their_labels_back() -> None:
    labels = some_labels()  # column, frame, row
    placement = {"frames": [2, 7], "rows": [3, 9], "columns": [1, 5]}
    planes, frames = labels_on_frames("x", labels, placement, 10, 8)
    assert frames == [2, 3, 4, 5, 6]
    for (x, y, z), value in np.ndenumerate(labels):
        assert planes[y, 3 + z, 1 + x] == value
    assert np.count_nonzero(planes) == np.count_nonzero(labels)


def test_frames_of_turned_volumes_get_their_labels_back() -> None:
    labels = some_labels()  # row reversed, column, frame
    placement = {
        "frames": [5, 0, 1, 9, 7, 3],
        "rows": [0, 4],
        "columns": [0, 5],
        "axes": ["row", "column", "frame"],
        "reversed": [True, False, False],
    }
    planes, frames = labels_on_frames("x", labels, placement, 4, 5)
    assert frames == [5, 0, 1, 9, 7, 3]
    for (x, y, z), value in np.ndenumerate(labels):
        assert planes[z, 3 - x, y] == value


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [0, 11]},
        {"rows": [4, 4]},
        {"columns": None},
        {"frames": ["a", 2]},
        {"frames": [-1, 4]},
        {"axes": ["row", "row", "frame"]},
        {"axes": ["depth", "row", "frame"]},
    ],
)
def test_a_faulty_placement_is_refused(change: dict) -> None:
    placement = {"frames": [0, 5], "rows": [0, 6], "columns": [0, 4]} | change
    with pytest.raises(InputError, match="the placement"):
        labels_on_frames("x", some_labels(), placement, 10, 8)


def test_labels_of_another_shape_than_placed_are_refused() -> None:
    placement = {"frames": [0, 5], "rows": [0, 6], "columns": [0, 5]}
    with pytest.raises(InputError, match=r"shape \(4, 5, 6\).*\(5, 5, 6\)"):
        labels_on_frames("x", some_labels(), placement, 10, 8)
