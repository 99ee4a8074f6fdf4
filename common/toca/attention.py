"""Attention that also says how much attention every token receives, without a map of all pairs."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

CPU_TILE = 2**18  # numbers of the attention map that a thread works on at a time: what stays in its cache
GPU_TILE = 2**25  # the same for a whole GPU: few launches, at most 128 MiB in float32


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v on torch's fused kernel. q, k, v: (R, H, N, d)."""
    return F.scaled_dot_product_attention(q, k, v)


def attention_with_mass(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention output (R, H, N, d) and the mass (R, N) each key receives: the head-averaged map summed over queries, in float32.

    On the GPU fused attention hands out its log-sum-exp, and a second pass over tiles of queries adds up exp(q k^T - lse). On the CPU,
    where a matmul costs as much as the fused kernel's, tiles of the softmax small enough for the cache give the output and the sums at
    once. No more than one tile of the map exists at a time.
    """
    if q.is_cuda and (fused := _fused_with_lse(q, k, v)):
        return fused[0], _mass_from_lse(q, k, fused[1])
    return _tiled(q, k, v)


def _tiled(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    rows, heads, n, d = q.shape
    budget = GPU_TILE if q.is_cuda else CPU_TILE * torch.get_num_threads()
    group, tile = min(heads, max(1, budget // n**2)), min(n, max(1, budget // n))
    out = q.new_empty(rows, n, heads, d).transpose(1, 2)
    mass = torch.zeros(rows, n, device=q.device)
    scratch = torch.empty(group, tile, n, device=q.device)  # float32 whatever the inputs: reduced precision is slower here, and less exact
    for row, head, start in product(range(rows), range(0, heads, group), range(0, n, tile)):
        some, queries = slice(head, head + group), slice(start, start + tile)
        query, key, value = q[row, some, queries].float(), k[row, some].float(), v[row, some].float()
        weights = scratch[: query.shape[0], : query.shape[1]]
        torch.baddbmm(weights, query, key.mT, beta=0, alpha=d**-0.5, out=weights)
        torch.softmax(weights, dim=-1, out=weights)
        out[row, some, queries] = (weights @ value).to(q.dtype)
        mass[row] += weights.sum(dim=(0, 1))
    return out, mass / heads


def _fused_with_lse(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
    """Output and log-sum-exp (R, H, N) of the fastest CUDA kernel that hands it out; None where the device has none."""
    params = torch.backends.cuda.SDPAParams(q, k, v, None, 0.0, False, False)
    if torch.backends.cuda.can_use_flash_attention(params):
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)
    elif torch.backends.cuda.can_use_efficient_attention(params):
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
    else:
        return None
    return out, lse[..., : q.shape[2]]  # the efficient kernel pads its rows


def _mass_from_lse(q: Tensor, k: Tensor, log_sum_exp: Tensor) -> Tensor:
    rows, heads, n, d = q.shape
    tile = max(1, GPU_TILE // (rows * heads * n))
    mass = torch.zeros(rows, n, device=q.device)
    for start in range(0, n, tile):
        queries = slice(start, start + tile)
        logits = ((q[:, :, queries] * d**-0.5) @ k.mT).float()
        mass += (logits - log_sum_exp[:, :, queries, None]).exp_().sum(dim=(1, 2))
    return mass / heads
