"""nnU-Net's trainer with the length and the seed of a study's run; imported by nnU-Net itself, in its environment.

nnU-Net finds it through `nnUNet_extTrainer` by the name of its class. Settings come as environment variables, since
nnU-Net's commands pass nothing on to a trainer.
"""

from __future__ import annotations

import os
import random

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

if "GRN_NNUNET_THREADS" in os.environ:
    # On a CPU the commands of nnU-Net take all cores, whatever OMP_NUM_THREADS says; this import comes after that.
    torch.set_num_threads(int(os.environ["GRN_NNUNET_THREADS"]))


class nnUNetTrainerStudy(nnUNetTrainer):  # noqa: N801  (nnU-Net's own pattern of names)
    """The stock trainer, but for the number of epochs and of iterations, a seed, and checkpoints that appear whole.

    The seed fixes the initial weights; the order of the patches stays random where workers make them, as nnU-Net
    collects those in the order in which they finish.
    """

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  (the signature of the stock trainer)
    ) -> None:
        seed = int(os.environ["GRN_NNUNET_SEED"])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = int(os.environ["GRN_NNUNET_EPOCHS"])
        self.num_iterations_per_epoch = int(os.environ["GRN_NNUNET_ITERATIONS"])
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)  # the stock trainer's share
        self.save_every = max(1, self.num_epochs // 50)  # the stock trainer saves every 50: short runs would start anew

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple:  # noqa: N802
        """The stock trainer's, without mirroring at test time where that is off; the checkpoint keeps it."""
        setup: tuple = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if os.environ.get("GRN_NNUNET_MIRRORING", "1") == "0":
            self.inference_allowed_mirroring_axes = None
        return setup

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: which scans are predicted is the study's choice, and its evaluation scores them."""

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint whole or not at all, so that a kill leaves one to go on from."""
        temporary = f"{filename}.part"
        super().save_checkpoint(temporary)
        if os.path.isfile(temporary):
            os.replace(temporary, filename)
