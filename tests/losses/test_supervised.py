"""The supervised losses by name, against the formulas written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss

from grn_monai.errors import InputError
from grn_monai.losses import SUPERVISED_LOSSES, segmentation_loss


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels; the second image lacks class 6."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 7, (2, 1, 5, 6), generator=rng)
    labels[1] = labels[1].clamp(max=5)
    return torch.randn(2, 7, 5, 6, generator=rng, dtype=torch.float64), labels


def test_dice_is_the_loss_of_the_other_bundles() -> None:
    logits, labels = batch()
    expected = DiceLoss(softmax=True, to_onehot_y=True)(logits, labels)
    torch.testing.assert_close(segmentation_loss("dice")(logits, labels), expected)
    p, y = logits.softmax(1), F.one_hot(labels[:, 0], 7).movedim(-1, 1)
    each = 1 - (2 * (p * y).sum((2, 3)) + 1e-5) / (p.sum((2, 3)) + y.sum((2, 3)) + 1e-5)
    torch.testing.assert_close(expected, each.mean())


def test_dice_ce_is_that_of_the_reference_code() -> None:
    logits, labels = batch()
    p, y = logits.softmax(1), F.one_hot(labels[:, 0], 7).movedim(-1, 1)
    dice = 0.0
    for c in range(7):
        common, squares = (p[:, c] * y[:, c]).sum(), (p[:, c] ** 2).sum() + y[:, c].sum()
        dice += (1 - (2 * common + 1e-5) / (squares + 1e-5)) / 7
    cross_entropy = -p.gather(1, labels).log().mean()
    torch.testing.assert_close(segmentation_loss("dice_ce")(logits, labels), (cross_entropy + dice) / 2)


@pytest.mark.parametrize("name", SUPERVISED_LOSSES)
def test_labels_of_one_byte_do_and_a_sure_right_guess_costs_little(name: str) -> None:
    labels = batch()[1]
    logits = 50 * F.one_hot(labels[:, 0], 7).movedim(-1, 1).float()
    loss = segmentation_loss(name)
    assert loss(logits, labels.byte()).item() == pytest.approx(0, abs=1e-4)
    assert loss(logits.roll(1, dims=1), labels.byte()) > 0.9


def test_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="sup_loss: found 'focal'; expected 'dice' or 'dice_ce'"):
        segmentation_loss("focal")
