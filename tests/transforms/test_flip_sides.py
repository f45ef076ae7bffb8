"""Mirroring from left to right: values, sides and round trip."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from grn_monai.errors import InputError
from grn_monai.labels import CT_MUSCLES, LUMBAR_MUSCLE, MRI_MUSCLES
from grn_monai.transforms.flip_sides import FlipSides, FlipSidesd, RandFlipSidesd, side_pairs


def test_pairs_of_the_label_sets() -> None:
    assert side_pairs(MRI_MUSCLES) == {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5}
    assert side_pairs(CT_MUSCLES) == {1: 2, 2: 1, 3: 4, 4: 3}
    assert side_pairs(LUMBAR_MUSCLE) == {}
    with pytest.raises(InputError, match="'psoas left' without its other side"):
        side_pairs({0: "background", 1: "psoas left"})


def test_values_by_hand() -> None:
    label = torch.tensor([[[1, 0, 3], [0, 5, 5], [6, 2, 0]]], dtype=torch.uint8)  # axis 0 of the slice: to the right
    flipped = FlipSides(MRI_MUSCLES)(label)
    assert flipped.dtype == torch.uint8
    assert flipped.tolist() == [[[5, 1, 0], [0, 6, 6], [2, 0, 4]]]
    image = torch.arange(6.0).reshape(1, 3, 2)
    assert FlipSides()(image).tolist() == [[[4, 5], [2, 3], [0, 1]]]
    assert FlipSides(spatial_axis=1)(image).tolist() == [[[1, 0], [3, 2], [5, 4]]]


def test_a_symmetric_body_stays_as_it_is_and_twice_is_once_back() -> None:
    label = torch.zeros(1, 8, 4, 3, dtype=torch.uint8)
    label[:, 1:3], label[:, 5:7] = 5, 6
    assert torch.equal(FlipSides(MRI_MUSCLES)(label), label)
    generator = torch.Generator().manual_seed(0)
    item: dict[Hashable, Any] = {
        "image": torch.rand(1, 5, 4, 3, generator=generator),
        "label": torch.randint(0, 7, (1, 5, 4, 3), generator=generator, dtype=torch.uint8),
    }
    flip = FlipSidesd(["image", "label"], MRI_MUSCLES)
    once = flip(item)
    assert not torch.equal(once["label"], item["label"])
    twice = flip(once)
    assert all(torch.equal(twice[key], item[key]) for key in item)


def test_meta_tensors_keep_their_affine() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    label = MetaTensor(torch.ones(1, 2, 2, 2, dtype=torch.uint8), affine=affine)
    flipped = FlipSides(MRI_MUSCLES)(label)
    assert isinstance(flipped, MetaTensor)
    assert torch.equal(flipped.affine, affine)
    assert set(flipped.unique().tolist()) == {2}


def test_chance_and_seed() -> None:
    item: dict[Hashable, Any] = {
        "image": torch.arange(3.0).reshape(1, 3, 1),
        "label": torch.tensor([[[1], [0], [0]]], dtype=torch.uint8),
    }
    for prob, expected in ((0.0, [1, 0, 0]), (1.0, [0, 0, 2])):
        out = RandFlipSidesd(["image", "label"], MRI_MUSCLES, prob)(item)
        assert out["label"].ravel().tolist() == expected
        assert (out["image"].ravel().tolist() == [2, 1, 0]) is bool(prob)
    draws = []
    for _ in range(2):
        flip = RandFlipSidesd(["image", "label"], MRI_MUSCLES, 0.5).set_random_state(seed=1)
        draws.append([int(flip(item)["label"][0, 0, 0]) for _ in range(20)])
    assert draws[0] == draws[1]
    assert set(draws[0]) == {0, 1}
