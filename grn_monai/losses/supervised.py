"""The supervised losses that a study may choose from, by name."""

from __future__ import annotations

from monai.losses import DiceCELoss, DiceLoss
from torch import nn

from grn_monai.options import check_choice

__all__ = ["SUPERVISED_LOSSES", "segmentation_loss"]

SUPERVISED_LOSSES = ("dice", "dice_ce")


def segmentation_loss(name: str) -> nn.Module:
    """A loss of logits ``(B, C, H, W)`` and labels ``(B, 1, H, W)``, background included, 0-d.

    Args:
        name: ``"dice"``: Dice loss of each image and class with plain sums in the denominator, then the mean; what GRN
            and GRN+ print. ``"dice_ce"``: ½ (cross-entropy + Dice loss), the Dice of each class over the whole batch
            with squared terms in the denominator and 1e-5 added above and below; the supervised term of the reference
            code of the semi-supervised methods.

    Raises:
        InputError: for another name.
    """
    check_choice("sup_loss", name, SUPERVISED_LOSSES)
    if name == "dice":
        return DiceLoss(softmax=True, to_onehot_y=True)
    return DiceCELoss(
        softmax=True,
        to_onehot_y=True,
        squared_pred=True,
        batch=True,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
        lambda_dice=0.5,
        lambda_ce=0.5,
    )
