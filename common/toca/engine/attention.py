"""Attention that also says how much attention every token receives, or how it spreads its own, without a map of all pairs."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

CPU_TILE = 2**18  # numbers of the attention map that a thread works on at a time: what stays in its cache
GPU_TILE = 2**25  # the same for a whole GPU: few launches, at most 128 MiB in float32


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v on torch's fused kernel. q (R, H, N, d), k, v (R, H, L, d); mask (R, L) bool: the keys that take part."""
    return F.scaled_dot_product_attention(q, k, v, None if mask is None else mask[:, None, None])


def attention_with_mass(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention output (R, H, N, d) and the mass (R, N) each key receives: the head-averaged map summed over queries, in float32.

    On the GPU fused attention hands out its log-sum-exp, and a second pass over tiles of queries adds up exp(q k^T - lse). On the CPU,
    where a matmul costs as much as the fused kernel's, tiles of the softmax give the output and the sums at once. No more than one
    tile of the map exists at a time.
    """
    if q.is_cuda and (fused := _fused_with_lse(q, k, v)):
        return fused[0], _mass_from_lse(q, k, fused[1])
    return _tiled(q, k, v)


def attention_with_entropy(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, parts: int = 1) -> tuple[Tensor, Tensor]:
    """Attention output (R, H, N, d), and for every query the entropy (R, N) of the attention it pays, in float32.

    With a the head-averaged attention of a query over the L keys that take part, and p = a / parts: H = -parts sum_j p_j ln(p_j + 1e-7).
    An item of several rows attends to as many texts, which share its attention: the mean over its rows is the entropy of all of it.
    Rows and queries are worked on in tiles of the map, no more than one at a time. For few keys, such as a text's.
    """
    rows, heads, n, d = q.shape
    budget = GPU_TILE if q.is_cuda else CPU_TILE * torch.get_num_threads()
    tile = min(n, max(1, budget // (heads * k.shape[2])))
    group = min(rows, max(1, budget // (heads * n * k.shape[2])))
    out = q.new_empty(rows, n, heads, d).transpose(1, 2)
    entropy = torch.empty(rows, n, device=q.device)
    for row, start in product(range(0, rows, group), range(0, n, tile)):
        some, queries = slice(row, row + group), slice(start, start + tile)
        logits = (q[some, :, queries].float() * d**-0.5) @ k[some].float().mT
        if mask is not None:
            logits.masked_fill_(~mask[some, None, None], -torch.inf)
        weights = logits.softmax(dim=-1)
        out[some, :, queries] = (weights @ v[some].float()).to(q.dtype)
        p = weights.mean(dim=1) / parts
        entropy[some, queries] = (p * (p + 1e-7).log()).sum(dim=-1) * -parts
    return out, entropy


def _tiled(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    rows, heads, n, d = q.shape
    budget = GPU_TILE if q.is_cuda else 4 * CPU_TILE * torch.get_num_threads()  # long rows leave the cache anyway: larger products pay
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
