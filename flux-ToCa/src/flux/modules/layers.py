"""The blocks of FLUX, with one engine call per sub-layer. Shapes: batch B, text tokens T, image tokens N, L = T + N, width D.

`vec` is SiLU of the conditioning, (B, D): every modulation begins with it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from flux.math import attention, rope
from toca.engine.cache import LayerCache, UncachedLayer
from toca.engine.linear import linear_part
from toca.nn.sinusoid import frequencies


class EmbedND(nn.Module):
    """Rotations of positions on several axes, side by side on the dimensions of a head."""

    def __init__(self, dim: int, theta: int, axes_dim: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.theta, self.axes_dim = dim, theta, axes_dim

    def forward(self, ids: Tensor) -> Tensor:
        """Positions (B, L, axes) -> rotations (B, 1, L, dim / 2), complex64."""
        rotations = [rope(ids[..., axis], dim, self.theta) for axis, dim in enumerate(self.axes_dim)]
        return torch.cat(rotations, dim=-1).unsqueeze(1)


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000, time_factor: float = 1000.0) -> Tensor:
    """(B,) -> (B, dim): [cos(u f), sin(u f)], u = time_factor t, f_k = max_period^(-k / half), half = dim / 2.

    The result has the dtype of t, in which u is rounded too: give float32, unless upstream's bfloat16 times are to be reproduced.
    """
    args = (time_factor * t)[:, None].float() * frequencies(dim // 2, max_period, t.device)
    return F.pad(torch.cat((args.cos(), args.sin()), dim=-1), (0, dim % 2)).to(t.dtype)


class MLPEmbedder(nn.Module):
    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(in_dim, hidden_dim)
        self.silu = nn.SiLU()
        self.out_layer = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(self.silu(self.in_layer(x.to(self.in_layer.weight.dtype))))


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.scale.shape, eps=1e-6).to(x.dtype) * self.scale


class QKNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query_norm = RMSNorm(dim)
        self.key_norm = RMSNorm(dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.query_norm(q).to(v.dtype), self.key_norm(k).to(v.dtype)


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, 3 * D) -> queries, keys and values, each (B, H, L, D / H)."""
    return rearrange(qkv, "B L (K H D) -> K B H L D", K=3, H=num_heads).unbind(0)


