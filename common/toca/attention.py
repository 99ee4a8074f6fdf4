"""Attention that also says how much attention every token receives, without a map of all pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_TILE = 128


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v on torch's fused kernel. q, k, v: (R, H, N, d)."""
    return F.scaled_dot_product_attention(q, k, v)


def attention_with_mass(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention output (R, H, N, d) and the mass (R, N) each key receives: the head-averaged map summed over queries, in float32.

    On the GPU fused attention hands out its log-sum-exp, and a second pass over tiles of queries adds up exp(q k^T - lse). On the CPU,
    where a matmul costs as much as the fused kernel's, each tile's softmax gives the output and the sums at once. Either way at most
    R x H x 128 x N numbers exist at a time.
    """
    if q.is_cuda:
        out, log_sum_exp = _fused_with_lse(q, k, v)
        return out, _mass_from_lse(q, k, log_sum_exp)
    return _tiled(q, k, v)


def _tiled(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    keys, scale = k.transpose(-1, -2), q.shape[-1] ** -0.5
    out, mass = torch.empty_like(q), 0
    for start in range(0, q.shape[2], QUERY_TILE):
        tile = slice(start, start + QUERY_TILE)
        weights = ((q[:, :, tile] * scale) @ keys).softmax(dim=-1)
        out[:, :, tile] = weights @ v
        mass = mass + weights.sum(dim=2, dtype=torch.float32)
    return out, mass.mean(dim=1)


def _fused_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    if q.dtype in (torch.float16, torch.bfloat16):
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
    else:
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
    return out, lse[..., : q.shape[2]]  # (R, H, N); the efficient kernel pads its rows


def _mass_from_lse(q: Tensor, k: Tensor, log_sum_exp: Tensor) -> Tensor:
    keys, scale, mass = k.transpose(-1, -2), q.shape[-1] ** -0.5, 0
    for start in range(0, q.shape[2], QUERY_TILE):
        tile = slice(start, start + QUERY_TILE)
        logits = ((q[:, :, tile] * scale) @ keys).float()
        mass = mass + (logits - log_sum_exp[:, :, tile, None]).exp().sum(dim=2)
    return mass.mean(dim=1)
