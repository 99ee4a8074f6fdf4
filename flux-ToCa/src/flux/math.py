"""Rotary positions and the attention of FLUX."""

from __future__ import annotations

from collections.abc import Callable

from einops import rearrange
from torch import Tensor

from toca.engine.cache import UNCACHED
from toca.nn.rotary import apply_rope, rope

__all__ = ["attention", "rope"]


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor, attend: Callable[..., Tensor] = UNCACHED.attend, **seen: Callable) -> Tensor:
    """Rotate q and k (B, H, L, D) by pe (B, 1, L, D / 2), attend, and join the heads: (B, L, H * D).

    attend: the engine's attention; `seen` goes to it.
    """
    return rearrange(attend(apply_rope(q, pe), apply_rope(k, pe), v, **seen), "B H L D -> B L (H D)")
