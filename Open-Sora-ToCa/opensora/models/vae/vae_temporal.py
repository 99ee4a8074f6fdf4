"""The autoencoder over time: four frames of latents become one, causally, so that a clip's first frame stands alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


class CausalConv3d(nn.Module):
    """A convolution that sees no later frame: zeros in front of time, and around space. stride: in time."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        around = kernel // 2
        self.padding = (around, around, around, around, max(kernel - stride, 0), 0)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride=(stride, 1, 1), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding))


class ResBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, bias=False)
        self.norm2 = nn.GroupNorm(num_groups, out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, bias=False)
        if in_channels != out_channels:
            self.conv3 = CausalConv3d(in_channels, out_channels, kernel=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.conv3(x) if hasattr(self, "conv3") else x)


def res_blocks(in_channels: int, out_channels: int, num: int, num_groups: int) -> nn.ModuleList:
    return nn.ModuleList(ResBlock(in_channels if i == 0 else out_channels, out_channels, num_groups) for i in range(num))


class Encoder(nn.Module):
    """(B, C, 4 T, H, W) to (B, 2 C, T, H, W), means and log variances. downsample: the levels that halve time at their end."""

    def __init__(
        self, channels: int, filters: int, num_res_blocks: int, multipliers: Sequence[int], downsample: Sequence[bool], num_groups: int
    ) -> None:
        super().__init__()
        widths = [filters * m for m in multipliers]
        self.conv_in = CausalConv3d(channels, filters, bias=False)
        self.block_res_blocks = nn.ModuleList(
            res_blocks(before, width, num_res_blocks, num_groups) for before, width in zip([filters, *widths], widths)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, width, stride=2) if halves else nn.Identity() for width, halves in zip(widths, downsample)
        )
        self.res_blocks = res_blocks(widths[-1], widths[-1], num_res_blocks, num_groups)
        self.norm1 = nn.GroupNorm(num_groups, widths[-1])
        self.conv2 = CausalConv3d(widths[-1], 2 * channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level, blocks in enumerate(self.block_res_blocks):
            for block in blocks:
                x = block(x)
            if level < len(self.conv_blocks):
                x = self.conv_blocks[level](x)
        for block in self.res_blocks:
            x = block(x)
        return self.conv2(F.silu(self.norm1(x)))


class Decoder(nn.Module):
    """(B, C, T, H, W) to (B, C, 4 T, H, W), the encoder's levels in reverse."""

    def __init__(
        self, channels: int, filters: int, num_res_blocks: int, multipliers: Sequence[int], downsample: Sequence[bool], num_groups: int
    ) -> None:
        super().__init__()
        widths = [filters * m for m in multipliers]
        self.conv1 = CausalConv3d(channels, widths[-1])
        self.res_blocks = res_blocks(widths[-1], widths[-1], num_res_blocks, num_groups)
        self.block_res_blocks = nn.ModuleList(
            res_blocks(above, width, num_res_blocks, num_groups) for above, width in zip([*widths[1:], widths[-1]], widths)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, 2 * width) if doubles else nn.Identity() for width, doubles in zip(widths[1:], downsample)
        )
        self.norm1 = nn.GroupNorm(num_groups, filters)
        self.conv_out = CausalConv3d(filters, channels)

    def forward(self, z: Tensor) -> Tensor:
        x = self.conv1(z)
        for block in self.res_blocks:
            x = block(x)
        for level in reversed(range(len(self.block_res_blocks))):
            for block in self.block_res_blocks[level]:
                x = block(x)
            if level and isinstance(conv := self.conv_blocks[level - 1], CausalConv3d):
                x = rearrange(conv(x), "b (c r) t h w -> b c (t r) h w", r=2)
        return self.conv_out(F.silu(self.norm1(x)))


class VAE_Temporal(nn.Module):
    """The autoencoder of latents over time. The defaults are the released ones.

    filters: channels of the first level; channel_multipliers: of every level; temporal_downsample: of every level but the last.
    """

    def __init__(
        self,
        in_out_channels: int = 4,
        filters: int = 128,
        num_res_blocks: int = 4,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        temporal_downsample: Sequence[bool] = (False, True, True),
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        sizes = (in_out_channels, filters, num_res_blocks, channel_multipliers, temporal_downsample, num_groups)
        self.encoder, self.decoder = Encoder(*sizes), Decoder(*sizes)
        self.quant_conv = CausalConv3d(2 * in_out_channels, 2 * in_out_channels, kernel=1)
        self.post_quant_conv = CausalConv3d(in_out_channels, in_out_channels, kernel=1)
        self.time_factor = 2 ** sum(temporal_downsample)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances (B, C, ceil(T / 4), H, W) of latents (B, C, T, H, W)."""
        x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % self.time_factor, 0))
        return self.quant_conv(self.encoder(x)).chunk(2, dim=1)

    def decode(self, z: Tensor, num_frames: int) -> Tensor:
        """(B, C, num_frames, H, W) of latents (B, C, ceil(num_frames / 4), H, W)."""
        return self.decoder(self.post_quant_conv(z))[:, :, -num_frames % self.time_factor :]
