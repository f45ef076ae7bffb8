"""The image generator G of GRN, GRN-SSL and GRN+."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from grn_monai.errors import InputError

__all__ = ["ResNetGenerator", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """``x + BN(conv(ReLU(BN(conv(x)))))`` with 3x3 convolutions, width and size kept.

    Args:
        channels: number of channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The convolutions carry no bias: the BatchNorm after each would cancel it.
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        return x + self.body(x)


class _Down(nn.Sequential):
    """4x4 convolution of stride 2, BatchNorm, ReLU: halves H and W."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class _Up(nn.Sequential):
    """4x4 transposed convolution of stride 2, BatchNorm, ReLU: doubles H and W."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class ResNetGenerator(nn.Module):
    """Encoder-decoder generator with residual blocks and skip connections.

    A first 4x4 convolution of stride 2, four stages of a residual block and a halving convolution, residual
    blocks at the bottom, and five doubling transposed convolutions, each but the last followed by
    concatenation with the encoder map of the same size; tanh at the end. With ``base_channels=64`` the network
    has the 37,089,025 parameters of the published configuration; the default 20 (3,626,321 parameters) keeps
    the cost small that the GRN+ paper claims.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the generated image.
        base_channels: width w of the first level; the levels have w, 2w, 4w, 8w and 8w channels.
        num_res_blocks: residual blocks at the bottom.

    Raises:
        ValueError: when a width or count is not positive.
        InputError: in ``forward``, when H or W is not a multiple of 32. ``EnhancedSegmentor`` pads and crops.

    Source: "Generative Reinforcement Network (GRN) for Tissue Layer Segmentation in Chronic Low-back Pain
    (cLBP) assessment", arXiv 2501.17690.
    """

    stride = 32
    """H and W of the input have to be multiples of this."""

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, base_channels: int = 20, num_res_blocks: int = 3
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, base_channels) < 1 or num_res_blocks < 0:
            raise ValueError(
                "in_channels, out_channels and base_channels must be at least 1 and num_res_blocks at least 0, "
                f"got {in_channels}, {out_channels}, {base_channels}, {num_res_blocks}."
            )
        widths = [base_channels * m for m in (1, 2, 4, 8, 8)]
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], kernel_size=4, stride=2, padding=1), nn.ReLU(inplace=True)
        )
        self.residuals = nn.ModuleList(ResidualBlock(w) for w in widths[:4])
        self.downs = nn.ModuleList(_Down(a, b) for a, b in pairwise(widths))
        self.bottom = nn.Sequential(*(ResidualBlock(widths[4]) for _ in range(num_res_blocks)))
        skips = widths[3::-1]  # 8w, 4w, 2w, w: the encoder maps that are concatenated, deepest first
        inputs = [widths[4], *(2 * w for w in skips[:-1])]
        self.ups = nn.ModuleList(_Up(a, b) for a, b in zip(inputs, skips, strict=True))
        self.head = nn.ConvTranspose2d(2 * skips[-1], out_channels, kernel_size=4, stride=2, padding=1)
        # BatchNorm and the convolutions run faster in this layout (measured: benchmarks/training_step.py).
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Generate an image.

        Args:
            x: ``(B, in_channels, H, W)`` in [-1, 1]; H and W multiples of 32.

        Returns:
            ``(B, out_channels, H, W)`` in [-1, 1].
        """
        if not torch.jit.is_scripting():  # TorchScript knows no exceptions of ours
            self._refuse_odd(x)
        x = self.stem(x)
        skips = []
        for residual, down in zip(self.residuals, self.downs):  # noqa: B905 (TorchScript knows no strict)
            x = residual(x)
            skips.append(x)
            x = down(x)
        x = self.bottom(x)
        for up in self.ups:
            x = torch.cat((up(x), skips.pop()), dim=1)
        return torch.tanh(self.head(x))

    def _refuse_odd(self, x: torch.Tensor) -> None:
        if x.shape[-1] % self.stride or x.shape[-2] % self.stride:
            height, width = (-(-s // self.stride) * self.stride for s in x.shape[-2:])
            raise InputError(
                "ResNetGenerator",
                f"images of {tuple(x.shape[-2:])}",
                f"H and W that are multiples of {self.stride}",
                f"Train with a slice_size of {(height, width)}, or use EnhancedSegmentor, which pads and crops.",
            )
