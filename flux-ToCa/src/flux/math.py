"""Rotary positions and the attention of FLUX."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from toca.engine.cache import UNCACHED
from toca.nn.rotary import apply_rope, rotations


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, attend: Callable[..., Tensor] = UNCACHED.attend, **seen: Callable) -> Tensor:
    """Rotate q and k (B, H, L, D) by pe (B, 1, L, D / 2), attend, and join the heads: (B, L, H * D).

    attend: the engine's attention; `seen` goes to it.
    """
    return rearrange(attend(apply_rope(q, pe), apply_rope(k, pe), v, **seen), "B H L D -> B L (H D)")


def rope(pos: Tensor, dim: int, theta: int) -> Tensor:
    """Rotations e^(i pos omega_k), omega_k = theta^(-2k / dim), k < dim / 2, as complex64 (..., dim / 2) for positions (...).

    Angles are float64, as upstream's: positions reach the thousands.
    """
    omega = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=pos.device) / dim)
    return rotations(pos.double()[..., None] * omega)
