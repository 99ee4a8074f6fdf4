"""The layers of STDiT3, under upstream's names. Parameter names are those of the official checkpoints.

Tokens are ordered (frame, row, column), columns fastest: x is (B, N, C) with N = T * S, S tokens a frame.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from opensora.spec import FREQUENCIES
from toca.engine.cache import UNCACHED, LayerCache
from toca.engine.token_shards import WHOLE, Whole
from toca.nn.rotary import apply_rope, rotations
from toca.nn.sinusoid import frequencies


def approx_gelu() -> nn.GELU:
    return nn.GELU(approximate="tanh")


def get_layernorm(hidden_size: int) -> nn.LayerNorm:
    return nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)


def t2i_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift. x: (B, N, C); shift, scale: (B, F, C), one for each of F equal runs of tokens."""
    runs = x.unflatten(1, (shift.shape[1], -1))
    return torch.addcmul(shift[:, :, None], runs, 1 + scale[:, :, None]).flatten(1, 2)


def gated(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """x + gate y, in one pass over memory. x, y: (B, N, C); gate: (B, F, C), as in `t2i_modulate`."""
    runs = (gate.shape[1], -1)
    return torch.addcmul(x.unflatten(1, runs), gate[:, :, None], y.unflatten(1, runs)).flatten(1, 2)


class LlamaRMSNorm(nn.Module):
    """RMS norm with its statistics in float32."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * F.rms_norm(x.float(), self.weight.shape, eps=1e-6).to(x.dtype)


class RotaryEmbedding(nn.Module):
    """Positions of frames, by frequencies 10000^(-2k / dim) that stay float32 in a half-precision model: angles grow with time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 10000.0 ** -(torch.arange(0, dim, 2, dtype=torch.float32) / dim))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RotaryEmbedding:
        precise = self.freqs
        super()._apply(fn, recurse)
        if not precise.is_meta:
            self.freqs = precise.to(self.freqs.device)
        return self

    def forward(self, frames: int) -> Tensor:
        """Rotations (T, dim / 2), complex64."""
        return rotations(torch.arange(frames, device=self.freqs.device)[:, None] * self.freqs)


class Attention(nn.Module):
    """Self-attention within every frame, or along time at every place of a frame."""

    def __init__(self, dim: int, num_heads: int, qk_norm: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.q_norm = LlamaRMSNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.k_norm = LlamaRMSNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, frames: int, rope: Tensor | None = None, cache: LayerCache = UNCACHED, shards: Whole = WHOLE) -> Tensor:
        """x: (B, N, C). rope: rotations (T, d / 2) make it attention along time. shards: where the tokens of frames live."""
        qkv = rearrange(self.qkv(x), "B (T S) (K H D) -> K B T S H D", K=3, H=self.num_heads, T=frames)

        def tokens(heads: Tensor) -> Tensor:
            return rearrange(heads, "B T S H D -> B H (T S) D")

        if rope is None:
            q, k, v = rearrange(shards.heads(qkv), "K B T S H D -> K (B T) H S D")
            y = cache.attend(self.q_norm(q), self.k_norm(k), v, keys=lambda: tokens(qkv[1]), values=lambda: tokens(qkv[2]))
            y = shards.unheads(rearrange(y, "(B T) H S D -> B T S H D", T=frames))
        else:
            q, k, v = rearrange(qkv, "K B T S H D -> K (B S) H T D")
            q, k = apply_rope(self.q_norm(q), rope), apply_rope(self.k_norm(k), rope)
            y = cache.attend(q, k, v, keys=lambda: tokens(qkv[1]), values=lambda: tokens(qkv[2]))
            y = rearrange(y, "(B S) H T D -> B T S H D", B=len(x))
        return self.proj(y.flatten(3).flatten(1, 2))


class MultiHeadCrossAttention(nn.Module):
    """Attention to the text; every row of the batch sees its own."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(d_model, d_model)
        self.kv_linear = nn.Linear(d_model, d_model * 2)
        self.proj = nn.Linear(d_model, d_model)

    def keys_values(self, text: Tensor) -> Tensor:
        """text (B, L, C) -> keys and values (2, B, H, L, d)."""
        return rearrange(self.kv_linear(text), "B L (K H D) -> K B H L D", K=2, H=self.num_heads)

    def forward(self, x: Tensor, keys_values: Tensor, mask: Tensor, cache: LayerCache = UNCACHED) -> Tensor:
        """x: (B, K, C). mask: (B, L), True at the text's tokens."""
        q = rearrange(self.q_linear(x), "B N (H D) -> B H N D", H=self.num_heads)
        return self.proj(rearrange(cache.attend(q, *keys_values, mask=mask), "B H N D -> B N (H D)"))


