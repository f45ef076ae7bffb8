from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  (the field's name for it)
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from monai.networks.utils import one_hot
from scipy.spatial.distance import cdist

from grn_monai.labels import LAYERS, NUM_CLASSES
from grn_monai.metrics import surface, surface_distances, surface_scores
from tests.metrics.layered import layered_truth, perturbed

SPACING = (0.2, 0.25, 0.15)


def brute_surface(mask: np.ndarray) -> np.ndarray:
    """Coordinates in mm of the mask voxels that have a face neighbour outside, voxel by voxel."""
    points = []
    for index in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                near = index.copy()
                near[axis] += step
                if not 0 <= near[axis] < mask.shape[axis] or not mask[tuple(near)]:
                    points.append(index)
    return np.unique(np.array(points), axis=0) * np.array(SPACING[: mask.ndim])


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("tree_limit", [0, 10**9], ids=["transform", "tree"])
def test_equals_brute_force(ndim: int, tree_limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surface, "_TREE_LIMIT", tree_limit)
    rng = np.random.default_rng(3)
    pred, truth = rng.random((2, *(8, 7, 9)[:ndim])) < 0.35
    between = cdist(brute_surface(pred), brute_surface(truth))
    to_truth, to_pred = surface_distances(pred, truth, SPACING[:ndim])
    np.testing.assert_allclose(np.sort(to_truth), np.sort(between.min(axis=1)), atol=1e-12)
    np.testing.assert_allclose(np.sort(to_pred), np.sort(between.min(axis=0)), atol=1e-12)


def test_equals_monai_per_layer() -> None:
    truth = layered_truth(0)
    pred = perturbed(truth, 1)
    ours = surface_scores(pred, truth, SPACING)
    p, t = (one_hot(torch.as_tensor(a.astype(np.int64))[None, None], NUM_CLASSES) for a in (pred, truth))
    hd95 = compute_hausdorff_distance(p, t, percentile=95, spacing=SPACING)[0]
    asd = compute_average_surface_distance(p, t, symmetric=True, spacing=SPACING)[0]
    np.testing.assert_allclose([ours[k].hd95_mm for k in LAYERS], hd95, rtol=1e-5)
    np.testing.assert_allclose([ours[k].asd_mm for k in LAYERS], asd, rtol=1e-5)
    assert min(score.asd_mm for score in ours.values()) > 0


def test_largest_distance_equals_simpleitk() -> None:
    truth = layered_truth(4) == 3
    pred = perturbed(layered_truth(4), 5) == 3
    images = []
    for mask in (pred, truth):
        image = sitk.GetImageFromArray(mask.astype(np.uint8).T)
        image.SetSpacing(SPACING)
        images.append(image)
    reference = sitk.HausdorffDistanceImageFilter()
    reference.Execute(*images)
    # SimpleITK measures from every mask voxel to the other mask, so a set nested in the other differs; here the
    # far voxels of both lie on the surface and outside the other mask, where the two definitions agree.
    assert np.concatenate(surface_distances(pred, truth, SPACING)).max() == pytest.approx(
        reference.GetHausdorffDistance(), rel=1e-6
    )


def test_shifted_slab() -> None:
    """A slab of 5 × 5 × 3 voxels moved by two voxels of depth."""
    truth = np.zeros((9, 9, 12), bool)
    truth[2:7, 2:7, 3:6] = True
    pred = np.roll(truth, 2, axis=2)
    to_truth, to_pred = surface_distances(pred, truth, SPACING)
    assert to_truth.max() == pytest.approx(2 * 0.15)
    np.testing.assert_allclose(np.sort(to_truth), np.sort(to_pred))
    # 75 voxels less 9 inner ones. The 25 of the shared layer are at 0, the 16 of the middle layer at dz, the 25 of
    # the far face at 2·dz.
    assert to_truth.mean() == pytest.approx((16 + 25 * 2) * 0.15 / 66)
    assert to_truth.size == 66


def test_distances_scale_with_spacing() -> None:
    truth = layered_truth(1)
    pred = perturbed(truth, 2)
    once = surface_scores(pred, truth, SPACING)
    twice = surface_scores(pred, truth, [2 * step for step in SPACING])
    for label in LAYERS:
        np.testing.assert_allclose(twice[label], np.multiply(2, once[label]))


def test_empty_is_said() -> None:
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[1:3, 1:3, 1:3] = 1
    pred = np.zeros_like(truth)
    pred[0, 0, 0] = 2
    scores = surface_scores(pred, truth, (1, 1, 1), labels=(1, 2, 3))
    assert scores[1] == (np.inf, np.inf)
    assert scores[2] == (np.inf, np.inf)
    assert np.isnan(scores[3]).all()
    assert surface_scores(truth, truth, (1, 1, 1), labels=(1,))[1] == (0, 0)


@pytest.mark.parametrize("spacing", [(1, 1), (1, 0, 1), (1, 1, np.nan)])
def test_bad_spacing(spacing: tuple[float, ...]) -> None:
    mask = np.ones((2, 2, 2), bool)
    with pytest.raises(ValueError, match="spacing"):
        surface_distances(mask, mask, spacing)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        surface_distances(np.ones((2, 2), bool), np.ones((2, 3), bool), (1, 1))
