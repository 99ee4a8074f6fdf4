"""Rotary positions as complex numbers of length one."""

from __future__ import annotations

import torch
from torch import Tensor


def rotations(angles: Tensor) -> Tensor:
    """e^(i angle), complex64."""
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def apply_rope(x: Tensor, pe: Tensor) -> Tensor:
    """Rotate neighbouring pairs (2k, 2k + 1) of x (..., L, D) by pe (..., L, D / 2), in float32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * pe).flatten(-2).to(x.dtype)