class Mlp(nn.Module):
    def __init__(self, in_features: int, hidden_features: int, out_features: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = approx_gelu()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class PatchEmbed3D(nn.Module):
    """Patches (t, y, x) to tokens; ends that do not fill a patch are padded by zeros."""

    def __init__(self, patch_size: tuple[int, int, int], in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, T, H, W) -> (B, N, C)."""
        t, h, w = (-size % patch for size, patch in zip(x.shape[2:], self.patch_size))
        return self.proj(F.pad(x, (0, w, 0, h, 0, t))).flatten(2).transpose(1, 2).contiguous()


class PositionEmbedding2D(nn.Module):
    """Fixed sine-cosine positions of a frame's tokens, stretched to its resolution."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, rows: int, columns: int, scale: Tensor, base_size: int) -> Tensor:
        """Table (rows * columns, dim) in float32: [sin(u_x f), cos(u_x f), sin(u_y f), cos(u_y f)], f_k = 10000^(-4k / dim),
        u_x = x base_size / (scale columns), u_y alike. scale: (), side of the picture over the one the model was made for."""
        quarter = torch.arange(self.dim // 4, dtype=torch.float32, device=scale.device)
        f = 10000.0 ** (-4 * quarter / self.dim)

        def features(size: int) -> Tensor:
            u = torch.arange(size, dtype=torch.float32, device=scale.device) * base_size / (scale.float() * size)
            return torch.cat(((u[:, None] * f).sin(), (u[:, None] * f).cos()), dim=-1)  # (size, dim / 2)

        x, y = features(columns).expand(rows, -1, -1), features(rows)[:, None].expand(-1, columns, -1)
        return torch.cat((x, y), dim=-1).flatten(0, 1)


class TimestepEmbedder(nn.Module):
    """Sinusoidal features of a number, cosine first, then a two-layer MLP."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    @staticmethod
    def timestep_embedding(t: Tensor, dim: int = FREQUENCIES, max_period: float = 10000) -> Tensor:
        """(B,) -> (B, dim): [cos(t w), sin(t w)], w_k = max_period^(-2k / dim), in float32."""
        angles = t[:, None].float() * frequencies(dim // 2, max_period, t.device)
        return torch.cat((angles.cos(), angles.sin()), dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(self.timestep_embedding(t).to(self.mlp[0].weight.dtype))


class SizeEmbedder(TimestepEmbedder):
    """The same of a number that every prompt has, repeated over the halves of the batch."""

    def forward(self, s: Tensor, rows: int) -> Tensor:
        """(n,) -> (rows, C); n divides rows."""
        return super().forward(s.repeat(rows // len(s)))


class CaptionEmbedder(nn.Module):
    """Text states to the model's width; `y_embedding` is the null caption."""

    def __init__(self, in_channels: int, hidden_size: int, token_num: int) -> None:
        super().__init__()
        self.y_proj = Mlp(in_channels, hidden_size, hidden_size)
        self.register_buffer("y_embedding", torch.randn(token_num, in_channels) / in_channels**0.5)

    def forward(self, caption: Tensor) -> Tensor:
        """(B, L, in_channels) -> (B, L, C)."""
        return self.y_proj(caption)


class T2IFinalLayer(nn.Module):
    def __init__(self, hidden_size: int, num_patch: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = get_layernorm(hidden_size)
        self.linear = nn.Linear(hidden_size, num_patch * out_channels)
        self.scale_shift_table = nn.Parameter(torch.randn(2, hidden_size) / hidden_size**0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (B, N, C); t: (B, F, C), one for each of F equal runs of tokens -> (B, N, num_patch * out_channels)."""
        shift, scale = (self.scale_shift_table + t[:, :, None]).unbind(2)
        return self.linear(t2i_modulate(self.norm_final(x), shift, scale))
