"""Signed distance maps: by hand, by brute force, and the cases of thin, missing and full classes."""

from __future__ import annotations

import pytest
import torch

from grn_monai.errors import InputError
from grn_monai.losses import SignedDistanceLoss, signed_distance_maps
from grn_monai.losses.signed_distance import _distances_scipy, _distances_torch


def layer(first: int, last: int, height: int = 12, width: int = 5, value: int = 1) -> torch.Tensor:
    """One image with a layer in the rows ``first`` to ``last``."""
    labels = torch.zeros(1, 1, height, width, dtype=torch.uint8)
    labels[:, :, first : last + 1] = value
    return labels


def profile(labels: torch.Tensor, classes: int = 2) -> list[float]:
    """The first class's values down the first column."""
    return signed_distance_maps(labels, classes)[0, 0, :, 0].tolist()


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (4, 4, [1, 0.75, 0.5, 0.25, 0, 0.25, 0.5, 0.75]),  # one pixel: all boundary
        (3, 4, [1, 2 / 3, 1 / 3, 0, 0, 1 / 3, 2 / 3, 1]),  # two pixels: all boundary
        (3, 5, [1, 2 / 3, 1 / 3, 0, -1, 0, 1 / 3, 2 / 3]),  # three pixels: one inside
        (2, 6, [1, 0.5, 0, -2 / 3, -1, -2 / 3, 0, 0.5]),
        (0, 3, [-1, -0.75, -0.5, 0, 0.25, 0.5, 0.75, 1]),  # the image's rim is no boundary
    ],
)
def test_layers_by_hand(first: int, last: int, expected: list[float]) -> None:
    assert profile(layer(first, last, height=8)) == pytest.approx(expected)


def brute_force(mask: torch.Tensor) -> torch.Tensor:
    """The definition, pixel by pixel, in float64."""
    points = torch.stack(torch.meshgrid(*(torch.arange(n) for n in mask.shape), indexing="ij"), -1).double()
    outside = torch.cdist(points.reshape(-1, 2), points[mask]).amin(1).reshape(mask.shape)
    inside = torch.cdist(points.reshape(-1, 2), points[~mask]).amin(1).reshape(mask.shape)
    neighbour_out = torch.zeros_like(mask)
    neighbour_out[1:] |= ~mask[:-1]
    neighbour_out[:-1] |= ~mask[1:]
    neighbour_out[:, 1:] |= ~mask[:, :-1]
    neighbour_out[:, :-1] |= ~mask[:, 1:]
    return (outside / outside.max() - inside / inside.max()).masked_fill(mask & neighbour_out, 0)


@pytest.mark.parametrize("density", [0.02, 0.3, 0.8, 0.99])
def test_random_shapes_by_definition(density: float) -> None:
    labels = (torch.rand(3, 1, 17, 23, generator=torch.Generator().manual_seed(1)) < density).to(torch.uint8)
    maps = signed_distance_maps(labels, 2)
    assert maps.dtype == torch.float32
    for image, map_ in zip(labels[:, 0].bool(), maps[:, 0], strict=True):
        torch.testing.assert_close(map_.double(), brute_force(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize("density", [0.01, 0.5, 0.99])
def test_both_ways_to_distances_agree(density: float) -> None:
    masks = torch.rand(6, 19, 34, generator=torch.Generator().manual_seed(2)) < density
    masks[:, 3, 4], masks[:, 5, 6] = True, False
    torch.testing.assert_close(_distances_torch(masks), _distances_scipy(masks), rtol=1e-6, atol=0)


def test_every_class_has_the_map_of_its_own_mask() -> None:
    labels = layer(1, 3) + layer(6, 10, value=2)
    maps = signed_distance_maps(labels, 3)
    assert maps.shape == (1, 2, 12, 5)
    assert not torch.equal(maps[0, 0], maps[0, 1])
    for k in (1, 2):
        alone = signed_distance_maps((labels == k).to(torch.uint8), 2)
        assert torch.equal(maps[0, k - 1], alone[0, 0])


def test_each_image_and_class_is_normalised_by_itself() -> None:
    labels = torch.cat((layer(5, 7), layer(1, 9)))
    maps = signed_distance_maps(labels, 2)
    assert maps.amax((2, 3)).flatten().tolist() == [1, 1]
    assert maps.amin((2, 3)).flatten().tolist() == [-1, -1]


@pytest.mark.parametrize(("empty", "expected"), [(1.0, 1.0), (0.0, 0.0)])
def test_missing_and_full_classes(empty: float, expected: float) -> None:
    maps = signed_distance_maps(layer(0, 11, value=2), 4, empty)
    assert (maps[:, [0, 2]] == expected).all()
    assert (maps[:, 1] == -1).all()


def test_a_single_pixel_is_found() -> None:
    labels = torch.zeros(1, 1, 5, 5, dtype=torch.long)
    labels[0, 0, 2, 2] = 6
    maps = signed_distance_maps(labels, 7)
    assert maps[0, 5, 2, 2] == 0
    assert maps[0, 5, 0, 0] == 1
    assert maps[0, 5, 2, 1].item() == pytest.approx(1 / 8**0.5)


def test_loss_by_hand_for_each_reading_of_missing_classes() -> None:
    labels = layer(3, 5, height=8)  # of two foreground classes, 2 is missing
    target = torch.tensor([1, 2 / 3, 1 / 3, 0, -1, 0, 1 / 3, 2 / 3]).reshape(1, 1, 8, 1).expand(1, 1, 8, 5)
    maps = torch.cat((target + 0.5, torch.full_like(target, 0.25)), 1)
    assert SignedDistanceLoss()(maps, labels).item() == pytest.approx((0.25 + 0.75**2) / 2)
    assert SignedDistanceLoss("zero")(maps, labels).item() == pytest.approx((0.25 + 0.25**2) / 2)
    assert SignedDistanceLoss("ignore")(maps, labels).item() == pytest.approx(0.25)
    assert SignedDistanceLoss("ignore")(maps, torch.zeros_like(labels)).item() == 0


def test_loss_keeps_the_type_and_gives_gradients() -> None:
    maps = torch.zeros(1, 1, 12, 5, dtype=torch.float64, requires_grad=True)
    loss = SignedDistanceLoss()(maps, layer(3, 5))
    assert loss.dtype == torch.float64
    loss.backward()
    assert maps.grad is not None
    # d/dm mean (m - t)² at m = 0 is -2 t / n
    expected = -2 * signed_distance_maps(layer(3, 5), 2).double() / 60
    torch.testing.assert_close(maps.grad, expected)


def test_other_readings_are_refused() -> None:
    with pytest.raises(InputError, match="empty: found 'two'; expected one, zero or ignore"):
        SignedDistanceLoss("two")
