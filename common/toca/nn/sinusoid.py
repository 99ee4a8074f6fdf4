"""Sinusoidal embeddings of times and positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def frequencies(half: int, max_period: float, device: torch.device) -> Tensor:
    """max_period^(-k / half), k < half, in float32.

    Times reach the hundreds: one unit in the last place of a frequency shows in the output. So the exponents are rounded to float32, as
    published code has them, and the exponential correctly, which float32's is on no two machines alike.
    """
    exponents = -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=device) / half
    return exponents.double().exp().float()
