"""Interpolation consistency on unlabelled images: a mixture should be segmented as the mixture of the segmentations."""

from __future__ import annotations

import torch
from torch.nn.functional import mse_loss

__all__ = ["Interpolation", "derangement"]


def derangement(n: int) -> torch.Tensor:
    """Draw a random permutation of 0 … n-1 that leaves no element at its place, each equally likely.

    Args:
        n: number of elements, at least 2.

    Returns:
        ``(n,)`` int64 on the CPU, drawn from torch's global generator.

    Raises:
        ValueError: for fewer than two elements, of which there is none.
    """
    if n < 2:
        raise ValueError(f"A partner for each image needs at least 2 images, got {n}. Raise the unlabelled batch size.")
    places = torch.arange(n)
    while True:  # e tries on average, whatever n is
        order = torch.randperm(n)
        if bool((order != places).all()):
            return order


class Interpolation:
    """One random pairing of a batch: ``mix(x) = λ x + (1 - λ) x[partner]``, and the consistency loss under it.

    Args:
        partner: ``(B,)`` index of each image's partner.
        share: λ, ``(B,)``, in [0, 1].

    Source: Verma et al., "Interpolation Consistency Training", 2019, as GRN-SSL uses it (arXiv 2501.17690).
    """

    def __init__(self, partner: torch.Tensor, share: torch.Tensor) -> None:
        self.partner = partner
        self.share = share

    @classmethod
    def draw(
        cls, batch_size: int, alpha: float = 0.2, per: str = "image", device: torch.device | str = "cpu"
    ) -> Interpolation:
        """Draw partners (a derangement: an image mixed with itself says nothing) and λ ~ Beta(alpha, alpha).

        Args:
            batch_size: number of images, at least 2.
            alpha: parameter of the Beta distribution, above 0.
            per: ``"image"``: a λ for each image; ``"batch"``: one for all.
            device: where the result lies. The draw is made on the CPU, so that it does not depend on the device.
        """
        partner = derangement(batch_size)
        concentration = torch.full((batch_size if per == "image" else 1,), float(alpha))
        share = torch.distributions.Beta(concentration, concentration).sample().expand(batch_size)
        return cls(partner.to(device), share.to(device))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        """Mix each element of ``(B, …)`` with its partner; same shape and type."""
        share = self.share.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
        return share * x + (1 - share) * x[self.partner]

    def loss(self, mixed_logits: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Mean squared error between the segmentation of mixtures and the mixture of segmentations.

        Args:
            mixed_logits: S of the mixtures, ``(B, C, H, W)``.
            logits: S of the images that were mixed, ``(B, C, H, W)``; with or without gradient.

        Returns:
            0-d mean over images, classes (softmax probabilities) and pixels, in [0, 1].
        """
        return mse_loss(mixed_logits.softmax(1), self.mix(logits.softmax(1)))
