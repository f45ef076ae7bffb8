"""S(G(x)) as one module: segmentation-guided enhancement (SGE)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["EnhancedSegmentor"]


class EnhancedSegmentor(nn.Module):
    """A segmentor that looks through a generator: ``S(G(x))``.

    One module holds both parts, so that a checkpoint, an export, MONAI Label and the evaluators see one
    network. With ``sge=False`` the same module (and the same checkpoint) predicts ``S(x)``. It can be scripted (with
    all its methods) and exported, with any B, H and W left open.

    Args:
        generator: G, image to enhanced image of the same shape, in [-1, 1].
        segmentor: S, image to logits of the same H and W.
        sge: predict ``S(G(x))`` if true, else ``S(x)``.
        size_divisor: H and W are padded (edge values) to multiples of this before the networks and the
            result is cropped back: 32 for ``ResNetGenerator``.

    Source: SGE in "GRN" (arXiv 2501.17690) and "GRN+".
    """

    def __init__(self, generator: nn.Module, segmentor: nn.Module, sge: bool = True, size_divisor: int = 32) -> None:
        super().__init__()
        if size_divisor < 1:
            raise ValueError(f"size_divisor must be at least 1, got {size_divisor}.")
        self.generator = generator
        self.segmentor = segmentor
        self.sge = sge
        self.size_divisor = size_divisor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, classes, H, W)`` of ``(B, C, H, W)`` images in [-1, 1]; any H and W."""
        padded = self._pad(x)
        if self.sge:
            padded = self.generator(padded)
        return self._crop(self.segmentor(padded), x)

    @torch.jit.export
    def enhance(self, x: torch.Tensor) -> torch.Tensor:
        """G(x): the enhanced image ``(B, C, H, W)`` in [-1, 1] of images of the same shape."""
        return self._crop(self.generator(self._pad(x)), x)

    @torch.jit.export
    def segment(self, x: torch.Tensor) -> torch.Tensor:
        """S(x) without enhancement: logits ``(B, classes, H, W)``; any H and W."""
        return self._crop(self.segmentor(self._pad(x)), x)

    @torch.jit.export
    def enhance_and_segment(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(G(x), S(G(x)))`` with one pass through each network, also where H and W are padded."""
        enhanced = self.generator(self._pad(x))
        return self._crop(enhanced, x), self._crop(self.segmentor(enhanced), x)

    @torch.jit.export
    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of ``S(x)`` and of ``S(G(x))``; S sees the raw and the enhanced images as one batch."""
        padded = self._pad(x)
        raw, sge = self.segmentor(torch.cat((padded, self.generator(padded)))).chunk(2)
        return self._crop(raw, x), self._crop(sge, x)

    def _pad(self, x: torch.Tensor) -> torch.Tensor:
        # Rounded up rather than `-size % divisor`: of a symbolic size, an export then sees a multiple of the divisor.
        divisor = self.size_divisor
        bottom = (x.shape[-2] + divisor - 1) // divisor * divisor - x.shape[-2]
        right = (x.shape[-1] + divisor - 1) // divisor * divisor - x.shape[-1]
        if torch.jit.is_scripting():
            needed = bottom > 0 or right > 0
        else:  # a traced or exported graph has no branch: what needs no padding is padded by 0
            needed = torch.compiler.is_exporting() or torch.jit.is_tracing() or bottom > 0 or right > 0
        # Edge values rather than zeros: in [-1, 1] a zero is mid grey and would put a false boundary at the rim.
        return F.pad(x, (0, right, 0, bottom), mode="replicate") if needed else x

    @staticmethod
    def _crop(y: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return y[..., : like.shape[-2], : like.shape[-1]]
