"""The parts of PixArt-alpha. Shapes: rows R, image tokens N, text tokens L, width D."""

from __future__ import annotations

import math

import torch
import torch.nn as nn
from torch import Tensor

from pixart_spec import FREQUENCIES
from toca.cache import NO_CACHE, LayerCache


def t2i_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)  # (R, N, D), with (R, 1, D) shift and scale


def layer_norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (R, H, N, d) -> (R, N, D)


class PatchEmbed(nn.Module):
    """Non-overlapping p x p patches to tokens in row-major order: a convolution whose kernel is its stride."""

    def __init__(self, patch_size: int, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()  # (R, N, D); in any other layout every later pass is slow


class SelfAttention(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, cache: LayerCache = NO_CACHE) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (R, H, N, d)
        return self.proj(merge_heads(cache.attend(q, k, v)))


class MultiHeadCrossAttention(nn.Module):
    """Image tokens attend to those text tokens of their own row that `mask` names."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(hidden_size, hidden_size)
        self.kv_linear = nn.Linear(hidden_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None = None, cache: LayerCache = NO_CACHE) -> Tensor:
        """x (R, K, D), any of the image tokens; text (R, L, D); mask (R, L) bool -> (R, K, D)."""
        kv = cache.once("kv", lambda: self.kv_linear(text))  # (R, L, 2 D)
        k, v = kv.unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (R, H, L, d)
        q = self.q_linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.proj(merge_heads(cache.attend(q, k, v, mask=mask)))


class Mlp(nn.Module):
    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class TimestepEmbedder(nn.Module):
    """Sinusoidal features of a number, cosine first, then a two-layer MLP."""

    def __init__(self, hidden_size: int, frequency_embedding_size: int = FREQUENCIES) -> None:
        super().__init__()
        self.frequency_embedding_size = frequency_embedding_size
        self.mlp = nn.Sequential(nn.Linear(frequency_embedding_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    @staticmethod
    def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000) -> Tensor:
        """(R,) -> (R, dim) features [cos(t f), sin(t f)], f_k = max_period^(-k / half), in float32."""
        half = dim // 2
        freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        args = t[:, None].float() * freqs
        return torch.cat([args.cos(), args.sin()], dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        features = self.timestep_embedding(t, self.frequency_embedding_size)
        return self.mlp(features.to(self.mlp[0].weight.dtype))  # (R, D)


class SizeEmbedder(TimestepEmbedder):
    """Several numbers of a picture, each embedded with the same weights."""

    def forward(self, s: Tensor) -> Tensor:
        return super().forward(s.flatten()).unflatten(0, s.shape).flatten(1)  # (R, k) -> (R, k * hidden_size)


class CaptionEmbedder(nn.Module):
    """Text features to the model's width. `y_embedding` holds those of no text, for guidance."""

    def __init__(self, in_channels: int, hidden_size: int, token_num: int) -> None:
        super().__init__()
        self.y_proj = Mlp(in_channels, hidden_size, hidden_size)
        self.register_buffer("y_embedding", torch.randn(token_num, in_channels) / in_channels**0.5)

    def forward(self, caption: Tensor) -> Tensor:
        return self.y_proj(caption)  # (R, L, D)


class T2IFinalLayer(nn.Module):
    def __init__(self, hidden_size: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, patch_size * patch_size * out_channels)
        self.scale_shift_table = nn.Parameter(torch.randn(2, hidden_size) / hidden_size**0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (R, N, D), t (R, D), the timestep's embedding -> (R, N, p * p * out_channels)."""
        shift, scale = (self.scale_shift_table + t[:, None]).chunk(2, dim=1)
        return self.linear(t2i_modulate(self.norm_final(x), shift, scale))


class PixArtBlock(nn.Module):
    """A transformer block with one modulation for all layers (adaLN-single), told apart by a table of its own."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = layer_norm(hidden_size)
        self.attn = SelfAttention(hidden_size, num_heads)
        self.cross_attn = MultiHeadCrossAttention(hidden_size, num_heads)
        self.norm2 = layer_norm(hidden_size)
        self.mlp = Mlp(hidden_size, int(hidden_size * mlp_ratio), hidden_size)
        self.scale_shift_table = nn.Parameter(torch.randn(6, hidden_size) / hidden_size**0.5)

    def forward(self, x: Tensor, text: Tensor, t0: Tensor, mask: Tensor | None = None, cache: LayerCache = NO_CACHE) -> Tensor:
        """x (R, N, D), text (R, L, D), t0 (R, 6, D), mask (R, L) bool -> the next x."""
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = (self.scale_shift_table + t0).chunk(6, dim=1)  # (R, 1, D)

        def attn(x: Tensor) -> Tensor:
            return self.attn(t2i_modulate(self.norm1(x), shift_msa, scale_msa), cache)

        def cross_attn(x: Tensor) -> Tensor:
            return self.cross_attn(x, text, mask, cache)

        def mlp(x: Tensor) -> Tensor:
            return self.mlp(t2i_modulate(self.norm2(x), shift_mlp, scale_mlp))

        x = torch.addcmul(x, gate_msa, cache.attn(attn, x))  # x + gate * attn(x), one pass over memory
        x = x + cache.cross_attn(cross_attn, x)
        x = torch.addcmul(x, gate_mlp, cache.mlp(mlp, x))
        return x


