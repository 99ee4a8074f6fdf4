"""Rotary positions and the attention of FLUX."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from toca.cache import NO_CACHE


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, attend: Callable[..., Tensor] = NO_CACHE.attend, **seen: Callable) -> Tensor:
    """Rotate q and k (B, H, L, D) by pe (B, 1, L, D / 2), attend, and join the heads: (B, L, H * D).

    attend: the engine's attention; `seen` goes to it.
    """
    return rearrange(attend(apply_rope(q, pe), apply_rope(k, pe), v, **seen), "B H L D -> B L (H D)")


def rope(pos: Tensor, dim: int, theta: int) -> Tensor:
    """Rotations e^(i pos omega_k), omega_k = theta^(-2k / dim), k < dim / 2, as complex64 (..., dim / 2) for positions (...).

    Angles are float64, as upstream's: positions reach the thousands.
    """
    omega = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=pos.device) / dim)
    angle = pos.double()[..., None] * omega
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def apply_rope(x: Tensor, pe: Tensor) -> Tensor:
    """Rotate neighbouring pairs (2k, 2k + 1) of x (B, H, L, D) by pe (B, 1, L, D / 2), in float32."""
    pairs = torch.view_as_complex(rearrange(x.float(), "B H L (K two) -> B H L K two", two=2))
    return torch.view_as_real(pairs * pe).flatten(-2).to(x.dtype)
