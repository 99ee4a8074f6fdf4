"""Rotary positions as complex numbers of length one."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

POSITION_BITS = 12


def rotations(angles: Tensor) -> Tensor:
    """e^(i angle), complex64."""
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def rope(pos: Tensor, dim: int, theta: float) -> Tensor:
    """Rotations e^(i pos omega_k), omega_k = theta^(-2k / dim), k < dim / 2, as complex64 (..., dim / 2) of whole positions (...) < 4096.

    As exact as angles in float64, which not every device has: whole turns are dropped before anything is rounded.
    """
    coarse, rest = _turns(dim, theta, pos.device)
    pos = pos.float()[..., None]
    turns = pos * coarse
    return rotations(2 * math.pi * (turns - turns.round() + pos * rest))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _turns(dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """omega_k / 2 pi in float32: so many bits that products with positions are exact, and the rest."""
    turns = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") / dim) / (2 * math.pi)
    mantissa, exponent = torch.frexp(turns)
    coarse = torch.ldexp((mantissa * 2**POSITION_BITS).round(), exponent - POSITION_BITS)
    return coarse.float().to(device), (turns - coarse).float().to(device)


def apply_rope(x: Tensor, pe: Tensor) -> Tensor:
    """Rotate neighbouring pairs (2k, 2k + 1) of x (..., L, D) by pe (..., L, D / 2), in float32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * pe).flatten(-2).to(x.dtype)
