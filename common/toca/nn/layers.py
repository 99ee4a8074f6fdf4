"""Layers that several diffusion transformers have in common. Shapes: rows R, tokens N, heads H, width D = H d."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from toca.engine.cache import UNCACHED, LayerCache


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, x, 1 + scale)  # (R, N, D), with (R, 1, D) shift and scale


def layer_norm(dim: int) -> nn.LayerNorm:
    """Without weights of its own: what follows modulates."""
    return nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)


class TimestepEmbedder(nn.Module):
    """Sinusoidal features of a number (a timestep 0..999, a picture's side), cosine first, then a two-layer MLP."""

    def __init__(self, hidden_size: int, frequency_embedding_size: int = 256) -> None:
        super().__init__()
        self.frequency_embedding_size = frequency_embedding_size
        self.mlp = nn.Sequential(nn.Linear(frequency_embedding_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    @staticmethod
    def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000) -> Tensor:
        """(R,) -> (R, dim) float32 features [cos(t f), sin(t f)], f_k = max_period^(-k / half); an odd dim ends in a zero column."""
        half = dim // 2
        freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        args = t[:, None].float() * freqs
        return F.pad(torch.cat([args.cos(), args.sin()], dim=-1), (0, dim % 2))

    def forward(self, t: Tensor) -> Tensor:
        features = self.timestep_embedding(t, self.frequency_embedding_size)
        return self.mlp(features.to(self.mlp[0].weight.dtype))  # (R, D)


class PatchEmbed(nn.Module):
    """Non-overlapping p x p patches to tokens in row-major order: a convolution whose kernel is its stride."""

    def __init__(self, patch_size: int, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2).contiguous()  # (R, N, D); in any other layout every later pass is slow


def unpatchify(x: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """(R, h * w, p * p * C), channel fastest -> (R, C, h p, w p)."""
    (h, w), p = grid, patch_size
    return x.reshape(-1, h, w, p, p, x.shape[-1] // p**2).permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, h * p, w * p)


def sincos_2d(dim: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Position table (h * w, dim) of a grid with these coordinates, float64: sine and cosine of the column, then of the row."""
    omega = 10000.0 ** (-np.arange(dim // 4) / (dim / 4))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    angles = [np.outer(position.ravel(), omega) for position in (x, y)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (R, H, N, d) -> (R, N, D)


class SelfAttention(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, cache: LayerCache = UNCACHED) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # each (R, H, N, d)
        return self.proj(merge_heads(cache.attend(q, k, v)))  # (R, N, D)


class Mlp(nn.Module):
    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))
