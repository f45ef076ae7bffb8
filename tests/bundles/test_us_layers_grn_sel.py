"""The bundle contract for GRN-SEL, and what only it has: a discriminator, in the checkpoint but not in the model."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.bundles import test_us_layers_grn_plus as grn_plus
from tests.bundles.contract import read_history


class TestGRNSEL(grn_plus.TestGRNPlus):
    bundle = "us_layers_grn_sel"
    curves = (
        "stage1_loss", "l1_loss", "adversarial_loss", "discriminator_loss", "grad_norm_generator",
        "grad_norm_segmentor", "grad_norm_discriminator", "val_dice_loss", "val_dice_loss_sge",
    )  # fmt: skip

    def test_every_term_is_in_the_history(self, trained: dict[str, Path]) -> None:
        rows = read_history(trained[self.bundle])
        assert all(float(row[name]) > 0 for row in rows for name in self.curves)

    def test_the_discriminator_and_its_optimizer_are_in_the_checkpoint(self, trained: dict[str, Path]) -> None:
        state = torch.load(trained[self.bundle] / "checkpoint.pt", weights_only=True)
        assert {"model", "discriminator"} <= set(state["modules"])
        assert set(state["optimizers"]) == {"optimizer", "joint_optimizer", "discriminator_optimizer"}
        assert all(s["state"] for s in state["optimizers"].values())