class SelfAttention(nn.Module):
    """One stream's part in a joint attention: its projections, before and after."""

    def __init__(self, dim: int, num_heads: int = 8, qkv_bias: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.norm = QKNorm(dim // num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, L, D) -> normalised queries and keys, values, and the keys before their normalisation, each (B, H, L, D / H)."""
        q, k, v = split_heads(self.qkv(x), self.num_heads)
        return *self.norm(q, k, v), v, k


class ModulationOut(NamedTuple):
    """What a modulation says of one sub-layer, each (B, 1, D)."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


class Modulation(nn.Module):
    """The linear of a modulation; the engine runs it, for the chunks that a step reads."""

    def __init__(self, dim: int, double: bool) -> None:
        super().__init__()
        self.lin = nn.Linear(dim, (6 if double else 3) * dim)


def modulate(x: Tensor, mod: ModulationOut) -> Tensor:
    return torch.addcmul(mod.shift, x, 1 + mod.scale)


def layer_norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)


class DoubleStreamBlock(nn.Module):
    """Image and text with weights of their own, joined in attention."""

    uncached = UncachedLayer("attn", "img_mlp", "txt_mlp")

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float, qkv_bias: bool = False) -> None:
        super().__init__()
        mlp_hidden_dim = int(hidden_size * mlp_ratio)

        def mlp() -> nn.Sequential:
            layers = nn.Linear(hidden_size, mlp_hidden_dim), nn.GELU(approximate="tanh"), nn.Linear(mlp_hidden_dim, hidden_size)
            return nn.Sequential(*layers)

        self.img_mod = Modulation(hidden_size, double=True)
        self.img_norm1 = layer_norm(hidden_size)
        self.img_attn = SelfAttention(hidden_size, num_heads, qkv_bias)
        self.img_norm2 = layer_norm(hidden_size)
        self.img_mlp = mlp()

        self.txt_mod = Modulation(hidden_size, double=True)
        self.txt_norm1 = layer_norm(hidden_size)
        self.txt_attn = SelfAttention(hidden_size, num_heads, qkv_bias)
        self.txt_norm2 = layer_norm(hidden_size)
        self.txt_mlp = mlp()

    def forward(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor, cache: LayerCache = uncached) -> tuple[Tensor, Tensor]:
        """img (B, N, D), txt (B, T, D), vec (B, D), pe (B, 1, L, d / 2), text first -> the next img and txt."""
        chunks = cache.modulation((self.img_mod.lin, self.txt_mod.lin), vec)
        img_mod1, img_mod2, txt_mod1, txt_mod2 = (ModulationOut(*chunks[start : start + 3]) for start in range(0, 12, 3))

        def attn(img: Tensor, txt: Tensor) -> Tensor:
            img_q, img_k, img_v, img_keys = self.img_attn(modulate(self.img_norm1(img), img_mod1))
            txt_q, txt_k, txt_v, txt_keys = self.txt_attn(modulate(self.txt_norm1(txt), txt_mod1))
            q, k, v = (torch.cat(streams, dim=2) for streams in ((txt_q, img_q), (txt_k, img_k), (txt_v, img_v)))
            seen = attention(q, k, v, pe, cache.attend, keys=lambda: torch.cat((txt_keys, img_keys), dim=2))
            txt_seen, img_seen = seen.split((txt.shape[1], img.shape[1]), dim=1)
            return torch.cat((self.txt_attn.proj(txt_seen), self.img_attn.proj(img_seen)), dim=1)  # (B, L, D)

        def img_mlp(img: Tensor) -> Tensor:
            return self.img_mlp(modulate(self.img_norm2(img), img_mod2))

        def txt_mlp(txt: Tensor) -> Tensor:
            return self.txt_mlp(modulate(self.txt_norm2(txt), txt_mod2))

        txt_attn, img_attn = cache.attn(attn, img, txt).split((txt.shape[1], img.shape[1]), dim=1)
        img = torch.addcmul(img, img_mod1.gate, img_attn)  # img + gate * attention, one pass over memory
        img = torch.addcmul(img, img_mod2.gate, cache.img_mlp(img_mlp, img))
        txt = torch.addcmul(txt, txt_mod1.gate, txt_attn)
        txt = torch.addcmul(txt, txt_mod2.gate, cache.txt_mlp(txt_mlp, txt))
        return img, txt


class SingleStreamBlock(nn.Module):
    """Attention and an MLP side by side on one sequence, with fused linears around them (Dehghani et al., arXiv 2302.05442).

    The two halves of each linear run apart, so that tokens can be refreshed without attention: its part of the output is kept.
    """

    uncached = UncachedLayer("attn", "total")

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.hidden_size, self.num_heads = hidden_size, num_heads
        mlp_hidden_dim = int(hidden_size * mlp_ratio)
        self.linear1 = nn.Linear(hidden_size, hidden_size * 3 + mlp_hidden_dim)  # q, k, v and mlp_in
        self.linear2 = nn.Linear(hidden_size + mlp_hidden_dim, hidden_size)  # proj and mlp_out
        self.norm = QKNorm(hidden_size // num_heads)
        self.pre_norm = layer_norm(hidden_size)
        self.mlp_act = nn.GELU(approximate="tanh")
        self.modulation = Modulation(hidden_size, double=False)

    def forward(self, x: Tensor, vec: Tensor, pe: Tensor, cache: LayerCache = uncached) -> Tensor:
        """x (B, L, D), text first, vec (B, D), pe (B, 1, L, d / 2) -> the next x."""
        mod = ModulationOut(*cache.modulation(self.modulation.lin, vec))
        qkv, mlp_in = slice(3 * self.hidden_size), slice(3 * self.hidden_size, None)  # rows of linear1
        proj, mlp_out = slice(self.hidden_size), slice(self.hidden_size, None)  # columns of linear2

        def attn(x: Tensor) -> Tensor:
            q, k, v = split_heads(linear_part(self.linear1, modulate(self.pre_norm(x), mod), qkv), self.num_heads)
            seen = attention(*self.norm(q, k, v), v, pe, cache.attend, keys=lambda: k)
            return linear_part(self.linear2, seen, inputs=proj)  # with the bias

        def total(x: Tensor, attn: Tensor) -> Tensor:
            hidden = self.mlp_act(linear_part(self.linear1, modulate(self.pre_norm(x), mod), mlp_in))
            return linear_part(self.linear2, hidden, inputs=mlp_out, bias=False).add_(attn)

        return torch.addcmul(x, mod.gate, cache.total(total, x, fed=cache.attn(attn, x)))


class LastLayer(nn.Module):
    def __init__(self, hidden_size: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, patch_size * patch_size * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        """x (B, N, D), vec (B, D) -> (B, N, patch^2 * out_channels)."""
        shift, scale = self.adaLN_modulation[1](vec).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(torch.addcmul(shift, self.norm_final(x), 1 + scale))
