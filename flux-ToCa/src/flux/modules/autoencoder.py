"""FLUX's autoencoder: pictures to 16-channel latents at an eighth of the size, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class AutoEncoderParams:
    """ch: channels at full resolution, times ch_mult per level. scale_factor, shift_factor: of the latents."""

    in_channels: int = 3
    ch: int = 128
    out_ch: int = 3
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 16
    scale_factor: float = 0.3611
    shift_factor: float = 0.1159


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=32, num_channels=channels, eps=1e-6)


def conv3(in_channels: int, out_channels: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, **{"padding": 1, **options})


class AttnBlock(nn.Module):
    """One-headed attention over all positions, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, kernel_size=1)
        self.k = nn.Conv2d(channels, channels, kernel_size=1)
        self.v = nn.Conv2d(channels, channels, kernel_size=1)
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        height, normed = x.shape[-2], self.norm(x)
        q, k, v = (rearrange(f(normed), "b c h w -> b 1 (h w) c").contiguous() for f in (self.q, self.k, self.v))
        out = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(out, "b 1 (h w) c -> b c h w", h=height))


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = conv3(in_channels, out_channels)
        self.norm2 = group_norm(out_channels)
        self.conv2 = conv3(out_channels, out_channels)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Downsample(nn.Module):
    """Halve height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels, stride=2, padding=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only


class Upsample(nn.Module):
    """Double height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """The residual blocks of one resolution, and the change to the next one where there is a next one."""

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, resample: dict[str, nn.Module]) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(num_blocks))
        for name, module in resample.items():
            self.add_module(name, module)
        self.resample = tuple(resample)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        for name in self.resample:
            x = getattr(self, name)(x)
        return x


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) to moments (B, 2 z, h, w): means, then log variances."""

    def __init__(self, params: AutoEncoderParams) -> None:
        super().__init__()
        widths = [params.ch * factor for factor in params.ch_mult]
        last = len(widths) - 1
        self.conv_in = conv3(params.in_channels, params.ch)
        self.down = nn.ModuleList(
            Level(before, width, params.num_res_blocks, {} if i == last else {"downsample": Downsample(width)})
            for i, (before, width) in enumerate(zip([params.ch, *widths], widths))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3(widths[-1], 2 * params.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Latents (B, z, h, w), unscaled, to pictures (B, 3, H, W)."""

    def __init__(self, params: AutoEncoderParams) -> None:
        super().__init__()
        widths = [params.ch * factor for factor in params.ch_mult]
        self.conv_in = conv3(params.z_channels, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(  # index 0 is the full resolution, which comes last
            Level(before, width, params.num_res_blocks + 1, {} if i == 0 else {"upsample": Upsample(width)})
            for i, (before, width) in enumerate(zip([*widths[1:], widths[-1]], widths))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = conv3(widths[0], params.out_ch)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class AutoEncoder(nn.Module):
    """encode and decode take any batch and run one picture at a time, so that memory does not grow with the batch.

    sample_z: encode to a sample of the posterior, as the published programs do, instead of its mean.
    """

    def __init__(self, params: AutoEncoderParams, sample_z: bool = False) -> None:
        super().__init__()
        self.params, self.sample_z = params, sample_z
        self.encoder = Encoder(params)
        self.decoder = Decoder(params)

    @property
    def stride(self) -> int:
        """Pixels per latent position along a side."""
        return 2 ** (len(self.params.ch_mult) - 1)

    def encode(self, x: Tensor, eps: Tensor | None = None) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1], sides multiples of the stride, to scaled latents (B, z, h, w).

        eps: the standard normal draws (B, z, h, w) of `sample_z`, by default from the global generator.
        """
        mean, logvar = torch.cat([self.encoder(one) for one in x.split(1)]).chunk(2, dim=1)
        if self.sample_z:
            mean = mean + torch.exp(0.5 * logvar) * (torch.randn_like(mean) if eps is None else eps)
        return self.params.scale_factor * (mean - self.params.shift_factor)

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents (B, z, h, w) to pictures (B, 3, H, W) around [-1, 1]."""
        z = z / self.params.scale_factor + self.params.shift_factor
        return torch.cat([self.decoder(one) for one in z.split(1)])

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
