"""DepthLast: every voxel keeps its position in space, and the inverse is exact, also under stock Invertd."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, Invertd

from grn_monai.errors import InputError
from grn_monai.transforms import DepthLast, DepthLastd

SHAPE = (3, 4, 5)


def oblique(signs: tuple[int, int, int] = (1, 1, 1), axes: tuple[int, int, int] = (0, 1, 2)) -> torch.Tensor:
    """An affine whose voxel axes run near the given world axes and senses, with unequal spacing and a tilt."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for voxel, (world, sign, spacing) in enumerate(zip(axes, signs, (0.2, 0.31, 0.47), strict=True)):
        affine[world, voxel] = sign * spacing
    angle = 0.2
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = -70.1, 33.3, 12.7
    return torch.from_numpy(affine)


def volume(affine: torch.Tensor | None = None) -> MetaTensor:
    array = torch.arange(60, dtype=torch.float32).reshape(1, *SHAPE)
    return MetaTensor(array, affine=oblique() if affine is None else affine)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_voxel_keeps_its_position(axis: int, reverse: bool) -> None:
    source = volume()
    out = DepthLast(axis, reverse)(source)
    lateral = [n for i, n in enumerate(SHAPE) if i != axis]
    assert out.shape == (1, *lateral, SHAPE[axis])
    old, new = np.asarray(source.affine), np.asarray(out.affine)
    position = {}
    for index in itertools.product(*map(range, SHAPE)):
        position[float(source[(0, *index)])] = (old @ [*index, 1])[:3]
    for index in itertools.product(*map(range, out.shape[1:])):
        np.testing.assert_allclose((new @ [*index, 1])[:3], position[float(out[(0, *index)])], atol=1e-9)


def test_hand_computed_order() -> None:
    source = volume()
    out = DepthLast(0, True)(source)
    assert torch.equal(out[0, 1, 2], source[0, :, 1, 2].flip(0)), "X, Y are the old axes 1, 2; depth the old axis 0"


@pytest.mark.parametrize("letter", list("LRAPSI"))
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_letter_is_the_direction_of_depth(letter: str, axes: tuple, signs: tuple) -> None:
    out = DepthLast(letter)(volume(oblique(signs, axes)))
    assert nib.aff2axcodes(np.asarray(out.affine))[2] == letter


@pytest.mark.parametrize("axis", [0, 1, 2, "A", "I"])
def test_round_trip_is_bit_identical(axis: int | str) -> None:
    transform = DepthLast(axis, depth_reversed=axis == 1)
    source = volume()
    back = transform.inverse(transform(source))
    assert torch.equal(back.as_tensor(), source.as_tensor())
    assert torch.equal(back.affine, source.affine)
    assert back.applied_operations == []


def test_source_is_left_alone() -> None:
    source = volume()
    affine = source.affine.clone()
    DepthLast(0, True)(source).affine[0, 0] = 99
    assert torch.equal(source.affine, affine)
    assert source.applied_operations == []


def test_invertd_on_decollated_prediction_with_other_channels_and_type() -> None:
    preprocessing = Compose([DepthLastd(("image", "label"), "P", allow_missing_keys=True)])
    source = volume(oblique((1, 1, 1), (2, 1, 0)))
    for batch in DataLoader(Dataset([{"image": source}, {"image": source}], preprocessing), batch_size=2):
        assert batch["image"].shape == (2, 1, 3, 5, 4)
        values = torch.arange(2 * 7 * 60).reshape(2, 7, 3, 5, 4).to(torch.int16)
        batch["pred"] = MetaTensor(values).copy_meta_from(batch["image"])
        for i, item in enumerate(decollate_batch(batch)):
            pred = Invertd("pred", preprocessing, orig_keys="image")(item)["pred"]
            assert pred.dtype == torch.int16
            assert torch.equal(pred.affine, source.affine)
            expected = values[i].permute(0, 1, 3, 2).flip(2)  # depth was the old axis 1, whose sense is A
            assert torch.equal(pred.as_tensor(), expected)


def test_plain_arrays_are_taken() -> None:
    array = np.arange(60, dtype=np.float32).reshape(1, *SHAPE)
    np.testing.assert_array_equal(DepthLast(0)(array).numpy(), np.moveaxis(array, 1, -1))


@pytest.mark.parametrize("axis", [3, -1, "X", "", None, 1.5])
def test_bad_axis_is_refused_at_construction(axis: object) -> None:
    with pytest.raises(InputError, match=r"depth_axis.*expected 0, 1, 2 or one of L R A P S I"):
        DepthLast(axis)  # type: ignore[arg-type]


def test_letter_needs_an_affine_and_excludes_reversal() -> None:
    with pytest.raises(InputError, match=r"without an affine.*LoadScand"):
        DepthLast("A")(torch.zeros(1, *SHAPE))
    with pytest.raises(InputError, match="Give 'P'"):
        DepthLast("A", depth_reversed=True)


def test_batches_and_slices_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 1, 3, 4, 5\)"):
        DepthLast()(torch.zeros(2, 1, *SHAPE))
