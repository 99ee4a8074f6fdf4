"""The parts of PixArt-alpha. Shapes: rows R, image tokens N, text tokens L, width D."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from toca.engine.cache import UNCACHED, LayerCache, UncachedLayer
from toca.nn.layers import Mlp, SelfAttention, TimestepEmbedder, layer_norm, merge_heads, modulate


class MultiHeadCrossAttention(nn.Module):
    """Image tokens attend to those text tokens of their own row that `mask` names."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(hidden_size, hidden_size)
        self.kv_linear = nn.Linear(hidden_size, 2 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor | None = None, cache: LayerCache = UNCACHED) -> Tensor:
        """x (R, K, D), any of the image tokens; text (R, L, D); mask (R, L) bool -> (R, K, D)."""
        kv = cache.once("kv", lambda: self.kv_linear(text))  # (R, L, 2 D)
        k, v = kv.unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (R, H, L, d)
        q = self.q_linear(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.proj(merge_heads(cache.attend(q, k, v, mask=mask)))


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
        return self.linear(modulate(self.norm_final(x), shift, scale))


class PixArtBlock(nn.Module):
    """A transformer block with one modulation for all layers (adaLN-single), told apart by a table of its own."""

    uncached = UncachedLayer("attn", "cross_attn", "mlp")

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = layer_norm(hidden_size)
        self.attn = SelfAttention(hidden_size, num_heads)
        self.cross_attn = MultiHeadCrossAttention(hidden_size, num_heads)
        self.norm2 = layer_norm(hidden_size)
        self.mlp = Mlp(hidden_size, int(hidden_size * mlp_ratio), hidden_size)
        self.scale_shift_table = nn.Parameter(torch.randn(6, hidden_size) / hidden_size**0.5)

    def forward(self, x: Tensor, text: Tensor, t0: Tensor, mask: Tensor | None = None, cache: LayerCache = uncached) -> Tensor:
        """x (R, N, D), text (R, L, D), t0 (R, 6, D), mask (R, L) bool -> the next x."""
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = (self.scale_shift_table + t0).chunk(6, dim=1)  # (R, 1, D)

        def attn(x: Tensor) -> Tensor:
            return self.attn(modulate(self.norm1(x), shift_msa, scale_msa), cache)

        def cross_attn(x: Tensor) -> Tensor:
            return self.cross_attn(x, text, mask, cache)

        def mlp(x: Tensor) -> Tensor:
            return self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))

        x = torch.addcmul(x, gate_msa, cache.attn(attn, x))  # x + gate * attn(x), one pass over memory
        x = x + cache.cross_attn(cross_attn, x)
        x = torch.addcmul(x, gate_mlp, cache.mlp(mlp, x))
        return x
